"""Streams that are resumed wherever they were cut: of the header what is missing, and the rows not received."""

import asyncio
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.errors import RowRangeError
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.messages import RowsMessage
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.prepared import prepare
from rowmint.sampling.spec import SampleSpec
from rowmint.sampling.stream import LocalStream
from rowmint.synthesizer import choose_kernel
from sampler_service.requests import SampleRequest
from sampler_service.sampler import Sampler
from tests.golden.streams import golden_catalog, golden_model, read, reference, sampler_of
from tests.unit.long_headers import lengthen

MODEL = golden_model("independent")
GRID = 2048
ROWS = 2 * GRID + 904
PIECE = 16 * 1024
SPEC = SampleSpec(ROWS, seed=7, columns=("age", "badge", "city", "day"), message_bytes=PIECE)
PLAN = compile_plan(MODEL.digest, MODEL.synthesizer, ())

RANGES = {
    "all": (0, ROWS),
    "the beginning": (0, GRID + 1),
    "from the grid": (GRID, ROWS),
    "from off the grid": (5, 2 * GRID),
    "within a batch": (GRID + 7, GRID + 9),
    "the end": (ROWS - 3, ROWS),
    "none at the beginning": (0, 0),
    "none on the grid": (GRID, GRID),
    "none off the grid": (77, 77),
    "none at the end": (ROWS, ROWS),
}


def spec_of(row_format: RowFormat, span: str) -> SampleSpec:
    start, end = RANGES[span]
    return replace(SPEC, row_format=row_format, start_row=start, end_row=end)


def sent(spec: SampleSpec, more: int = 0) -> list[RowsMessage]:
    """Return the messages of a stream whose header has so many bytes more than that of its format."""
    with pytest.MonkeyPatch.context() as patched:
        lengthen(patched, more)
        return list(LocalStream(prepare(MODEL, spec, PLAN)).messages())


def joined(messages) -> tuple[bytes, list]:
    return b"".join(message.data for message in messages), [batch for one in messages for batch in one.batches]


@cache
def unbroken(row_format: RowFormat, span: str, more: int = 0) -> tuple[bytes, list]:
    return joined(sent(spec_of(row_format, span), more))


@cache
def header_of(row_format: RowFormat) -> bytes:
    return prepare(MODEL, replace(SPEC, row_format=row_format), PLAN).encoder.header()


@pytest.mark.parametrize("row_format", RowFormat)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_what_is_missing_of_the_header_comes_before_the_rows(row_format, data):
    lead = len(header_of(row_format))
    span = data.draw(st.sampled_from(sorted(RANGES)))
    count = data.draw(st.integers(0, lead + 5))
    spec = replace(spec_of(row_format, span), received_bytes=count)
    whole, batches = unbroken(row_format, span)
    empty = spec.start_row == spec.end_row
    if spec.start_row % GRID and not empty and count > lead:
        with pytest.raises(RowRangeError, match=rf"start_row: is {spec.start_row}, not on the grid"):
            sent(spec)
        return
    # Bytes beyond the header are of rows before, or of the end of a file without rows.
    assert joined(sent(spec)) == (whole[count if empty else min(count, lead) :], batches)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_long_header_is_resumed_within_any_of_its_pieces(data):
    span = data.draw(st.sampled_from(["from the grid", "from off the grid", "none at the end"]))
    more = data.draw(st.sampled_from([PIECE, 3 * PIECE]))
    lead = len(header_of(RowFormat.CSV)) + more
    count = data.draw(st.integers(0, lead))
    messages = sent(replace(spec_of(RowFormat.CSV, span), received_bytes=count), more)
    assert joined(messages)[0] == unbroken(RowFormat.CSV, span, more)[0][count:]
    alone = [message for message in messages[:-1] if not message.row_count]
    assert [len(message.data) for message in alone] == [PIECE] * (max(lead - count - 1, 0) // PIECE)


@pytest.mark.parametrize("row_format", RowFormat)
@pytest.mark.parametrize("span", ["all", "from off the grid", "the end", "none at the end"])
def test_a_stream_that_is_cut_after_any_message_is_resumed_by_one_rule(row_format, span):
    spec = spec_of(row_format, span)
    messages = sent(spec, 2 * PIECE)
    for cut in range(len(messages) + 1):
        before, batches = joined(messages[:cut])
        start = spec.start_row + sum(message.row_count for message in messages[:cut])
        rest, further = joined(sent(replace(spec, start_row=start, received_bytes=len(before)), 2 * PIECE))
        assert (before + rest, batches + further) == unbroken(row_format, span, 2 * PIECE)


@pytest.fixture(scope="module")
def sampler():
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as composed:
        yield composed


def requested(**more) -> SampleRequest:
    base = SampleRequest(ROWS, seed=7, model=reference("independent"), row_format=RowFormat.CSV, columns=SPEC.columns)
    return replace(base, **more)


def parts_of(sampler: Sampler, request: SampleRequest, count: int) -> bytes:
    async def parts() -> bytes:
        data = b""
        for part in (await sampler.plan(request, count)).parts:
            one = replace(request, start_row=part.start_row, end_row=part.end_row, continued=part.continued)
            data += (await read(sampler, replace(one, received_bytes=None) if part.continued else one)).data
        return data

    return asyncio.run(parts())


@pytest.mark.parametrize(("start", "count"), [(0, 0), (0, 7), (5, 7), (GRID, 10**6), (ROWS, 10**6)])
def test_parts_of_what_is_left_join_to_what_is_left(sampler, start, count):
    request = requested(start_row=start, received_bytes=count)
    whole = asyncio.run(read(sampler, requested(start_row=start))).data
    lead = len(header_of(RowFormat.CSV))
    assert parts_of(sampler, request, 3) == whole[min(count, lead) :]


@pytest.mark.parametrize("parts", [0, 2])
def test_what_was_not_received_as_the_caller_says_is_refused(sampler, parts):
    def opened(request: SampleRequest):
        return sampler.plan(request, parts) if parts else sampler.open(request)

    for count in (len(header_of(RowFormat.CSV)) + 1, 2**63 - 1):
        with pytest.raises(RowRangeError, match="start_row: is 5, not on the grid"):
            asyncio.run(opened(requested(start_row=5, received_bytes=count)))
