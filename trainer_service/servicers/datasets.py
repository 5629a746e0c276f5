"""DatasetService."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from google.protobuf import empty_pb2

from rowmint.errors import EmptyStreamError, FencedError, InvalidFieldError, LimitError, UnavailableError
from rowmint.names import DatasetName, ProjectName, validate_id, validate_request_id
from rowmint.objects import ObjectStore
from rowmint.registry import DatasetLedger
from rowmint.rpc.message_page import MessagePage
from rowmint.rpc.models import optional
from rowmint.v1 import dataset_pb2, dataset_service_pb2, dataset_service_pb2_grpc
from trainer_service import metrics
from trainer_service.converters.datasets import dataset_to_proto, overrides_from_proto, stored_format
from trainer_service.converters.request_digests import dataset_digests
from trainer_service.datasets.upload import UploadService, Writer
from trainer_service.garbage import sweep
from trainer_service.threads import TrainerThreads
from trainer_service.upload_streams import UploadStreams

T = TypeVar("T")


class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Receives datasets.

    Args:
        ledger: Ledger of datasets.
        store: The data store.
        upload: Creates datasets and receives their bytes.
        wake: Called when an upload is finished and ingest can start.
        streams: The upload streams that are open.
        threads: Threads for what blocks.
        max_page_bytes: Size of a page's messages.
    """

    def __init__(
        self,
        ledger: DatasetLedger,
        store: ObjectStore,
        upload: UploadService,
        wake: Callable[[], None],
        *,
        streams: UploadStreams,
        threads: TrainerThreads,
        max_page_bytes: int,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._upload = upload
        self._wake = wake
        self._streams = streams
        self._threads = threads
        self._max_page_bytes = max_page_bytes
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End running uploads; received bytes are committed, so that clients can resume."""
        self._closing.set()

    async def CreateDataset(
        self, request: dataset_service_pb2.CreateDatasetRequest, context: Any
    ) -> dataset_pb2.Dataset:
        """Create a dataset in state UPLOADING."""
        project = ProjectName.parse(request.parent).project
        return await self._threads.registry.run(project, self._create, project, request)

    def _create(self, project: str, request: dataset_service_pb2.CreateDatasetRequest) -> dataset_pb2.Dataset:
        if request.dataset_id:
            validate_id(request.dataset_id, "dataset_id")
        validate_request_id(request.request_id)
        overrides = overrides_from_proto(request.dataset)
        data_format = stored_format(request.dataset)
        digest, *former = dataset_digests(request)
        record = self._upload.create(
            project,
            request.dataset_id,
            data_format=data_format,
            overrides=overrides,
            primary_key=request.dataset.primary_key,
            request_id=request.request_id,
            request_digest=digest,
            former_digests=former,
        )
        return dataset_to_proto(record)

    async def WriteDataset(
        self, request_iterator: AsyncIterator[dataset_service_pb2.WriteDatasetRequest], context: Any
    ) -> dataset_service_pb2.WriteDatasetResponse:
        """Append bytes; committed bytes stay, however the stream ends."""
        with self._streams.counted():
            messages = aiter(request_iterator)
            try:
                first = await asyncio.wait_for(anext(messages, None), self._streams.limits.idle_seconds)
            except TimeoutError as error:
                raise _idle_error(self._streams.limits.idle_seconds) from error
            if first is None:
                raise EmptyStreamError("the upload stream contained no message; send at least finish_write")
            name = DatasetName.parse(first.name)
            with self._streams.of_project(name.project), metrics.upload_open():
                await self._receive(name, first, messages)
        self._wake()
        dataset = await self._threads.registry.run(name.project, self._read, name)
        return dataset_service_pb2.WriteDatasetResponse(dataset=dataset)

    async def _receive(
        self,
        name: DatasetName,
        first: dataset_service_pb2.WriteDatasetRequest,
        messages: AsyncIterator[dataset_service_pb2.WriteDatasetRequest],
    ) -> None:
        """Receive the messages of an upload stream, of which `first` has been read."""
        opened = await self._threads.registry.run(name.project, self._upload.open, name)
        writer = _SerializedWriter(opened, partial(self._threads.upload.run, name.project))
        with self._streams.newest(name, opened.epoch) as superseded:
            try:
                await writer.append(first)
                named, end = first.name, _end_of(first)
                del first  # Of a message nothing is kept but what the end needs.
                ticks = _with_idle_ticks(
                    messages,
                    self._upload.segment_seconds,
                    self._streams.limits.idle_seconds,
                    closing=self._closing,
                    superseded=superseded,
                )
                async with aclosing(ticks) as received:
                    async for message in received:
                        if message is None:
                            await writer.tick()
                            continue
                        if end is not None:
                            raise InvalidFieldError("finish_write", "is set in a message that is not the last one")
                        if message.name not in ("", named):
                            description = f"changed from {named!r} to {message.name!r} within a stream"
                            raise InvalidFieldError("name", description)
                        await writer.append(message)
                        end = _end_of(message)
                # Only the end of the stream shows which message was the last.
                if end is not None:
                    await writer.finish(end)
            finally:
                # However the stream ended, the received bytes are committed; those of a superseded one cannot be.
                await asyncio.shield(writer.discard() if superseded.is_set() else writer.close())

    async def GetDataset(self, request: dataset_service_pb2.GetDatasetRequest, context: Any) -> dataset_pb2.Dataset:
        """Read one dataset."""
        name = DatasetName.parse(request.name)
        return await self._threads.registry.run(name.project, self._read, name)

    def _read(self, name: DatasetName) -> dataset_pb2.Dataset:
        return dataset_to_proto(self._ledger.get(name))

    async def ListDatasets(
        self, request: dataset_service_pb2.ListDatasetsRequest, context: Any
    ) -> dataset_service_pb2.ListDatasetsResponse:
        """List a project's datasets."""
        project = ProjectName.parse(request.parent).project
        return await self._threads.registry.run(project, self._list, project, request)

    def _list(
        self, project: str, request: dataset_service_pb2.ListDatasetsRequest
    ) -> dataset_service_pb2.ListDatasetsResponse:
        size = optional(request, "page_size")
        listed = MessagePage(dataset_to_proto, self._max_page_bytes)
        page = self._ledger.list(project, size, request.page_token, listed.fits)
        return dataset_service_pb2.ListDatasetsResponse(datasets=listed.messages, next_page_token=page.next_page_token)

    async def DeleteDataset(self, request: dataset_service_pb2.DeleteDatasetRequest, context: Any) -> empty_pb2.Empty:
        """Delete a dataset and its objects."""
        name = DatasetName.parse(request.name)
        keys = await self._threads.registry.run(name.project, self._ledger.delete, name)
        await self._threads.upkeep.run(name.project, sweep, self._ledger, self._store, keys)
        return empty_pb2.Empty()


class _SerializedWriter:
    """A writer that is called in threads, one at a time.

    The thread of a cancelled call continues running: without the lock, `close` could run concurrently with it.

    Args:
        writer: The writer.
        run: Runs a call in a thread, and returns when it has.
    """

    def __init__(self, writer: Writer, run: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._writer = writer
        self._run = run
        self._lock = threading.Lock()

    async def append(self, message: dataset_service_pb2.WriteDatasetRequest) -> None:
        await self._call(self._writer.append, message.write_offset, message.data, optional(message, "crc32c"))

    async def tick(self) -> None:
        await self._call(self._writer.tick)

    async def finish(self, end: dataset_service_pb2.FinishWrite) -> None:
        await self._call(self._writer.finish, end.total_size, end.sha256)

    async def close(self) -> None:
        await self._call(self._writer.close)

    async def discard(self) -> None:
        await self._call(self._writer.discard)

    async def _call(self, method: Callable[..., object], *arguments: object) -> None:
        def call_locked() -> None:
            with self._lock:
                method(*arguments)

        await self._run(call_locked)


def _end_of(message: dataset_service_pb2.WriteDatasetRequest) -> dataset_service_pb2.FinishWrite | None:
    """Return a copy of what a message says of the end of its upload; None where it says nothing."""
    if not message.HasField("finish_write"):
        return None
    end = dataset_service_pb2.FinishWrite()
    end.CopyFrom(message.finish_write)
    return end


def _idle_error(seconds: float) -> LimitError:
    setting = "ROWMINT_UPLOAD_STREAM_IDLE_SECONDS"
    return LimitError(
        f"no message came for {seconds:g} s, and received bytes are committed; resume at committed_size, or raise"
        f" {setting}",
        metadata={"limit": f"{seconds:g}", "setting": setting},
        retry_after=1.0,
    )


async def _with_idle_ticks(
    messages: AsyncIterator[T],
    tick_seconds: float,
    idle_seconds: float,
    *,
    closing: asyncio.Event,
    superseded: asyncio.Event,
) -> AsyncGenerator[T | None, None]:
    """Yield the messages, and None whenever none was received for `tick_seconds`.

    Raises:
        FencedError: `superseded` is set.
        LimitError: No message came for `idle_seconds`.
        UnavailableError: `closing` is set.
    """
    loop = asyncio.get_running_loop()
    upcoming = asyncio.ensure_future(anext(messages, None))
    closed, fenced = (asyncio.ensure_future(event.wait()) for event in (closing, superseded))
    since = loop.time()
    try:
        while True:
            waits = {upcoming, closed, fenced}
            done, _ = await asyncio.wait(waits, timeout=tick_seconds, return_when=asyncio.FIRST_COMPLETED)
            if fenced in done:
                raise FencedError(
                    "a newer stream of this dataset has taken over; read the dataset and resume at its committed_size"
                )
            if closed in done:
                raise UnavailableError(
                    "the trainer is shutting down, and received bytes are committed; resume at committed_size",
                    retry_after=1.0,
                )
            if not done:
                if loop.time() - since >= idle_seconds:
                    raise _idle_error(idle_seconds)
                yield None
                continue
            message = upcoming.result()
            if message is None:
                return
            yield message
            del message
            since = loop.time()
            upcoming = asyncio.ensure_future(anext(messages, None))
    finally:
        for task in (upcoming, closed, fenced):
            task.cancel()
