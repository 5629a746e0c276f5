"""Streams of rows: whole, broken, and resumed on another replica, to the same bytes."""

import io
import math

import grpc
import pyarrow as pa
import pyarrow.ipc
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError, row_exchange, synthesize
from rowmint.client.table_ids import id_from_name
from rowmint.errors import (
    ChecksumError,
    ColumnNotFoundError,
    DataLossError,
    InvalidFieldError,
    RowmintError,
    StreamMismatchError,
)
from rowmint.v1 import sampling_pb2
from tests.unit.fake_failures import Cut
from tests.unit.fake_rows import GRID, ORIGINS, VERSION, lead_and_end, row_bytes, unbroken
from tests.unit.fake_sampler import FakeSampler, alike
from tests.unit.fake_services import services
from tests.unit.fake_trainer import FakeTrainer

ROWS = 10 * GRID + 17
WHOLE = {
    "csv": unbroken(sampling_pb2.ROW_FORMAT_CSV, ROWS),
    "ndjson": unbroken(sampling_pb2.ROW_FORMAT_NDJSON, ROWS),
    "arrow": unbroken(sampling_pb2.ROW_FORMAT_ARROW_STREAM, ROWS),
}
FORMAT_NAMES = {"csv": "ROW_FORMAT_CSV", "ndjson": "ROW_FORMAT_NDJSON", "arrow": "ROW_FORMAT_ARROW_STREAM"}
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

