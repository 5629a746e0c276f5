"""Upload streams: bounded in number, ended by newer ones and by silence, and without a trace afterwards."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import google_crc32c
import pytest

from rowmint.errors import FencedError, LimitError
from rowmint.names import DatasetName
from rowmint.objects import MemoryStore
from rowmint.registry import DatasetState, Registry, migrate, open_registry
from rowmint.rpc.server import _forget_frames
from rowmint.v1.dataset_service_pb2 import WriteDatasetRequest
from tests.unit.inline_threads import inline_threads
from trainer_service.datasets.upload import UploadService
from trainer_service.servicers.datasets import DatasetServicer
from trainer_service.threads import TrainerThreads
from trainer_service.upload_streams import UploadStreamLimits, UploadStreams

NAME = DatasetName("p", "d")


@pytest.fixture
def registry(tmp_path):
    registry = open_registry(f"sqlite:///{tmp_path}/registry")
    migrate(registry.engine)
    yield registry
    registry.close()


def test_so_many_streams_are_open_at_once_and_no_more():
    shed: list[str] = []
    idle: list[int] = []
    streams = UploadStreams(UploadStreamLimits(3, 2), shed.append, lambda: idle.append(len(idle)))
    with ExitStack() as stack:
        for project in ("a", "a", "b"):
            stack.enter_context(streams.counted())
            stack.enter_context(streams.of_project(project))
        for refused, setting, limit in (
            (streams.counted(), "ROWMINT_MAX_UPLOAD_STREAMS", "3"),
            (streams.of_project("a"), "ROWMINT_MAX_PROJECT_UPLOAD_STREAMS", "2"),
        ):
            with pytest.raises(LimitError, match=setting) as raised, refused:
                pass
            assert (raised.value.metadata, raised.value.retry_after) == ({"limit": limit, "setting": setting}, 1.0)
        with streams.of_project("b"):
            assert idle == []
    assert (shed, idle) == (["uploads", "project_uploads"], [0])
    with streams.counted(), streams.of_project("a"):
        pass


def test_only_the_stream_of_the_newest_writer_goes_on():
    async def test() -> None:
        streams = UploadStreams(UploadStreamLimits())
        with streams.newest(NAME, 1) as first, streams.newest(NAME, 3) as third:
            assert (first.is_set(), third.is_set()) == (True, False)
            # Opened before the third, and only now noticed.
            with streams.newest(NAME, 2) as second:
                assert (second.is_set(), third.is_set()) == (True, False)
            with streams.newest(DatasetName("p", "other"), 1) as other:
                assert not other.is_set()
            assert not third.is_set()
        with streams.newest(NAME, 1) as again:
            assert not again.is_set()

    asyncio.run(test())


class World:
    """A servicer, and streams to it."""

    def __init__(self, registry: Registry, limits: UploadStreamLimits) -> None:
        self.registry = registry
        self.store = MemoryStore()
        service = UploadService(registry.datasets, self.store, segment_seconds=0.01)
        service.create("p", "d", data_format={"type": "csv"})
        threads = TrainerThreads(inline_threads(), inline_threads(), inline_threads())
        self.servicer = DatasetServicer(
            registry.datasets,
            self.store,
            service,
            lambda: None,
            streams=UploadStreams(limits),
            threads=threads,
            max_page_bytes=1 << 20,
        )

    def write(self, messages: AsyncIterator[WriteDatasetRequest]) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.servicer.WriteDataset(messages, None))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


def message(data: bytes, offset: int = 0) -> WriteDatasetRequest:
    return WriteDatasetRequest(name=str(NAME), write_offset=offset, data=data, crc32c=google_crc32c.value(data))


async def waiting(
    *first: WriteDatasetRequest, taken: asyncio.Event | None = None
) -> AsyncIterator[WriteDatasetRequest]:
    """Send some messages, and then nothing more; `taken` is set once they are handled."""
    for one in first:
        yield one
    if taken is not None:
        taken.set()
    await asyncio.Event().wait()


def test_a_newer_stream_ends_an_older_one_at_once(registry):
    async def test() -> None:
        world = World(registry, UploadStreamLimits())
        taken = asyncio.Event()
        older = world.write(waiting(message(b"old"), taken=taken))
        await taken.wait()
        newer = world.write(waiting(message(b"new")))
        with pytest.raises(FencedError, match="newer stream"):
            await older
        newer.cancel()
        await asyncio.gather(newer, return_exceptions=True)
        assert registry.datasets.get(NAME).writer_epoch == 2

    run(test)


@pytest.mark.parametrize("first", [(), (message(b"1,2\n"),)], ids=["nothing", "one message"])
def test_a_stream_without_messages_is_ended_and_what_came_is_committed(registry, first):
    async def test() -> None:
        world = World(registry, UploadStreamLimits(idle_seconds=0.05))
        with pytest.raises(LimitError) as raised:
            await world.write(waiting(*first))
        assert raised.value.metadata == {"limit": "0.05", "setting": "ROWMINT_UPLOAD_STREAM_IDLE_SECONDS"}
        assert raised.value.retry_after == 1.0
        dataset = registry.datasets.get(NAME)
        assert (dataset.state, dataset.committed_size) == (DatasetState.UPLOADING, sum(len(one.data) for one in first))

    run(test)


def test_an_error_that_is_kept_keeps_nothing_of_the_call():
    """gRPC keeps the last error of calls that have ended; what their frames held was gigabytes."""

    class Buffer:
        pass

    def fail(held: Buffer) -> None:
        inner = held
        try:
            int(f"not a number: {id(inner)}")
        except ValueError as error:
            raise KeyError("x") from error

    def failed() -> tuple[Exception, Any]:
        buffer = Buffer()
        try:
            fail(buffer)
        except KeyError as error:
            return error, weakref.ref(buffer)
        raise AssertionError

    kept, buffer = failed()
    assert buffer() is not None
    _forget_frames(kept)
    gc.collect()
    assert buffer() is None
    assert kept.__traceback__ is None


def test_an_error_that_is_its_own_context_is_forgotten_too():
    one, other = ValueError("one"), KeyError("other")
    one.__context__, other.__context__ = other, one
    _forget_frames(one)
    assert (one.__traceback__, other.__traceback__) == (None, None)
