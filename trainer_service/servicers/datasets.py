"""DatasetService."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf import empty_pb2

from rowmint.errors import EmptyStreamError, InvalidFieldError, UnavailableError
from rowmint.names import DatasetName, ProjectName, validate_id, validate_request_id
from rowmint.objects import ObjectStore
from rowmint.registry import DatasetLedger
from rowmint.rpc.models import optional
from rowmint.v1 import dataset_pb2, dataset_service_pb2, dataset_service_pb2_grpc
from trainer_service import metrics
from trainer_service.converters.datasets import dataset_to_proto, overrides_from_proto, stored_format
from trainer_service.datasets.upload import UploadService, Writer
from trainer_service.garbage import sweep

T = TypeVar("T")


class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Receives datasets.

    Args:
        ledger: Ledger of datasets.
        store: The data store.
        upload: Creates datasets and receives their bytes.
        wake: Called when an upload is finished and ingest can start.
    """

    def __init__(
        self, ledger: DatasetLedger, store: ObjectStore, upload: UploadService, wake: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._upload = upload
        self._wake = wake
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End running uploads; received bytes are committed, so that clients can resume."""
        self._closing.set()

    async def CreateDataset(
        self, request: dataset_service_pb2.CreateDatasetRequest, context: Any
    ) -> dataset_pb2.Dataset:
        """Create a dataset in state UPLOADING."""
        return await asyncio.to_thread(self._create, request)

    def _create(self, request: dataset_service_pb2.CreateDatasetRequest) -> dataset_pb2.Dataset:
        project = ProjectName.parse(request.parent).project
        if request.dataset_id:
            validate_id(request.dataset_id, "dataset_id")
        validate_request_id(request.request_id)
        overrides = overrides_from_proto(request.dataset)
        data_format = stored_format(request.dataset)
        body = (request.parent, request.dataset_id, data_format, overrides, request.dataset.primary_key)
        record = self._upload.create(
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
        """Append bytes; committed bytes stay, however the stream ends."""
        messages = aiter(request_iterator)
        first = await anext(messages, None)
        if first is None:
            raise EmptyStreamError("the upload stream contained no message; send at least finish_write")
        name = DatasetName.parse(first.name)
        with metrics.upload_open():
            await self._receive(name, first, messages)
        self._wake()
        return dataset_service_pb2.WriteDatasetResponse(dataset=await asyncio.to_thread(self._read, name))

    async def _receive(
        self,
        name: DatasetName,
        first: dataset_service_pb2.WriteDatasetRequest,
        messages: AsyncIterator[dataset_service_pb2.WriteDatasetRequest],
    ) -> None:
        """Receive the messages of an upload stream, of which `first` has been read."""
        writer = _SerializedWriter(await asyncio.to_thread(self._upload.open, name))
        try:
            await writer.append(first)
            last = first
            async with aclosing(_with_idle_ticks(messages, self._upload.segment_seconds, self._closing)) as received:
                async for message in received:
                    if message is None:
                        await writer.tick()
                        continue
                    if last.HasField("finish_write"):
                        raise InvalidFieldError("finish_write", "is set in a message that is not the last one")
                    if message.name not in ("", first.name):
                        description = f"changed from {first.name!r} to {message.name!r} within a stream"
                        raise InvalidFieldError("name", description)
                    await writer.append(message)
                    last = message
            # Only the end of the stream shows which message was the last.
            if last.HasField("finish_write"):
                await writer.finish(last.finish_write)
        finally:
            # However the stream ended, the received bytes are committed.
            await asyncio.shield(writer.close())

    async def GetDataset(self, request: dataset_service_pb2.GetDatasetRequest, context: Any) -> dataset_pb2.Dataset:
        """Read one dataset."""
        return await asyncio.to_thread(self._read, DatasetName.parse(request.name))

    def _read(self, name: DatasetName) -> dataset_pb2.Dataset:
        return dataset_to_proto(self._ledger.get(name))

    async def ListDatasets(
        self, request: dataset_service_pb2.ListDatasetsRequest, context: Any
    ) -> dataset_service_pb2.ListDatasetsResponse:
        """List a project's datasets."""
        return await asyncio.to_thread(self._list, request)

    def _list(self, request: dataset_service_pb2.ListDatasetsRequest) -> dataset_service_pb2.ListDatasetsResponse:
        project = ProjectName.parse(request.parent).project
        size = optional(request, "page_size")
        page = self._ledger.list(project, size, request.page_token)
        return dataset_service_pb2.ListDatasetsResponse(
            datasets=[dataset_to_proto(record) for record in page.items], next_page_token=page.next_page_token
        )

    async def DeleteDataset(self, request: dataset_service_pb2.DeleteDatasetRequest, context: Any) -> empty_pb2.Empty:
        """Delete a dataset and its objects."""
        await asyncio.to_thread(self._delete, DatasetName.parse(request.name))
        return empty_pb2.Empty()

    def _delete(self, name: DatasetName) -> None:
        sweep(self._ledger, self._store, self._ledger.delete(name))


class _SerializedWriter:
    """A writer that is called in threads, one at a time.

    The thread of a cancelled call continues running: without the lock, `close` could run concurrently with it.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()

    async def append(self, message: dataset_service_pb2.WriteDatasetRequest) -> None:
        await self._call(self._writer.append, message.write_offset, message.data, optional(message, "crc32c"))

    async def tick(self) -> None:
        await self._call(self._writer.tick)

    async def finish(self, end: dataset_service_pb2.FinishWrite) -> None:
        await self._call(self._writer.finish, end.total_size, end.sha256)

    async def close(self) -> None:
        await self._call(self._writer.close)

    async def _call(self, method: Callable[..., object], *arguments: object) -> None:
        def call_locked() -> None:
            with self._lock:
                method(*arguments)

        await asyncio.to_thread(call_locked)


async def _with_idle_ticks(
    messages: AsyncIterator[T], seconds: float, closing: asyncio.Event
) -> AsyncGenerator[T | None, None]:
    """Yield the messages, and None whenever none was received for `seconds`.

    Raises:
        UnavailableError: `closing` is set.
    """
    upcoming = asyncio.ensure_future(anext(messages, None))
    closed = asyncio.ensure_future(closing.wait())
    try:
        while True:
            done, _ = await asyncio.wait({upcoming, closed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if closed in done:
                raise UnavailableError(
                    "the trainer is shutting down, and received bytes are committed; resume at committed_size",
                    retry_after=1.0,
                )
            if not done:
                yield None
                continue
            message = upcoming.result()
            if message is None:
                return
            yield message
            upcoming = asyncio.ensure_future(anext(messages, None))
    finally:
        upcoming.cancel()
        closed.cancel()
