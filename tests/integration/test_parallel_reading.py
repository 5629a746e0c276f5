"""Streams that the client reads as parts at once, from two samplers over real gRPC: the bytes of one call."""

import itertools
from contextlib import ExitStack
from dataclasses import replace

import pytest

from rowmint.client import Client, RowmintCallError, parallel
from rowmint.sampling.rows import RowSource
from rowmint.v1 import sampling_pb2
from tests.faults.golden_home import GRID, NO_TRAINER, golden_version, publish_golden
from tests.integration.served_replica import replica

BLOCK = 2 * GRID
ROWS = 6 * BLOCK + 77
FORMATS = ["arrow", "csv", "ndjson", "columns"]
CTGAN = golden_version("ctgan")
WHERE = {"age": (20, None), "flag": [True, None]}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    publish_golden(home)
    with ExitStack() as stack:
        addresses = [stack.enter_context(replica(home, kernel))[0] for kernel in ("numpy", "onnxruntime")]
        yield stack.enter_context(Client(NO_TRAINER, addresses))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """A part is a few blocks of narrow rows, and one of wide ones."""
    monkeypatch.setattr(parallel, "PART_BYTES", 256 * 1024)


def content(messages):
    """Return what the rows are, however they are cut into messages."""
    return b"".join(
        message.data + b"".join(batch.SerializeToString(deterministic=True) for batch in message.batches)
        for message in messages
    )


def spans(stream):
    return [(one.start_row, one.end_row) for one in stream.missing]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "requested",
    [
        {},
        {"where": WHERE},
        {"columns": ["score", "city"], "where": WHERE},
        {"start_row": 1_234, "end_row": 20_000},
        {"start_row": 3 * GRID, "where": WHERE, "columns": ["age"]},
        {"start_row": 5, "end_row": 9},
        {"start_row": ROWS, "end_row": ROWS},
        {"message_bytes": 16 * 1024, "end_row": 5 * GRID + 1},
        {"where": {"age": (90, None), "score": (9.9, None)}, "end_row": 2_100, "columns": ["age", "score"]},
    ],
    ids=["all", "where", "columns", "inner", "tail", "one cell", "none", "small messages", "rare"],
)
def test_parts_at_once_are_the_single_stream(client, form, requested):
    family = golden_version("independent") if "end_row" in requested and "where" in requested else CTGAN
    options = {"seed": 5, "format": form, **requested}
    single = client.sample(family, ROWS, **options)
    whole = content(single.messages())
    with client.sample(family, ROWS, parallel=3, **options) as stream:
        assert content(stream.messages()) == whole
    assert stream.header == single.header
    assert (stream.next_row, stream.acceptance) == (single.next_row, single.acceptance)
    assert (stream.candidates, stream.accepted, stream.resumes) == (single.candidates, single.accepted, 0)


@pytest.fixture
def exhausted_budget(monkeypatch):
    """Makes block 3 of every plan find only two rows."""
    real = RowSource.block

    def block(self, number, needed, stopped=lambda: False):
        found = real(self, number, needed, stopped)
        if number != 3 or found.rows <= 2:
            return found
        return replace(found, rows=2, columns={name: array.take(slice(0, 2)) for name, array in found.columns.items()})

    monkeypatch.setattr(RowSource, "block", block)


@pytest.mark.parametrize("form", FORMATS)
def test_rows_of_an_exhausted_block_are_missing_where_partial_is_allowed(client, form, exhausted_budget):
    options = {"seed": 5, "format": form, "allow_partial": True, "message_bytes": 16 * 1024}
    single = client.sample(CTGAN, ROWS, **options)
    whole = content(single.messages())
    stream = client.sample(CTGAN, ROWS, **options, parallel=3)
    assert content(stream.messages()) == whole
    assert spans(stream) == spans(single) == [(3 * BLOCK + 2, 4 * BLOCK)]


@pytest.mark.parametrize("form", FORMATS)
def test_rows_before_an_exhausted_block_are_delivered_and_then_the_error(client, form, exhausted_budget):
    def read(**more):
        found = []
        with (
            client.sample(CTGAN, ROWS, seed=5, format=form, **more) as stream,
            pytest.raises(RowmintCallError) as raised,
        ):
            found.extend(stream.messages())
        assert raised.value.reason == "ACCEPTANCE_TOO_LOW"
        return content(found), stream.next_row, raised.value.message, raised.value.metadata

    assert read(parallel=3) == read()


def test_conditions_never_met_are_reported_as_in_a_single_stream(client):
    def reported(**more):
        with client.sample(golden_version("independent"), 64, where={"age": (98, None)}, seed=3, **more) as stream:
            with pytest.raises(RowmintCallError) as raised:
                list(stream.messages())
            return stream.next_row, raised.value.reason, raised.value.message

    assert reported(parallel=2) == reported()


def test_a_drawn_seed_is_the_same_for_all_parts(client):
    stream = client.sample(CTGAN, ROWS, format="csv", parallel=4)
    data = content(stream.messages())
    assert stream.header.seed == 99
    assert data == content(client.sample(CTGAN, ROWS, format="csv", seed=99).messages())


def test_a_stream_is_resumed_by_parts(client):
    with client.sample(CTGAN, ROWS, seed=5) as first:
        head = list(itertools.islice(first.messages(), 3))
    request = client.sample_request(CTGAN, ROWS, seed=5, start_row=first.next_row)
    request.framing = sampling_pb2.FRAMING_RESUME
    request.received_bytes = sum(len(message.data) for message in head)
    tail = client.sample_stream(request, parallel=3)
    assert content([*head, *tail.messages()]) == content(client.sample(CTGAN, ROWS, seed=5).messages())