CUTS = [
    Cut(0),
    Cut(4),
    Cut(4, code=UNAVAILABLE),
    Cut(4, code=grpc.StatusCode.UNKNOWN),
    Cut(4, code=grpc.StatusCode.CANCELLED),
    Cut(4, "refuse", UNAVAILABLE, "UNAVAILABLE"),
    Cut(4, "refuse", grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT", retry_after=0.01),
    Cut(4, "crc"),
    Cut(4, "gap"),
    Cut(4, "silent"),
    Cut(4, "early"),
    Cut(4, "kill"),
    Cut(10),
]


def client_of(found):
    return Client(found.trainer_address, found.sampler_address, retry=RetryPolicy(sleep=found.waits.append))


@pytest.fixture(params=["csv", "ndjson", "arrow"])
def row_format(request):
    return request.param


def test_an_unbroken_stream_is_passed_on_as_it_is(row_format):
    with services() as found, client_of(found) as client, client.sample("flights", ROWS, format=row_format) as stream:
        assert stream.header.model_version == VERSION
        assert b"".join(stream.chunks()) == WHOLE[row_format]
        assert (stream.resumes, stream.candidates, stream.accepted) == (0, 2 * ROWS, ROWS)
        assert stream.acceptance == 0.5


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize(("max_reuse", "rows_per_candidate", "distinct"), [(None, 1, ROWS), (4, 4, -(-ROWS // 4))])
def test_a_stream_says_how_many_candidates_its_rows_rest_on(max_reuse, rows_per_candidate, distinct, parallel):
    with (
        services() as found,
        client_of(found) as client,
        client.sample("flights", ROWS, max_reuse=max_reuse, parallel=parallel) as stream,
    ):
        stream.to_table()
        assert (stream.rows_per_candidate, stream.distinct_candidates) == (rows_per_candidate, distinct)
        assert {request.HasField("max_reuse") for request in found.samplers[0].requests} == {max_reuse is not None}


@pytest.mark.parametrize("read", [lambda stream: stream.to_table(), list], ids=["table", "batches"])
def test_reading_batches_reads_the_summary_too(read):
    with services() as found, client_of(found) as client, client.sample("flights", ROWS) as stream:
        read(stream)
        assert (stream.candidates, stream.acceptance) == (2 * ROWS, 0.5)


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut.kind}-{cut.after}-{cut.code.name}-{cut.reason}")
@pytest.mark.parametrize("lead_pieces", [0, 1])
def test_a_broken_stream_is_resumed_elsewhere_to_the_same_bytes(row_format, cut, lead_pieces):
    samplers = alike([cut], lead_pieces=lead_pieces)
    with services(samplers=samplers) as found, client_of(found) as client:
        with client.sample("flights", ROWS, format=row_format, seed=5) as stream:
            first = stream.address
            received = b"".join(stream.chunks())
        assert stream.resumes == 1
        assert received == WHOLE[row_format]
        assert {first, stream.address} <= set(found.sampler_addresses)
        if cut.kind == "kill":
            assert stream.address != first
        resumed = samplers[0].requests[1]
        assert resumed.model == VERSION
        assert resumed.seed == 5
        assert (resumed.expected_model_digest, resumed.expected_plan_digest) == (b"m" * 32, b"p" * 32)
        assert resumed.framing == sampling_pb2.FRAMING_RESUME
        assert resumed.start_row == max(0, cut.after - (lead_pieces and row_format != "ndjson")) * GRID
        assert resumed.received_bytes == received_before(row_format, resumed.start_row, header=cut.after > 0)


def received_before(row_format, row, *, header):
    """Return the bytes of a file before a row on the grid, and of its header where there are none."""
    if not row and not header:
        return 0
    number = getattr(sampling_pb2, FORMAT_NAMES[row_format])
    lead, _ = lead_and_end(number)
    return len(lead) + sum(len(row_bytes(number, first, GRID)) for first in range(0, row, GRID))


def test_a_seed_the_service_drew_is_kept_on_resumption():
    samplers = [FakeSampler([Cut(2)])]
    with services(samplers=samplers) as found, client_of(found) as client:
        assert b"".join(client.sample("flights", ROWS, format="csv").chunks()) == WHOLE["csv"]
    assert not samplers[0].requests[0].HasField("seed")
    assert samplers[0].requests[1].seed == 77


def test_a_break_after_the_header_alone_begins_again_without_doubling_it():
    # After a third of the header, before and after the next third, and after all of it.
    samplers = [FakeSampler([Cut(1), Cut(0), Cut(1), Cut(3), None], lead_pieces=3)]
    with services(samplers=samplers) as found, client_of(found) as client:
        assert b"".join(client.sample("flights", ROWS, start_row=5, format="csv").chunks()) == unbroken(
            sampling_pb2.ROW_FORMAT_CSV, ROWS, 5
        )
    requests = samplers[0].requests
    assert [request.start_row for request in requests] == [5] * 5
    lead, _ = lead_and_end(sampling_pb2.ROW_FORMAT_CSV)
    assert [request.received_bytes for request in requests] == [0, 9, 9, 15, len(lead)]


def test_a_break_before_the_summary_repeats_no_row():
    samplers = [FakeSampler([Cut(11), Cut(0)])]
    with services(samplers=samplers) as found, client_of(found) as client:
        stream = client.sample("flights", ROWS)
        assert b"".join(stream.chunks()) == WHOLE["arrow"]
        assert stream.resumes == 2
    ended = [(request.start_row, request.received_bytes) for request in samplers[0].requests]
    assert ended == [(0, 0)] + [(ROWS, len(WHOLE["arrow"]))] * 2


def test_a_stream_that_another_client_received_in_part_is_resumed(row_format):
    whole = WHOLE[row_format]
    samplers = [FakeSampler([Cut(2), Cut(1), None])]
    with services(samplers=samplers) as found, client_of(found) as client:
        request = client.sample_request("flights", ROWS, format=row_format, start_row=2 * GRID)
        request.framing = sampling_pb2.FRAMING_RESUME
        request.received_bytes = received_before(row_format, 2 * GRID, header=True)
        assert b"".join(client.sample_stream(request).chunks()) == whole[request.received_bytes :]
        # The same request, by several calls at once.
        assert b"".join(client.sample_stream(request, parallel=3).chunks()) == whole[request.received_bytes :]
        if row_format == "arrow":
            with pytest.raises(InvalidFieldError, match="has no schema"):
                client.sample_stream(request).reader()
            request.start_row = request.received_bytes = 0
            assert client.sample_stream(request).to_table().num_rows == ROWS
    assert [one.received_bytes for one in samplers[0].requests[:3]] == [
        received_before(row_format, row * GRID, header=True) for row in (2, 4, 5)
    ]


def test_record_batches_are_those_of_the_unbroken_stream():
    samplers = [FakeSampler([Cut(3), Cut(2), Cut(1)]), FakeSampler([Cut(3)], lead_pieces=1)]
    with services(samplers=samplers) as found, client_of(found) as client:
        batches = list(client.sample("flights", ROWS))
    expected = list(pa.ipc.open_stream(WHOLE["arrow"]))
    assert batches == expected
    assert [batch.num_rows for batch in batches] == [GRID] * 10 + [17]
    assert batches[0].column("origin").to_pylist()[:3] == [ORIGINS[0], ORIGINS[1], ORIGINS[2]]


def test_a_part_of_a_stream_is_a_table_of_its_own():
    with services() as found, client_of(found) as client:
        table = client.sample("flights", ROWS, start_row=GRID, end_row=3 * GRID).to_table()
        assert table.num_rows == 2 * GRID
        assert list(client.sample("flights", ROWS, start_row=3, end_row=3)) == []


@pytest.mark.parametrize("before_ranges", [False, True])
def test_planned_parts_joined_are_the_single_stream(row_format, before_ranges):
    sampler = FakeSampler([None, Cut(2)])
    # A sampler of before ranges answers with whole requests, whatever is requested.
    sampler.before_ranges = before_ranges
    with services(samplers=[sampler]) as found, client_of(found) as client:
        request = client.sample_request("flights", ROWS, format=row_format)
        plan = client.plan_sample(request, parts=2)
        data = b"".join(b"".join(client.sample_stream(part).chunks()) for part in plan.parts)
        assert data == WHOLE[row_format]
        assert (len(plan.parts), plan.acceptance, plan.block_size) == (2, 0.5, GRID // 2)
        assert plan.condition_probability == (None if before_ranges else 0.25)
        pinned = {(part.model, part.seed, part.expected_model_digest, part.expected_plan_digest) for part in plan.parts}
        assert pinned == {(VERSION, 77, plan.header.model_digest, plan.header.plan_digest)}
        assert plan.parts[-1] == plan.parts[1:][0] == list(plan.parts)[1]
        with pytest.raises(IndexError):
            plan.parts[2]
        if row_format == "arrow":
            with pytest.raises(InvalidFieldError, match="has no schema"):
                client.sample_stream(plan.parts[1]).reader()


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_plan_that_finds_no_room_is_requested_as_often_as_a_stream(parallel):
    sampler = FakeSampler()
    with services(samplers=[sampler]) as found, client_of(found) as client:
        request = client.sample_request("flights", ROWS, format="csv")

        def planned():
            return client.plan_sample(request) if parallel == 1 else client.sample_stream(request, parallel)

        sampler.full = RetryPolicy().attempts - 1
        assert planned().header.rows == ROWS
        assert len(found.waits) == RetryPolicy().attempts - 1
        sampler.full = RetryPolicy().attempts
        with pytest.raises(RowmintCallError, match="no room for a plan"):
            planned()


def test_breaks_with_progress_never_end_a_stream_but_breaks_without_do():
    endless = [Cut(1)] * 10
    with services(samplers=[FakeSampler(endless)]) as found, client_of(found) as client:
        assert b"".join(client.sample("flights", ROWS, format="csv").chunks()) == WHOLE["csv"]
    stuck = [Cut(1), *[Cut(0)] * 20]
    with services(samplers=[FakeSampler(stuck)]) as found, client_of(found) as client:
        with pytest.raises(RowmintCallError, match="given up after 8 attempts"):
            list(client.sample("flights", ROWS, format="csv").chunks())
        assert len(found.waits) == 7


@pytest.mark.parametrize(("kind", "error"), [("crc", ChecksumError), ("gap", DataLossError), ("silent", RowmintError)])
def test_a_stream_that_stays_damaged_is_an_error(kind, error):
    with (
        services(samplers=[FakeSampler([Cut(0, kind)] * 20)]) as found,
        client_of(found) as client,
        pytest.raises(error, match="try again"),
    ):
        list(client.sample("flights", ROWS, format="csv").chunks())


@pytest.mark.parametrize("after", [0, 3])
def test_what_is_not_retryable_is_raised_at_once(after):
    exhausted = Cut(after, "refuse", grpc.StatusCode.FAILED_PRECONDITION, "ACCEPTANCE_TOO_LOW")
    sampler = FakeSampler([exhausted])
    with (
        services(samplers=[sampler]) as found,
        client_of(found) as client,
        pytest.raises(RowmintCallError, match="refused by the test") as caught,
    ):
        list(client.sample("flights", ROWS))
    assert caught.value.reason == "ACCEPTANCE_TOO_LOW"
    assert len(sampler.requests) == 1


def test_an_error_inside_arrows_reader_is_raised_as_it_is():
    cut = Cut(3, "refuse", grpc.StatusCode.FAILED_PRECONDITION, "ACCEPTANCE_TOO_LOW")
    with (
        services(samplers=[FakeSampler([cut])]) as found,
        client_of(found) as client,
        pytest.raises(RowmintCallError, match="refused by the test"),
    ):
        client.sample("flights", ROWS).to_table()


def test_a_replica_with_another_plan_does_not_resume_a_stream():
    samplers = [FakeSampler([Cut(3, "kill")]), FakeSampler([Cut(3, "kill")], plan=b"q" * 32)]
    with (
        services(samplers=samplers) as found,
        client_of(found) as client,
        pytest.raises(StreamMismatchError, match="plan_digest differs"),
    ):
        list(client.sample("flights", ROWS))


def test_a_dead_replica_is_passed_over_at_once():
    with (
        services(samplers=[FakeSampler()]) as found,
        Client(found.trainer_address, ["127.0.0.1:1", *found.sampler_addresses]) as client,
    ):
        for _ in range(2):
            assert b"".join(client.sample("flights", ROWS, format="csv").chunks()) == WHOLE["csv"]
        assert client.get_version("flights").name == VERSION


def test_a_missing_replica_is_reported_soon():
    waits = []
    with Client("127.0.0.1:1", ["127.0.0.1:1", "127.0.0.1:2"], retry=RetryPolicy(sleep=waits.append)) as client:
        with pytest.raises(RowmintCallError, match="is `rowmint serve` running there") as caught:
            client.sample("flights", 5)
        assert "\n" not in str(caught.value)
        with pytest.raises(RowmintCallError, match=r"no answer from the trainer at 127.0.0.1:1"):
            list(client.list_jobs())
    assert len(waits) < 10


def test_a_file_appears_only_when_it_is_whole(tmp_path, row_format):
    path = tmp_path / "rows"
    progress = []
    with services(samplers=[FakeSampler([Cut(4)])]) as found, client_of(found) as client:
        stream = client.sample_to_file(
            path, "flights", ROWS, format=row_format, progress=lambda done, total: progress.append((done, total))
        )
        assert path.read_bytes() == WHOLE[row_format]
        assert stream.resumes == 1
        assert progress[-1] == (ROWS, ROWS)
    path.unlink()
    cut = Cut(4, "refuse", grpc.StatusCode.FAILED_PRECONDITION, "ACCEPTANCE_TOO_LOW")
    with services(samplers=[FakeSampler([cut])]) as found, client_of(found) as client, pytest.raises(RowmintCallError):
        client.sample_to_file(path, "flights", ROWS, format=row_format)
    assert list(tmp_path.iterdir()) == []


def test_conditions_are_typed_and_the_version_pinned():
    sampler = FakeSampler()
    with services(samplers=[sampler]) as found, client_of(found) as client:
        client.sample("flights", 5, where={"origin": "JFK", "arr_delay": (60, None)}, columns=["origin"]).close()
        request = sampler.requests[0]
        assert request.model == VERSION
        assert request.where.predicates[1].range.minimum.double_value == 60.0
        assert list(request.columns) == ["origin"]
        with pytest.raises(ColumnNotFoundError, match="did you mean 'origin'"):
            client.sample("flights", 5, where=["orgin = JFK"])
        with pytest.raises(InvalidFieldError, match="format"):
            client.sample("flights", 5, format="xlsx")
        with pytest.raises(InvalidFieldError, match="range"):
            client.sample("flights", 5, seed=-1)
        with pytest.raises(RowmintCallError, match="there is no model nothing"):
            client.sample("nothing", 5)


MESSAGE_ROWS = 128
"""Rows of a message here: a table of modest size is to have many."""


@pytest.fixture(autouse=True)
def _small_messages(monkeypatch):
    monkeypatch.setattr(row_exchange, "MESSAGE_ROWS", MESSAGE_ROWS)
    monkeypatch.setattr(row_exchange, "_WINDOW", 8 * MESSAGE_ROWS)


def known_rows(count):
    return [{"origin": ORIGINS[index % 3], "dep_delay": None} for index in range(count)]


COMPLETION_CUTS = [
    Cut(0),
    Cut(3),
    Cut(9, code=UNAVAILABLE),
    Cut(4, "refuse", UNAVAILABLE, "UNAVAILABLE", retry_after=0.01),
    Cut(4, "gap"),
    Cut(4, "silent"),
    Cut(4, "early"),
]


@pytest.mark.parametrize("cut", COMPLETION_CUTS, ids=lambda cut: f"{cut.kind}-{cut.after}-{cut.code.name}")
def test_completed_rows_come_in_order_over_breaks(cut):
    count = 3_000
    samplers = alike([cut])
    with services(samplers=samplers) as found, client_of(found) as client:
        stream = client.complete_rows("flights", iter(known_rows(count)), seed=3)
        rows = list(stream)
        assert stream.address in found.sampler_addresses
    assert [row.row for row in rows] == list(range(count))
    assert [dict(row) for row in rows] == [{**known, "arr_delay": 0.5} for known in known_rows(count)]
    assert (rows[0].effective_sample_size, rows[0].support) == (12.5, "widened")
    assert stream.resumes == 1
    begun = [(config.start_row, config.seed) for config in samplers[0].completions]
    assert begun == [(0, 3), (cut.after * MESSAGE_ROWS, 3)]


def test_an_unbroken_completion_is_one_call():
    with services() as found, client_of(found) as client:
        stream = client.complete_rows("flights", known_rows(1_000))
        assert len(list(stream)) == 1_000
        assert stream.resumes == 0
        assert len(found.samplers[0].completions) == 1


def test_a_completion_keeps_the_version_and_the_seed_of_its_first_answer():
    sampler = FakeSampler([Cut(2)])
    with services(samplers=[sampler]) as found, client_of(found) as client:
        assert len(list(client.complete_rows("flights", known_rows(1_000)))) == 1_000
    first, second = sampler.completions
    assert not first.HasField("seed")
    assert (first.expected_model_digest, first.expected_plan_digest) == (b"", b"")
    assert (second.seed, second.model) == (77, VERSION)
    assert (second.expected_model_digest, second.expected_plan_digest) == (sampler.model, sampler.plan)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_digest", b"n" * 32),
        ("plan_digest", b"n" * 32),
        ("seed", 78),
        ("model_version", VERSION.replace("1", "2")),
    ],
)
def test_a_replica_with_another_model_does_not_resume_a_completion(name, value):
    completions = []

    class Replica(FakeSampler):
        """Breaks the first completion; resumes it with a header that differs in one field."""

        def CompleteRows(self, requests, context):  # noqa: N802
            completions.append(self)
            for response in super().CompleteRows(requests, context):
                if response.HasField("header") and len(completions) > 1:
                    setattr(response.header, name, value)
                yield response

    sampler = Replica([Cut(5)])
    received = []
    with services(samplers=[sampler]) as found, client_of(found) as client:
        stream = client.complete_rows("flights", iter(known_rows(3_000)), seed=77)
        with pytest.raises(StreamMismatchError, match=f"{name} differs"):
            received.extend(row.row for row in stream)
    assert received == list(range(5 * MESSAGE_ROWS))
    assert [config.start_row for config in sampler.completions] == [0, 5 * MESSAGE_ROWS]


def test_a_completion_that_stays_damaged_is_an_error():
    with services(samplers=[FakeSampler([Cut(1), *[Cut(0, "gap")] * 20])]) as found, client_of(found) as client:
        stream = client.complete_rows("flights", known_rows(1_000))
        with pytest.raises(DataLossError, match=f"where {MESSAGE_ROWS} was next; try again"):
            list(stream)


def test_completion_reads_no_further_ahead_than_its_window():
    taken = []

    def endless():
        for index in range(10**9):
            taken.append(index)
            yield {"dep_delay": index}

    with services() as found, client_of(found) as client, client.complete_rows("flights", endless()) as stream:
        assert next(stream)["dep_delay"] == 0
        assert len(taken) <= 2_048


def test_a_cell_that_does_not_fit_names_its_row():
    with services() as found, client_of(found) as client:
        with pytest.raises(InvalidFieldError, match=r"rows\[1\].dep_delay"):
            list(client.complete_rows("flights", [{"dep_delay": "5"}, {"dep_delay": "five"}]))
        with pytest.raises(ColumnNotFoundError, match="did you mean 'dep_delay'"):
            list(client.complete_rows("flights", [{"dep_dely": 5}]))


@pytest.mark.parametrize("cut", COMPLETION_CUTS, ids=lambda cut: f"{cut.kind}-{cut.after}-{cut.code.name}")
def test_scores_come_in_order_over_breaks(cut):
    count = 3_000
    samplers = alike([cut])
    known = [{"origin": "JFK", "dep_delay": 5} if index % 3 else {} for index in range(count)]
    with services(samplers=samplers) as found, client_of(found) as client:
        stream = client.score_rows("flights", iter(known))
        scores = list(stream)
    expected = [-0.5 * len(one) if one else -math.inf for one in known]
    assert [score.row for score in scores] == list(range(count))
    assert [score.log_probability for score in scores] == expected
    assert [score.impossible for score in scores] == [not one for one in known]
    assert stream.resumes == 1
    digests = [(config.start_row, config.expected_model_digest) for config in samplers[0].scorings]
    assert digests == [(0, b""), (cut.after * MESSAGE_ROWS, samplers[0].model)]


def test_a_score_that_is_not_a_number_is_damage():
    class Damaged(FakeSampler):
        def ScoreRows(self, requests, context):  # noqa: N802
            for response in super().ScoreRows(requests, context):
                for score in response.rows.scores:
                    score.log_probability = math.nan
                yield response

    with services(samplers=[Damaged()]) as found, client_of(found) as client:
        stream = client.score_rows("flights", [{"dep_delay": 5}])
        with pytest.raises(DataLossError, match="row 0 came damaged"):
            list(stream)


def test_synthesize_uploads_trains_and_samples(tmp_path):
    path = tmp_path / "My flights.csv"
    path.write_bytes(b"origin,dep_delay\nJFK,5\n")
    trainer = FakeTrainer()
    events = []
    with services(trainer) as found, client_of(found) as client:
        table = synthesize(
            path, 100, where={"origin": "JFK"}, family="tvae", seed=4, client=client, on_event=events.append, epochs=5
        )
    assert table.num_rows == 100
    assert trainer.jobs[0].training_job.model == "projects/default/models/my-flights"
    assert trainer.jobs[0].training_job.config.seed == 4
    assert trainer.jobs[0].training_job.config.tvae.epochs == 5
    assert len(events) == 7


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b/Flights 2013.csv.zip", "flights-2013"), ("2013.csv", "data-2013"), ("__.csv", "data")]
)
def test_an_id_is_made_of_a_files_name(name, expected):
    assert id_from_name(name) == expected


def test_write_to_takes_any_binary_file():
    sink = io.BytesIO()
    with services() as found, client_of(found) as client, client.sample("flights", ROWS, format="csv") as stream:
        stream.write_to(sink)
    assert sink.getvalue() == WHOLE["csv"]
