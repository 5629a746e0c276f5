"""DatasetService."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from google.protobuf import empty_pb2

from rowmint.errors import EmptyStreamError, InvalidFieldError
from rowmint.names import DatasetName, ProjectName, validate_id
from rowmint.objects import ObjectStore
from rowmint.registry import DatasetLedger
from rowmint.rpc.models import optional
from rowmint.v1 import dataset_pb2, dataset_service_pb2, dataset_service_pb2_grpc
from trainer_service.converters.datasets import dataset_to_proto, format_from_proto, overrides_from_proto
from trainer_service.datasets.upload import UploadService, Writer
from trainer_service.garbage import sweep

T = TypeVar("T")


class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Receives datasets.

    Args:
        ledger: Datasets.
        store: The data store.
        upload: Takes the bytes.
        wake: Called when an upload is finished and ingest can begin.
    """

    def __init__(
        self, ledger: DatasetLedger, store: ObjectStore, upload: UploadService, wake: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._upload = upload
        self._wake = wake

    async def CreateDataset(
        self, request: dataset_service_pb2.CreateDatasetRequest, context: Any
    ) -> dataset_pb2.Dataset:
        """Create a dataset that waits for its bytes."""
        project = ProjectName.parse(request.parent).project
        if request.dataset_id:
            validate_id(request.dataset_id, "dataset_id")
        overrides = overrides_from_proto(request.dataset)
        data_format = format_from_proto(request.dataset.format)
        body = (request.parent, request.dataset_id, data_format, overrides, request.dataset.primary_key)
        record = await asyncio.to_thread(
            self._upload.create,
            project,
            request.dataset_id,
            data_format=data_format,
            overrides=overrides,
            primary_key=request.dataset.primary_key,
            request_id=request.request_id,
            request_digest=hashlib.sha256(repr(body).encode()).digest(),
        )
        return dataset_to_proto(record)

    async def WriteDataset(
        self, request_iterator: AsyncIterator[dataset_service_pb2.WriteDatasetRequest], context: Any
    ) -> dataset_service_pb2.WriteDatasetResponse:
        """Append bytes; what is committed stays, however the stream ends."""
        messages = aiter(request_iterator)
        first = await anext(messages, None)
        if first is None:
            raise EmptyStreamError("the upload stream carried no message; send at least finish_write")
        name = DatasetName.parse(first.name)
        writer = await asyncio.to_thread(self._upload.open, name)
        try:
            await self._write(writer, first)
            finished = first.HasField("finish_write")
            async for message in _with_pauses(messages, self._upload.segment_seconds):
                if message is None:
                    await asyncio.to_thread(writer.tick)
                    continue
                if finished:
                    raise InvalidFieldError("finish_write", "must be in the last message")
                if message.name not in ("", first.name):
                    raise InvalidFieldError("name", f"changed from {first.name!r} to {message.name!r} within a stream")
                await self._write(writer, message)
                finished = message.HasField("finish_write")
        finally:
            # Whatever ended the stream, what came before is committed.
            await asyncio.shield(asyncio.to_thread(writer.close))
        self._wake()
        return dataset_service_pb2.WriteDatasetResponse(
            dataset=dataset_to_proto(await asyncio.to_thread(self._ledger.get, name))
        )

    @staticmethod
    async def _write(writer: Writer, message: dataset_service_pb2.WriteDatasetRequest) -> None:
        crc = optional(message, "crc32c")
        if message.data or not message.HasField("finish_write"):
            await asyncio.to_thread(writer.append, message.write_offset, message.data, crc)
        if message.HasField("finish_write"):
            end = message.finish_write
            await asyncio.to_thread(writer.finish, end.total_size, end.sha256)

    async def GetDataset(self, request: dataset_service_pb2.GetDatasetRequest, context: Any) -> dataset_pb2.Dataset:
        """Read one dataset."""
        return dataset_to_proto(await asyncio.to_thread(self._ledger.get, DatasetName.parse(request.name)))

    async def ListDatasets(
        self, request: dataset_service_pb2.ListDatasetsRequest, context: Any
    ) -> dataset_service_pb2.ListDatasetsResponse:
        """List a project's datasets."""
        project = ProjectName.parse(request.parent).project
        size = optional(request, "page_size")
        page = await asyncio.to_thread(self._ledger.list, project, size, request.page_token)
        return dataset_service_pb2.ListDatasetsResponse(
            datasets=[dataset_to_proto(record) for record in page.items], next_page_token=page.next_page_token
        )

    async def DeleteDataset(self, request: dataset_service_pb2.DeleteDatasetRequest, context: Any) -> empty_pb2.Empty:
        """Delete a dataset and its objects."""
        await asyncio.to_thread(self._delete, DatasetName.parse(request.name))
        return empty_pb2.Empty()

    def _delete(self, name: DatasetName) -> None:
        sweep(self._ledger, self._store, self._ledger.delete(name))


async def _with_pauses(messages: AsyncIterator[T], seconds: float) -> AsyncIterator[T | None]:
    """Yield the messages, and None whenever none has come for `seconds`."""
    coming = asyncio.ensure_future(anext(messages, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=seconds)
            if not done:
                yield None
                continue
            message = coming.result()
            if message is None:
                return
            yield message
            coming = asyncio.ensure_future(anext(messages, None))
    finally:
        coming.cancel()
