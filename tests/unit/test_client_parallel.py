"""Streams read as parts at once: in order, to the bytes of one call, in bounded memory, and ended at any time."""

import itertools
import threading

import grpc
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError, parallel
from rowmint.errors import DataLossError, InvalidFieldError
from rowmint.v1 import sampling_pb2
from tests.unit.fake_failures import Cut, refuse
from tests.unit.fake_rows import GRID, VERSION, unbroken
from tests.unit.fake_sampler import FakeSampler, alike
from tests.unit.fake_services import services
from tests.waiting import wait_until

PARALLEL = 3
WINDOW = PARALLEL + 2
ROWS = 40 * GRID + 17
WHOLE = {
    "csv": unbroken(sampling_pb2.ROW_FORMAT_CSV, ROWS),
    "ndjson": unbroken(sampling_pb2.ROW_FORMAT_NDJSON, ROWS),
    "arrow": unbroken(sampling_pb2.ROW_FORMAT_ARROW_STREAM, ROWS),
}
NEVER = RetryPolicy(first_delay=1e6, longest_delay=1e6)


def client_of(found, **options):
    return Client(found.trainer_address, found.sampler_address, retry=RetryPolicy(sleep=found.waits.append), **options)


def part_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("parts-")]


@pytest.fixture(params=["csv", "ndjson", "arrow"])
def row_format(request):
    return request.param


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of a few grid cells."""
    monkeypatch.setattr(parallel, "PART_BYTES", 4_096)


def test_parts_read_at_once_are_the_single_stream(row_format):
    with services(samplers=alike()) as found, client_of(found) as client:
        single = client.sample("flights", ROWS, format=row_format)
        assert b"".join(single.chunks()) == WHOLE[row_format]
        calls = len(found.samplers[0].requests)
        with client.sample("flights", ROWS, format=row_format, parallel=PARALLEL) as stream:
            assert b"".join(stream.chunks()) == WHOLE[row_format]
        assert stream.header == single.header
        assert (stream.next_row, stream.resumes, stream.acceptance) == (ROWS, 0, 0.5)
        assert (stream.candidates, stream.accepted) == (single.candidates, single.accepted)
        assert stream.address in found.sampler_addresses
        parts = found.samplers[0].requests[calls:]
        assert len(parts) > 2 * PARALLEL
        # What the service drew for the plan holds for every part.
        assert {(part.model, part.seed, part.expected_plan_digest) for part in parts} == {(VERSION, 77, b"p" * 32)}
        assert not part_threads()


def test_batches_tables_and_files_are_those_of_the_single_stream(tmp_path):
    with services() as found, client_of(found) as client:
        table = client.sample("flights", ROWS).to_table()
        assert client.sample("flights", ROWS, parallel=PARALLEL).to_table() == table
        batches = list(client.sample("flights", ROWS))
        assert list(client.sample("flights", ROWS, parallel=PARALLEL)) == batches
        reports = []
        client.sample_to_file(
            tmp_path / "rows", "flights", ROWS, parallel=PARALLEL, progress=lambda *pair: reports.append(pair)
        )
        assert (tmp_path / "rows").read_bytes() == WHOLE["csv"]
        assert reports == sorted(reports)
        assert reports[-1] == (ROWS, ROWS)


@pytest.mark.parametrize(
    ("start", "end"), [(5, ROWS), (GRID, 3 * GRID), (5, 7), (ROWS, ROWS), (0, 0), (GRID - 1, GRID + 1), (7, ROWS - 30)]
)
def test_a_piece_of_a_stream_is_that_piece(row_format, start, end):
    with services() as found, client_of(found) as client:
        piece = {"format": row_format, "start_row": start, "end_row": end}
        whole = b"".join(client.sample("flights", ROWS, **piece).chunks())
        stream = client.sample("flights", ROWS, **piece, parallel=PARALLEL)
        assert b"".join(stream.chunks()) == whole
        assert stream.next_row == end


def test_the_continuation_of_another_stream_has_no_header(row_format):
    with services() as found, client_of(found) as client:
        head = client.sample("flights", ROWS, format=row_format, end_row=2 * GRID)
        request = client.sample_request("flights", ROWS, format=row_format, start_row=2 * GRID)
        request.framing = sampling_pb2.FRAMING_CONTINUE
        tail = client.sample_stream(request, parallel=PARALLEL)
        assert b"".join(itertools.chain(head.chunks(), tail.chunks())) == WHOLE[row_format]


@pytest.mark.parametrize("kind", ["abort", "crc", "gap", "silent", "early"])
def test_parts_that_break_are_resumed(row_format, kind):
    cuts = [None, Cut(0, kind), Cut(0, kind), None, Cut(0, kind), Cut(0, kind), None, Cut(1, kind), Cut(2, kind)]
    with services(samplers=alike(cuts)) as found, client_of(found) as client:
        with client.sample("flights", ROWS, format=row_format, parallel=PARALLEL) as stream:
            assert b"".join(stream.chunks()) == WHOLE[row_format]
        assert stream.resumes >= 4
        assert not found.samplers[0].cuts


def test_a_crashed_replica_loses_no_call(row_format):
    with services(samplers=alike([None] * 4 + [Cut(1, "kill")])) as found, client_of(found) as client:
        stream = client.sample("flights", ROWS, format=row_format, parallel=PARALLEL)
        assert b"".join(stream.chunks()) == WHOLE[row_format]


class ExhaustedBudget(FakeSampler):
    """Has no rows from a row on."""

    end = 13 * GRID

    def misbehave(self, cut, row, context):
        if row < self.end:
            return False
        refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "ACCEPTANCE_TOO_LOW", f"none from {row}")
        return (yield)

    def cut_of(self, request):
        if request.end_row <= self.end:
            return None
        return Cut(max(self.end - request.start_row, 0) // GRID)


def test_rows_before_an_error_come_before_it():
    received = []
    with services(samplers=[ExhaustedBudget()]) as found, client_of(found) as client:
        stream = client.sample("flights", ROWS, format="csv", parallel=PARALLEL)
        with pytest.raises(RowmintCallError, match="none from") as raised:
            received.extend(stream.chunks())
        assert raised.value.reason == "ACCEPTANCE_TOO_LOW"
        assert stream.next_row == ExhaustedBudget.end
        assert WHOLE["csv"].startswith(b"".join(received))
        assert b"".join(received).count(b"\n") == 1 + ExhaustedBudget.end
        stream.close()
        assert not part_threads()


def test_after_a_part_that_failed_none_is_started():
    class Empty(ExhaustedBudget):
        end = 0

    with services(samplers=[Empty()]) as found, client_of(found) as client:
        # One thread, and room for three parts.
        stream = parallel.ParallelStream(client._connection, client.sample_request("flights", ROWS, format="csv"), 1)
        part = next(stream._readers.parts())
        stream._readers.join()
        assert part.done
        assert len(found.samplers[0].requests) == 1


@pytest.mark.parametrize("calls", [1, PARALLEL])
def test_gaps_that_touch_are_one(calls):
    class Gapped(FakeSampler):
        """Has every third grid cell."""

        @staticmethod
        def message(first, count, data):
            response = FakeSampler.message(first, count, data)
            if first // GRID % 3:
                response.data.missing.add(start_row=first, end_row=first + count)
            return response

    with services(samplers=[Gapped()]) as found, client_of(found) as client:
        stream = client.sample("flights", ROWS, format="csv", parallel=calls)
        list(stream.chunks())
        gaps = [(one.start_row, one.end_row) for one in stream.missing]
        assert gaps == [(cell * GRID, min((cell + 2) * GRID, ROWS)) for cell in range(1, 41, 3)]


def test_parts_do_not_grow_by_rows_that_are_missing():
    class Sparse(FakeSampler):
        """Has no row before cell 20."""

        @staticmethod
        def message(first, count, data):
            response = FakeSampler.message(first, count, data if first >= 20 * GRID else b"")
            if first < 20 * GRID:
                response.data.missing.add(start_row=first, end_row=first + count)
            return response

    with services(samplers=[Sparse()]) as found, client_of(found) as client:
        stream = client.sample("flights", 400 * GRID, format="csv", parallel=PARALLEL)
        list(stream.chunks())
        lengths = {part.start_row // GRID: part.end_row - part.start_row for part in found.samplers[0].requests}
        assert [lengths[cell] for cell in range(20)] == [GRID] * 20
        assert max(lengths.values()) > GRID


def test_a_request_that_is_refused_is_refused_at_once():
    with services() as found, client_of(found) as client:
        with pytest.raises(RowmintCallError, match="there is no model nothing"):
            list(client.sample("nothing", ROWS, parallel=PARALLEL).chunks())
        for number in (0, -1, 65):
            with pytest.raises(InvalidFieldError, match="parallel"):
                client.sample("flights", ROWS, parallel=number)
        with pytest.raises(RowmintCallError, match="is `rowmint serve` running there"):
            Client("127.0.0.1:1", "127.0.0.1:1", retry=RetryPolicy(sleep=found.waits.append)).sample(
                "flights", 5, parallel=2
            )


def test_a_part_that_stays_damaged_is_an_error():
    with services(samplers=[FakeSampler([None, *[Cut(0, "gap")] * 200])]) as found, client_of(found) as client:
        stream = client.sample("flights", ROWS, format="csv", parallel=PARALLEL)
        with pytest.raises(DataLossError, match="try again"):
            list(stream.chunks())
        stream.close()
        assert not part_threads()


def test_no_more_parts_are_begun_than_may_be_held():
    rows = 10_000 * GRID
    with (
        services() as found,
        client_of(found) as client,
        client.sample("flights", rows, format="csv", parallel=PARALLEL) as stream,
    ):
        assert found.samplers[0].requests == []
        messages = stream.messages()
        next(messages)
        readers = stream._readers
        # The reader stands still; its window fills, each part is read whole, and nothing else is requested.
        wait_until(
            lambda: len(readers._started) == WINDOW and all(part.done for part in readers._started), "full window"
        )
        assert len(found.samplers[0].requests) == WINDOW
        for message in itertools.islice(messages, 500):
            parts = [request for request in found.samplers[0].requests if request.start_row <= message.first_row]
            assert len(found.samplers[0].requests) <= len(parts) + WINDOW - 1
            held = sum(len(one.data) for part in list(readers._started) for one in list(part.messages))
            assert held <= WINDOW * 2 * parallel.PART_BYTES
        sizes = [request.end_row - request.start_row for request in found.samplers[0].requests]
        # The first part teaches nothing of a row's size, so the second is as small; the third may begin after its end.
        assert sizes[:2] == [GRID, GRID]
        # About ten bytes a row.
        assert max(sizes) > 2 * GRID


def test_parts_grow_with_what_came_and_shrink_at_the_end():
    plan = sampling_pb2.PlanSampleResponse(
        header=sampling_pb2.SampleHeader(grid=64, start_row=70, end_row=100_000), block_size=128
    )
    cutter = parallel._Cutter(plan, 4)
    assert cutter.units == 782
    assert [cutter.next(), cutter.next()] == [(70, 128), (128, 256)]
    cutter.learn(128, 128)
    cuts = []
    while cutter.more:
        cuts.append(cutter.next())
    assert cuts[0] == (256, 256 + 4_096)
    assert [start for start, _ in cuts[1:]] == [end for _, end in cuts[:-1]]
    assert cuts[-1][1] == 100_000
    assert all(end % 128 == 0 for _, end in cuts[:-1])
    lengths = [end - start for start, end in cuts]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths[-8:]) < 1_000


class Held(FakeSampler):
    """Sends a first message, then nothing until it is released or its call has ended."""

    def __init__(self):
        super().__init__()
        self.free = threading.Event()
        self.ended = threading.Semaphore(0)

    def Sample(self, request, context):  # noqa: N802
        context.add_callback(self.ended.release)
        responses = super().Sample(request, context)
        yield next(responses)
        yield next(responses)
        gone = threading.Event()
        context.add_callback(gone.set)
        wait_until(lambda: gone.is_set() or self.free.is_set(), "the end of a call")
        yield from responses


@pytest.mark.parametrize("end", ["close", "drop", "error"])
def test_a_stream_can_be_ended_in_its_middle(end):
    sampler = Held()
    with services(samplers=[sampler]) as found, client_of(found) as client:
        stream = client.sample("flights", 64 * ROWS, start_row=1, format="csv", parallel=PARALLEL)
        chunks = stream.chunks()
        next(chunks)
        wait_until(lambda: len(sampler.requests) == PARALLEL, "all calls")
        assert len(part_threads()) == PARALLEL
        if end == "close":
            stream.close()
            assert not part_threads()
        elif end == "drop":
            del stream, chunks
            wait_until(lambda: not collected() and not part_threads(), "the threads' end")
        else:
            with pytest.raises(KeyError), stream:
                raise KeyError
            assert not part_threads()
        for _ in range(PARALLEL):
            assert sampler.ended.acquire(timeout=60)
        assert len(sampler.requests) == PARALLEL


def collected():
    import gc

    gc.collect()
    return False


def test_closing_does_not_wait_for_a_pause_between_attempts():
    refused = threading.Semaphore(0)

    class Refusing(FakeSampler):
        def Sample(self, request, context):  # noqa: N802
            context.add_callback(refused.release)
            if request.start_row:
                refuse(context, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "later", retry_after=1.0)
            yield from super().Sample(request, context)

    with (
        services(samplers=[Refusing()]) as found,
        Client(found.trainer_address, found.sampler_address, retry=NEVER) as client,
    ):
        stream = client.sample("flights", ROWS, format="csv", parallel=PARALLEL)
        next(stream.chunks())
        for _ in range(PARALLEL):
            assert refused.acquire(timeout=60)
        stream.close()
        assert not part_threads()


def test_a_stream_never_read_has_no_thread():
    with services() as found, client_of(found) as client:
        client.sample("flights", ROWS, parallel=PARALLEL).close()
        assert found.samplers[0].requests == []
        assert not part_threads()


def test_each_call_has_a_connection_of_its_own_where_there_is_one_address():
    together = threading.Barrier(PARALLEL)

    class Meeting(FakeSampler):
        def Sample(self, request, context):  # noqa: N802
            if len(self.requests) < PARALLEL:
                together.wait(60)
            yield from super().Sample(request, context)

    sampler = Meeting()
    with services(samplers=[sampler]) as found, client_of(found) as client:
        chunks = client.sample("flights", PARALLEL * GRID, format="csv", parallel=PARALLEL).chunks()
        assert b"".join(chunks).count(b"\n") == 1 + PARALLEL * GRID
    assert len(sampler.peers) == PARALLEL


def test_a_part_is_not_given_up_while_others_progress():
    class Busy(FakeSampler):
        """Refuses the first part until three others have been read, each after another refusal."""

        refusals = threading.Semaphore(0)
        refused = 0

        def Sample(self, request, context):  # noqa: N802
            if request.start_row == 0 and self.refused < 3:
                self.refused += 1
                progress = stream._readers._progress
                before = progress.count
                self.refusals.release()
                wait_until(lambda: progress.count > before, "another part's progress")
                refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT", "full", retry_after=1.0)
            if request.start_row:
                self.refusals.acquire(timeout=60)
            yield from super().Sample(request, context)

    sampler = Busy()
    retry = RetryPolicy(attempts=2, sleep=lambda _seconds: None)
    with (
        services(samplers=[sampler]) as found,
        Client(found.trainer_address, found.sampler_address, retry=retry) as client,
        client.sample("flights", 4 * GRID, format="csv", parallel=2) as stream,
    ):
        assert b"".join(stream.chunks()) == unbroken(sampling_pb2.ROW_FORMAT_CSV, 4 * GRID)
        assert sampler.refused == 3


def test_a_part_that_cannot_even_be_requested_is_not_skipped(monkeypatch):
    made = itertools.count(1)

    class Failing(parallel.RowStream):
        def __init__(self, *arguments, **more):
            if next(made) == 3:
                raise ZeroDivisionError
            super().__init__(*arguments, **more)

    monkeypatch.setattr(parallel, "RowStream", Failing)
    received = []
    with services() as found, client_of(found) as client:
        stream = client.sample("flights", ROWS, format="csv", parallel=PARALLEL)
        with pytest.raises(ZeroDivisionError):
            received.extend(stream.chunks())
        stream.close()
    assert WHOLE["csv"].startswith(b"".join(received))
    assert not part_threads()


def test_parts_that_do_not_join_are_found():
    class Skipping(FakeSampler):
        def Sample(self, request, context):  # noqa: N802
            for response in super().Sample(request, context):
                if response.HasField("data") and response.data.first_row == 4 * GRID:
                    response.data.first_row += GRID
                yield response

    with services(samplers=[Skipping()]) as found, client_of(found) as client:
        stream = client.sample("flights", ROWS, format="csv", parallel=PARALLEL)
        with pytest.raises((DataLossError, RowmintCallError)):
            list(stream.chunks())
        stream.close()
