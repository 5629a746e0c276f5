"""A stream that is drained ends on the grid, and the stream that resumes it there has the rest of the same bytes."""

import asyncio
import threading
from dataclasses import replace
from functools import cache

import pytest

from rowmint.errors import ResourceNotFoundError, UnavailableError
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.messages import RowsMessage, StreamSummary
from rowmint.steps import finish
from rowmint.synthesizer import choose_kernel
from sampler_service import model_cache
from sampler_service.requests import CompletionRequest, SampleRequest
from sampler_service.sampler import Sampler
from tests.golden.streams import WHERES, Catalog, golden_catalog, read, reference, sampler_of

GRID = 2048
KERNEL = choose_kernel("numpy")


@pytest.fixture(scope="module")
def sampler():
    with sampler_of(golden_catalog(), KERNEL) as composed:
        yield composed


async def drained(sampler: Sampler, spec: SampleRequest, after: int) -> tuple[list[RowsMessage], StreamSummary]:
    """Read a stream that is drained after so many messages."""
    stream = await sampler.open(spec)
    messages: list[RowsMessage] = []
    if not after:
        stream.drain()
    async for message in stream.messages():
        messages.append(message)
        if len(messages) == after:
            stream.drain()
    return messages, stream.summary


@pytest.fixture(scope="module")
def unbroken(sampler):
    """Returns the whole data of a stream, which many tests break off: it is made once."""

    @cache
    def data(spec: SampleRequest) -> bytes:
        return asyncio.run(read(sampler, spec)).data

    return data


@pytest.fixture(
    params=[
        (row_format, where, start)
        for row_format, where in [
            (RowFormat.ARROW_STREAM, "many tests"),
            (RowFormat.CSV, "all"),
            (RowFormat.NDJSON, "many tests"),
        ]
        for start in (0, 100, GRID)
    ],
    ids=lambda given: f"{given[0].name.lower()}, {given[1]}, from {given[2]}",
)
def spec(request):
    row_format, where, start = request.param
    return SampleRequest(
        5 * GRID + 100,
        model=reference("ctgan"),
        start_row=start,
        where=tuple(WHERES[where]),
        seed=7,
        columns=("id", "age", "city", "grade", "ratio"),
        row_format=row_format,
        message_bytes=16 * 1024,
    )


@pytest.mark.parametrize("after", [0, 1, 3])
def test_the_bytes_before_and_after_join_to_the_unbroken_stream(sampler, unbroken, spec, after):
    start = spec.start_row
    messages, summary = asyncio.run(drained(sampler, spec, after))
    assert not summary.complete
    assert summary.next_row < spec.rows
    assert summary.next_row == start or summary.next_row % GRID == 0
    assert summary.rows_delivered == summary.next_row - start == sum(message.row_count for message in messages)
    begun = b"".join(message.data for message in messages)
    rest = asyncio.run(read(sampler, replace(spec, start_row=summary.next_row, continued=summary.next_row > start)))
    # Where no row came, the stream begins again, header and all.
    assert (begun if summary.next_row > start else b"") + rest.data == unbroken(spec)
    assert rest.summary.complete


def test_a_stream_drained_after_its_last_row_is_complete(sampler):
    spec = SampleRequest(5000, model=reference("ctgan"), seed=7, row_format=RowFormat.CSV)

    async def late():
        stream = await sampler.open(spec)
        data = b"".join([message.data async for message in stream.messages()])
        stream.drain()
        return data, stream.summary

    data, summary = asyncio.run(late())
    assert data == asyncio.run(read(sampler, spec)).data
    assert (summary.complete, summary.next_row, summary.rows_delivered) == (True, 5000, 5000)


