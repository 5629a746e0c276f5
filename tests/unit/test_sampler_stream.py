"""Streams: a row is a pure function of model, plan, seed and index, and its bytes of nothing else."""

import asyncio
import itertools
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.conditions import AnyOf, Predicate, Range
from rowmint.errors import (
    AcceptanceTooLowError,
    ColumnNotFoundError,
    InvalidConditionError,
    InvalidFieldError,
    LimitError,
    ResourceNotFoundError,
    RowRangeError,
    StreamMismatchError,
    ValueNotFoundError,
)
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.formats.delimited import CsvEncoder
from rowmint.sampling.limits import MAX_ROWS
from rowmint.sampling.parts import cut_rows
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.prepared import prepare
from rowmint.sampling.rows import RowSource
from rowmint.sampling.spec import SampleSpec
from rowmint.sampling.stream import LocalStream, open_stream
from rowmint.synthesizer import choose_kernel
from sampler_service.requests import SampleRequest
from sampler_service.sampler import Sampler
from tests.golden.make import FAMILIES, SCHEMA
from tests.golden.streams import WHERES, golden_catalog, golden_model, read, reference, sampler_of

GRID = 2048
RARE = (
    Predicate("grade", AnyOf((3,))),
    Predicate("city", AnyOf(("Rio",))),
    Predicate("age", Range(minimum=30, maximum=33)),
)


@pytest.fixture(scope="module")
def sampler():
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as composed:
        yield composed


def run(sampler: Sampler, spec: SampleRequest):
    return asyncio.run(read(sampler, spec))


def spec(family: str = "ctgan", rows: int = 5000, **more) -> SampleRequest:
    return SampleRequest(rows, model=reference(family), **{"seed": 7, "row_format": RowFormat.CSV, **more})


def lines(result) -> list[bytes]:
    return result.data.splitlines()


# No city here spans lines, so that a line of CSV is a row.
COLUMNS = tuple(name for name in SCHEMA.names if name != "city")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", WHERES)
def test_a_longer_request_begins_with_a_shorter_one(sampler, family, where):
    requested = spec(family, 10, where=WHERES[where], columns=COLUMNS)
    short = run(sampler, requested)
    long = run(sampler, replace(requested, rows=10_000))
    assert len(lines(short)) == 11
    assert lines(long)[:11] == lines(short)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["all", "many tests"])
def test_projection_changes_no_value(sampler, family, where):
    def column_of(result, name: str) -> list:
        table = pa.ipc.open_stream(result.data).read_all()
        return table[name].to_pylist()

    base = spec(family, 3000, where=WHERES[where], row_format=RowFormat.ARROW_STREAM)
    whole = run(sampler, base)
    for columns in [("age",), ("badge", "city"), ("void", "instant", "grade"), ("id",)]:
        part = run(sampler, replace(base, columns=columns))
        assert part.header.schema.names == columns
        for name in columns:
            assert column_of(part, name) == column_of(whole, name)