class Away(Catalog):
    """A catalog whose registry can become unavailable."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.requested = 0

    def resolve(self, ref, *, deleted=False, unpublished=False):
        self.requested += 1
        if self.away:
            raise UnavailableError("the registry cannot be reached now", retry_after=1.0)
        return super().resolve(ref, deleted=deleted, unpublished=unpublished)


@pytest.fixture
def away():
    found = Away()
    full = golden_catalog()
    found.store, found.records = full.store, full.records
    return found


def test_while_the_registry_is_unavailable_what_was_resolved_is_served(away):
    spec = SampleRequest(100, model=reference("ctgan"), seed=7, row_format=RowFormat.CSV)
    with sampler_of(away, KERNEL) as sampler:
        before = asyncio.run(read(sampler, spec)).data
        away.away = True
        assert asyncio.run(read(sampler, spec)).data == before
        with pytest.raises(UnavailableError) as caught:
            asyncio.run(read(sampler, replace(spec, model=reference("tvae"))))
        assert caught.value.retry_after == 1.0
        away.away = False
        asyncio.run(read(sampler, replace(spec, model=reference("tvae"))))


def test_a_version_known_to_be_gone_is_not_served_when_the_registry_becomes_unavailable(away):
    spec = SampleRequest(100, model=reference("ctgan"), seed=7, row_format=RowFormat.CSV)
    with sampler_of(away, KERNEL) as sampler:
        asyncio.run(read(sampler, spec))
        gone = away.records.pop("ctgan")
        with pytest.raises(ResourceNotFoundError):
            asyncio.run(read(sampler, spec))
        away.away, away.records["ctgan"] = True, gone
        with pytest.raises(UnavailableError):
            asyncio.run(read(sampler, spec))


def test_a_registry_that_hangs_counts_as_unavailable(away, monkeypatch):
    hang, answered = threading.Event(), super(Away, away).resolve

    def resolve(ref, *, deleted=False, unpublished=False):
        if away.away:
            hang.wait(60)
        return answered(ref, deleted=deleted)

    monkeypatch.setattr(away, "resolve", resolve)
    spec = SampleRequest(100, model=reference("ctgan"), seed=7, row_format=RowFormat.CSV)
    with sampler_of(away, KERNEL) as sampler:
        before = asyncio.run(read(sampler, spec)).data
        away.away = True
        monkeypatch.setattr(model_cache, "_RESOLVE_SECONDS", 0.05)
        assert asyncio.run(read(sampler, spec)).data == before
        with pytest.raises(UnavailableError, match="does not answer") as caught:
            asyncio.run(read(sampler, replace(spec, model=reference("tvae"))))
        assert caught.value.retry_after == 1.0
        hang.set()


@pytest.fixture
def delete(away, monkeypatch):
    """Return what deletes all versions: they are found by those only that may have deleted ones."""
    found = super(Away, away).resolve

    def resolve(ref, *, deleted=False, unpublished=False):
        if not deleted:
            raise ResourceNotFoundError(f"there is no {ref}")
        return found(ref, deleted=deleted)

    return lambda: monkeypatch.setattr(away, "resolve", resolve)


def test_a_completion_that_names_its_model_is_resumed_though_the_version_was_deleted(away, delete):
    request = CompletionRequest(model=reference("ctgan"), seed=7, candidates=256)
    known = [{"age": age} for age in range(20, 50)]
    with sampler_of(away, KERNEL) as sampler:
        _, first = asyncio.run(sampler.complete(request))
        whole = finish(first.complete(known))
        header = first.header("")
        delete()
        with pytest.raises(ResourceNotFoundError):
            asyncio.run(sampler.complete(request))
        named = replace(
            request,
            start_row=10,
            expected_model_digest=header.model_digest,
            expected_plan_digest=header.plan_digest,
        )
        _, resumed = asyncio.run(sampler.complete(named))
        assert finish(resumed.complete(known[10:])) == whole[10:]


def test_a_stream_that_names_its_model_is_resumed_though_the_version_was_deleted(away, delete):
    spec = SampleRequest(GRID + 100, model=reference("ctgan"), seed=7, row_format=RowFormat.CSV)
    with sampler_of(away, KERNEL) as sampler:
        stream = asyncio.run(sampler.open(spec))
        whole = asyncio.run(read(sampler, spec)).data
        delete()
        with pytest.raises(ResourceNotFoundError):
            asyncio.run(read(sampler, spec))
        named = replace(spec, expected_model_digest=stream.header.model_digest)
        assert asyncio.run(read(sampler, named)).data == whole