@pytest.mark.parametrize("where", ["all", "one city"])
def test_a_far_row_costs_what_the_first_costs(sampler, where):
    base = spec(rows=MAX_ROWS, end_row=3 * GRID, where=WHERES[where])
    near = run(sampler, base)
    far = run(sampler, replace(base, start_row=10**12 // GRID * GRID, end_row=10**12 // GRID * GRID + 3 * GRID))
    assert far.summary.rows_delivered == near.summary.rows_delivered == 3 * GRID
    # What is drawn is what it costs; one block more at most, as 10**12 may lie within one.
    assert far.summary.candidates <= 2 * near.summary.candidates
    assert set(lines(far)[1:]).isdisjoint(lines(near)[1:])


def test_the_row_before_the_last_possible(sampler):
    result = run(sampler, spec(rows=MAX_ROWS, start_row=MAX_ROWS - 2, columns=("age", "ratio")))
    assert len(lines(result)) == 3
    assert result.summary.next_row == MAX_ROWS


@pytest.mark.parametrize("row_format", RowFormat)
@pytest.mark.parametrize(
    ("family", "where", "max_reuse"),
    [("ctgan", "many tests", None), ("ctgan", "many tests", 64), ("tvae", "all", None), ("independent", "one city", 2)],
)
def test_pieces_join_to_the_whole(sampler, family, where, max_reuse, row_format):
    base = spec(family, 5000, where=WHERES[where], row_format=row_format, max_reuse=max_reuse)
    whole = run(sampler, base)
    edges = [0, GRID, 2 * GRID, 5000]
    pieces = [
        run(sampler, replace(base, start_row=start, end_row=stop, continued=start > 0))
        for start, stop in itertools.pairwise(edges)
    ]
    assert b"".join(piece.data for piece in pieces) == whole.data
    assert [batch for piece in pieces for batch in piece.batches] == list(whole.batches)
    assert [piece.header.plan_digest for piece in pieces] == [whole.header.plan_digest] * 3


POOL = 32_768  # of the plan of "many tests" for tvae, whose candidates serve four rows at most


def test_a_stream_may_begin_in_a_later_round_of_its_candidates(sampler):
    columns = ("grade", "age", "tier", "flag", "ratio")
    base = spec("tvae", 2 * POOL + 2 * GRID, where=WHERES["many tests"], columns=columns, max_reuse=64)
    whole = run(sampler, base)
    start = 2 * POOL + GRID
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as cold:
        piece = run(cold, replace(base, start_row=start, continued=True))
    assert whole.data.endswith(piece.data)
    assert len(lines(piece)) == GRID
    # Tested columns are those of the first round, at least one of the others is not.
    again = [lines(whole)[1 + row].split(b",") for row in (GRID, POOL + GRID, start)]
    tested = [columns.index(name) for name in ("grade", "age", "tier", "flag")]
    assert len({tuple(row[place] for place in tested) for row in again}) == 1
    assert len({tuple(row) for row in again}) == 3
    # Candidates are counted where they are first used, whichever stream draws them.
    assert piece.summary.candidates == 0
    # What the rows rest on is counted of the rows delivered, and promised of the whole stream.
    assert [(one.header.distinct_candidates, one.header.rows_per_candidate) for one in (whole, piece)] == [
        (POOL, 3)
    ] * 2
    assert (whole.summary.distinct_candidates, whole.summary.rows_per_candidate) == (POOL, 3)
    assert (piece.summary.distinct_candidates, piece.summary.rows_per_candidate) == (GRID, 1)


def test_rows_are_independent_unless_reuse_is_requested(sampler):
    rows = POOL + GRID
    base = spec("tvae", rows, where=WHERES["many tests"], columns=("age",), row_format=RowFormat.ARROW_STREAM)
    independent, reused = (run(sampler, replace(base, max_reuse=reuse)) for reuse in (None, 64))
    assert run(sampler, replace(base, max_reuse=1)) == independent
    assert (independent.header.distinct_candidates, independent.header.rows_per_candidate) == (rows, 1)
    assert (independent.summary.distinct_candidates, independent.summary.rows_per_candidate) == (rows, 1)
    assert (reused.summary.distinct_candidates, reused.summary.rows_per_candidate) == (POOL, 2)
    assert independent.header.plan_digest != reused.header.plan_digest
    tables = [pa.ipc.open_stream(result.data).read_all()["age"].to_pylist() for result in (independent, reused)]
    # The rows that have a candidate of their own either way are the same rows.
    assert tables[0][:POOL] == tables[1][:POOL]
    assert tables[1][POOL:] == tables[1][:GRID] != tables[0][POOL:]


def test_a_stream_that_began_before_reuse_was_requested_is_resumed_with_its_rows(sampler):
    base = spec("tvae", POOL + GRID, where=WHERES["many tests"], max_reuse=64)
    whole = run(sampler, base)
    resumed = replace(base, start_row=POOL, continued=True, max_reuse=None)
    rest = run(sampler, replace(resumed, expected_plan_digest=whole.header.plan_digest))
    assert whole.data.endswith(rest.data)
    assert rest.header.plan_digest == whole.header.plan_digest
    # Reuse requested otherwise is another plan, however the stream began.
    with pytest.raises(StreamMismatchError):
        run(sampler, replace(resumed, expected_plan_digest=whole.header.plan_digest, max_reuse=1))
    # Where conditions are common, no row shares a candidate and no digest differs.
    common = spec("independent", 100, where=(), max_reuse=64)
    assert run(sampler, common) == run(sampler, replace(common, max_reuse=None))


@pytest.mark.parametrize("max_reuse", [0, -1, 3, 65, 128])
def test_reuse_that_is_not_a_power_of_two_up_to_64_is_refused(sampler, max_reuse):
    with pytest.raises(InvalidFieldError, match=rf"max_reuse: is {max_reuse}; must be a power of two, 1 to 64"):
        run(sampler, spec(max_reuse=max_reuse))


def test_parts_of_a_stream_whose_candidates_are_reused_meet_between_periods(sampler):
    base = spec("tvae", 8 * POOL + 1, where=WHERES["many tests"], max_reuse=64)
    planned = asyncio.run(sampler.plan(base, 3))
    assert [part.start_row for part in planned.parts] == [0, 4 * POOL, 8 * POOL]
    # More parts than periods meet between blocks, as do all where no candidate is shared.
    assert [part.start_row for part in asyncio.run(sampler.plan(base, 4)).parts][1] == 2 * POOL
    independent = asyncio.run(sampler.plan(replace(base, max_reuse=None), 3))
    assert [part.start_row for part in independent.parts] != [part.start_row for part in planned.parts]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_pieces_on_the_grid_join_to_the_whole(sampler, data):
    rows = data.draw(st.integers(1, 5 * GRID))
    cells = -(-rows // GRID)
    cuts = sorted(data.draw(st.sets(st.integers(1, cells), max_size=3)))
    edges = [0, *[min(cut * GRID, rows) for cut in cuts], rows]
    base = spec("independent", rows, columns=("age", "badge", "city"))
    base = replace(
        base,
        row_format=data.draw(st.sampled_from([RowFormat.ARROW_STREAM, RowFormat.CSV])),
        message_bytes=data.draw(st.sampled_from([16 * 1024, 1024 * 1024])),
    )
    whole = run(sampler, base)
    pieces = [
        run(sampler, replace(base, start_row=start, end_row=stop, continued=index > 0))
        for index, (start, stop) in enumerate(itertools.pairwise(edges))
    ]
    assert b"".join(piece.data for piece in pieces) == whole.data


@pytest.mark.parametrize(
    ("parts", "row_format"), [(1, "csv"), (2, "ndjson"), (3, "columns"), (3, "arrow_stream"), (1000, "arrow_stream")]
)
def test_planned_parts_join_to_the_whole(sampler, row_format, parts):
    base = spec(rows=9000, start_row=100, where=WHERES["one city"], row_format=RowFormat(row_format))
    whole = run(sampler, base)
    planned = asyncio.run(sampler.plan(base, parts))
    assert len(planned.parts) == min(parts, 5)
    assert planned.header == whole.header
    joined = [
        run(sampler, replace(base, start_row=part.start_row, end_row=part.end_row, continued=part.continued))
        for part in planned.parts
    ]
    assert b"".join(part.data for part in joined) == whole.data
    assert [batch for part in joined for batch in part.batches] == list(whole.batches)


@given(
    st.integers(0, 100_000),
    st.integers(0, 100_000),
    st.integers(1, 50),
    st.sampled_from([64, 512, 8192]),
    st.lists(st.sampled_from([1, 64, 4096, 16384]), max_size=2),
)
def test_parts_are_contiguous_and_meet_on_the_grid(start, length, parts, grid, preferred):
    end = start + length
    cuts = cut_rows(start, end, parts, grid, preferred)
    assert cuts[0][0] == start
    assert cuts[-1][1] == end
    assert all(before[1] == after[0] for before, after in itertools.pairwise(cuts))
    assert all(first % grid == 0 for first, _ in cuts[1:])
    assert all(first < stop for first, stop in cuts) or length == 0
    cells = max(1, -(-end // grid) - start // grid)
    assert len(cuts) == min(parts, cells)
    enough = [unit for unit in preferred if (end - 1) // max(grid, unit) - start // max(grid, unit) + 1 >= parts]
    assert all(first % enough[0] == 0 for first, _ in cuts[1:] if enough)


def test_both_kernels_give_the_same_bytes(sampler):
    base = spec(rows=6000, where=WHERES["many tests"], row_format=RowFormat.ARROW_STREAM)
    with sampler_of(golden_catalog(), choose_kernel("onnxruntime")) as other:
        assert run(other, base).data == run(sampler, base).data


def test_a_seed_is_drawn_and_reported(sampler):
    drawn = run(sampler, spec(rows=100, seed=None))
    assert drawn.header.seed == 1
    assert run(sampler, spec(rows=100, seed=1)).data == drawn.data
    assert run(sampler, spec(rows=100, seed=2)).data != drawn.data
    assert run(sampler, spec(rows=100, seed=0)).header.seed == 0


def test_equivalent_conditions_are_the_same_stream(sampler):
    one = run(sampler, spec(rows=500, where=(Predicate("grade", AnyOf((1, 2))),)))
    other = run(
        sampler, spec(rows=500, where=(Predicate("grade", AnyOf((2, 1, 2))), Predicate("grade", AnyOf((1, 2, 3)))))
    )
    assert one.header.plan_digest == other.header.plan_digest
    assert one.data == other.data


def test_messages_group_whole_batches(sampler):
    small = run(sampler, spec(rows=20_000, message_bytes=16 * 1024, columns=("age",)))
    large = run(sampler, spec(rows=20_000, message_bytes=1024 * 1024, columns=("age",)))
    assert large.data == small.data
    assert len(large.messages) == 1
    assert len(small.messages) > 3
    assert [message.first_row for message in small.messages] == [
        sum(before.row_count for before in small.messages[:index]) for index in range(len(small.messages))
    ]
    assert all(message.first_row % large.header.grid == 0 for message in small.messages)


def test_a_long_header_comes_in_pieces_of_no_row():
    class Long(CsvEncoder):
        def header(self):
            return bytes(range(256)) * 256

    model = golden_model("independent")
    requested = SampleSpec(10, seed=7, row_format=RowFormat.CSV, message_bytes=16 * 1024)
    prepared = prepare(model, requested, compile_plan(model.digest, model.synthesizer, ()))
    long = replace(prepared, encoder=Long(model.schema, model.identities, escape_formulas=False))
    found = list(LocalStream(long).messages())
    assert b"".join(message.data for message in found).startswith(long.encoder.header())
    assert [message.row_count for message in found[:-1]] == [0] * (len(found) - 1)
    assert max(len(message.data) for message in found[:-1]) == 16 * 1024
    assert found[-1].row_count == 10


@pytest.mark.parametrize("row_format", RowFormat)
def test_an_empty_piece(sampler, row_format):
    base = spec(rows=3000, row_format=row_format)
    whole = run(sampler, base)
    # All rows were received, but not the summary: the stream that resumes there adds nothing.
    rest = run(sampler, replace(base, start_row=3000, continued=True))
    assert rest.messages == ()
    assert rest.summary.rows_delivered == 0
    nothing = run(sampler, replace(base, start_row=3000))
    if row_format is RowFormat.ARROW_STREAM:
        assert pa.ipc.open_stream(nothing.data).read_all().num_rows == 0
    else:
        assert whole.data.startswith(nothing.data)


def test_the_end_is_written_where_the_stream_ends(sampler):
    base = spec(rows=3000, row_format=RowFormat.ARROW_STREAM)
    end = b"\xff\xff\xff\xff\0\0\0\0"
    assert not run(sampler, replace(base, end_row=GRID)).data.endswith(end)
    assert run(sampler, replace(base, start_row=GRID, continued=True)).data.endswith(end)


def test_a_file_may_begin_anywhere(sampler):
    base = spec(rows=3000, columns=COLUMNS)
    assert lines(run(sampler, replace(base, start_row=77)))[1:] == lines(run(sampler, base))[78:]


# Candidate budgets that are exhausted.


@pytest.fixture
def exhausted(monkeypatch):
    """Makes block 1 of every plan find only two rows."""
    real = RowSource.block

    def block(self, number, needed, stopped=lambda: False):
        found = real(self, number, needed, stopped)
        if number != 1 or found.rows <= 2:
            return found
        return replace(found, rows=2, columns={name: array.take(slice(0, 2)) for name, array in found.columns.items()})

    monkeypatch.setattr(RowSource, "block", block)


def test_a_stream_whose_budget_is_exhausted_ends_before_the_gap(sampler, exhausted):
    async def received():
        stream = await sampler.open(spec(rows=20_000))
        rows = 0
        try:
            async for message in stream.messages():
                rows += message.row_count
        except AcceptanceTooLowError as error:
            return rows, error.metadata["next_row"]
        return rows, None

    assert asyncio.run(received()) == (4096, "4098")


def test_a_stream_that_is_drained_before_a_gap_ends_without_an_error(sampler, monkeypatch):
    real = RowSource.block

    def block(self, number, needed, stopped=lambda: False):
        found = real(self, number, needed, stopped)
        if number != 1:
            return found
        columns = {name: array.take(slice(0, GRID + 2)) for name, array in found.columns.items()}
        return replace(found, rows=GRID + 2, columns=columns)

    monkeypatch.setattr(RowSource, "block", block)

    async def received():
        stream = await sampler.open(spec(rows=20_000, message_bytes=16 * 1024))
        rows = 0
        async for message in stream.messages():
            rows += message.row_count
            stream.drain()
        return rows, stream.summary

    rows, summary = asyncio.run(received())
    assert (rows, summary.next_row, summary.complete) == (2 * GRID, 2 * GRID, False)


def test_a_partial_stream_names_what_is_missing(sampler, exhausted):
    base = spec(rows=20_000, columns=COLUMNS)
    partial = run(sampler, replace(base, allow_partial=True))
    assert [span for message in partial.messages for span in message.missing] == [(4098, 8192)]
    assert sum(message.row_count for message in partial.messages) == 20_000
    assert partial.summary.rows_delivered == 20_000 - 4094
    # What is there keeps its number.
    start = run(sampler, replace(base, start_row=8192, end_row=9000))
    assert lines(partial)[1 + 4098 : 1 + 4098 + 808] == lines(start)[1:]


def test_pieces_of_a_partial_stream_join_too(sampler, exhausted):
    base = spec(rows=20_000, allow_partial=True, row_format=RowFormat.ARROW_STREAM)
    whole = run(sampler, base)
    edges = [0, 3 * GRID, 4 * GRID, 20_000]
    pieces = [
        run(sampler, replace(base, start_row=start, end_row=stop, continued=start > 0))
        for start, stop in itertools.pairwise(edges)
    ]
    assert b"".join(piece.data for piece in pieces) == whole.data
    assert pieces[1].data == b""
    assert [message.missing for message in pieces[1].messages] == [((3 * GRID, 4 * GRID),)]
    assert pa.ipc.open_stream(whole.data).read_all().num_rows == 20_000 - 4094


def test_rare_conditions_are_met_or_exhaust_the_budget(sampler):
    requested = spec("ctgan", 30, where=RARE, columns=("grade", "city", "age"), allow_partial=True)
    found = run(sampler, requested)
    rows = [line.decode().split(",") for line in lines(found)[1:]]
    assert rows
    assert all(row[:2] == ["3", "Rio"] and 30 <= int(row[2]) <= 33 for row in rows)
    assert found.summary.accepted < found.summary.candidates / 100


# What is refused.


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"rows": 0}, InvalidFieldError),
        ({"rows": -1}, InvalidFieldError),
        ({"rows": MAX_ROWS + 1}, InvalidFieldError),
        ({"start_row": -1}, RowRangeError),
        ({"start_row": 5001}, RowRangeError),
        ({"end_row": 5001}, RowRangeError),
        ({"end_row": -1}, RowRangeError),
        ({"start_row": 10, "end_row": 9}, RowRangeError),
        ({"message_bytes": 0}, InvalidFieldError),
        ({"message_bytes": 2**21}, InvalidFieldError),
        ({"start_row": 5, "continued": True}, RowRangeError),
        ({"continued": True}, RowRangeError),
        ({"received_bytes": -1}, InvalidFieldError),
        ({"start_row": 5, "received_bytes": 10**6}, RowRangeError),
        ({"columns": ("agee",)}, ColumnNotFoundError),
        ({"columns": ("age", "age")}, InvalidFieldError),
        ({"expected_model_digest": bytes(32)}, StreamMismatchError),
        ({"expected_plan_digest": bytes(32)}, StreamMismatchError),
        ({"where": (Predicate("agee", AnyOf((1,))),)}, ColumnNotFoundError),
        ({"where": (Predicate("city", AnyOf(("Pariss",))),)}, ValueNotFoundError),
        ({"where": (Predicate("id", AnyOf((1,))),)}, InvalidConditionError),
        ({"where": (Predicate("badge", AnyOf(("N",))),)}, InvalidConditionError),
        ({"where": (Predicate("age", Range(minimum=200)),)}, InvalidConditionError),
        ({"where": (Predicate("grade", AnyOf((1,))), Predicate("grade", AnyOf((2,))))}, InvalidConditionError),
        ({"model": reference("missing")}, ResourceNotFoundError),
    ],
)
def test_what_cannot_be_is_refused(sampler, change, error):
    with pytest.raises(error):
        asyncio.run(sampler.open(replace(spec(), **change)))


def test_more_rows_than_the_sampler_allows():
    with (
        sampler_of(golden_catalog(), choose_kernel("numpy"), max_rows=1000) as small,
        pytest.raises(LimitError) as error,
    ):
        asyncio.run(small.open(spec(rows=1001)))
    assert error.value.metadata == {"limit": "1000", "setting": "ROWMINT_MAX_ROWS"}


def test_an_index_past_the_ids():
    # 16**13 * 26 badges are enough for any stream: the check is on the codec's size.
    full = golden_model("ctgan")
    model = replace(full, identities={**full.identities, "badge": replace(full.identities["badge"], size=9)})
    plan = compile_plan(model.digest, model.synthesizer, ())
    with pytest.raises(RowRangeError):
        RowSource(model, plan, 7, ["badge"]).block(0, 10)
    with pytest.raises(RowRangeError, match="badge"):
        open_stream(model, SampleSpec(10, seed=7))
    assert open_stream(model, SampleSpec(10, end_row=9, seed=7)).header.end_row == 9


@pytest.mark.parametrize("parts", [0, -1, 1025])
def test_impossible_parts(sampler, parts):
    with pytest.raises(InvalidFieldError):
        asyncio.run(sampler.plan(spec(), parts))


def test_a_stopped_stream_computes_no_more(sampler, monkeypatch):
    blocks = []
    real = RowSource.block

    def block(self, number, needed, stopped=lambda: False):
        blocks.append(number)
        return real(self, number, needed, stopped)

    monkeypatch.setattr(RowSource, "block", block)

    async def one_message():
        stream = await sampler.open(spec(rows=10**9))
        messages = stream.messages()
        await anext(messages)
        await messages.aclose()
        assert stream._stopped.is_set()

    asyncio.run(one_message())
    assert len(blocks) < 8
