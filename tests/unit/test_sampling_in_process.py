"""Rows made in process are exactly those that a sampler sends: same header, same messages, same summary."""

import asyncio
import io
import itertools
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from rowmint.artifact import Model
from rowmint.client.sample_plan import sample_plan as client_plan
from rowmint.codecs import IdentityCodec
from rowmint.conditions import AnyOf, Predicate, Range
from rowmint.errors import (
    AcceptanceTooLowError,
    ColumnNotFoundError,
    InvalidFieldError,
    LimitError,
    RowRangeError,
    StreamMismatchError,
    UnavailableError,
)
from rowmint.names import ModelName
from rowmint.rpc.orca import LoadReport
from rowmint.sampling.completion import RowCompletion
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.messages import StreamHeader
from rowmint.sampling.parts import PlannedPart, PlannedSample
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.sampling.spec import CompletionSpec, SampleSpec
from rowmint.sampling.stream import open_stream, write_rows
from rowmint.sampling.verification import draw_first_row, verify_model
from rowmint.schema import TableSchema
from rowmint.steps import finish
from rowmint.synthesizer import choose_kernel
from rowmint.v1 import condition_pb2, sampling_pb2, value_pb2
from sampler_service import converters
from sampler_service.admission import Admission, Allowance
from sampler_service.converters.completed_rows import CompletedRows
from sampler_service.converters.sent_cells import SentCells
from sampler_service.drain import Drain
from sampler_service.model_cache import ModelCache
from sampler_service.pacing import Pacing
from sampler_service.plan_cache import PlanCache
from sampler_service.replica import REPLICA, Replica
from sampler_service.row_sessions import AnsweredRows
from sampler_service.sampler import Sampler
from sampler_service.servicer import SamplingServicer
from sampler_service.sessions import SessionServices
from sampler_service.statistics import Statistics
from tests.golden.make import FAMILIES
from tests.golden.streams import golden_catalog, golden_model, reference, sampler_of
from tests.unit.inline_threads import inline_threads

GRID = 2048
CITY = Predicate("city", AnyOf(("Zürich",)))
AGE = Predicate("age", Range(minimum=10, maximum=80))
WHERE = {
    (): condition_pb2.Where(),
    (CITY, AGE): condition_pb2.Where(
        predicates=[
            condition_pb2.Predicate(column="city", equals=value_pb2.Value(string_value="Zürich")),
            condition_pb2.Predicate(
                column="age",
                range=condition_pb2.ValueRange(
                    minimum=value_pb2.Value(int64_value=10), maximum=value_pb2.Value(int64_value=80)
                ),
            ),
        ]
    ),
}
FORMATS = {row_format: getattr(sampling_pb2, f"ROW_FORMAT_{row_format.upper()}") for row_format in RowFormat}


class Call:
    """A call's context, without a call."""

    def __init__(self) -> None:
        self.initial: tuple = ()
        self.trailing: tuple = ()
        self.callbacks: list = []

    def add_done_callback(self, callback) -> None:
        self.callbacks.append(callback)

    async def send_initial_metadata(self, metadata) -> None:
        self.initial += metadata

    def set_trailing_metadata(self, metadata) -> None:
        self.trailing += metadata

    def end(self) -> None:
        for callback in self.callbacks:
            callback(self)


class Served:
    """A servicer of the golden models, and what its parts count."""

    def __init__(self, sampler, workers, process=Allowance(8, 0)) -> None:  # noqa: B008 - frozen
        self.admission = Admission(process, Allowance(0, 0))
        self.drain = Drain()
        self.drain.add(self.admission)
        self._workers = workers
        services = SessionServices(
            sampler,
            self.executor_of,
            self.admission,
            self.drain,
            Replica(lambda: "one", lambda: LoadReport(0.5, 20.0)),
            Statistics(golden_catalog(), lambda _: 0, clock=time.monotonic, now=time.time, lookups=inline_threads()),
        )
        self._servicer = SamplingServicer(services, Pacing(60.0))

    def executor_of(self, project):
        """Return the threads of a project."""
        return self._workers

    async def _sample(self, request):
        call = Call()
        try:
            responses = [response async for response in self._servicer.Sample(request, call)]
        finally:
            call.end()
        assert call.initial == ((REPLICA, "one"),)
        assert len(call.trailing) == 1
        assert self.admission.streams == self.admission.rows == 0
        return responses

    def sample(self, request):
        """Return every response to a request."""
        return asyncio.run(self._sample(request))

    async def _exchange(self, method, requests, received):
        async def sent():
            for request in requests:
                yield request

        call, responses = Call(), []
        try:
            async for response in method(sent(), call):
                responses.append(response)
                received(response)
        finally:
            call.end()
        return responses

    def complete(self, requests, received=lambda _: None):
        """Return every response to the messages of a completion; `received` is called with each when it comes."""
        return asyncio.run(self._exchange(self._servicer.CompleteRows, requests, received))

    def score(self, requests, received=lambda _: None):
        """Return every response to the messages of a scoring, likewise."""
        return asyncio.run(self._exchange(self._servicer.ScoreRows, requests, received))

    def parts(self, request, count):
        """Return the requests that a stream is cut into."""
        return self.plan(sampling_pb2.PlanSampleRequest(sample=request, parts=count)).parts

    def plan(self, request):
        """Return the response to a request for a plan."""
        response = asyncio.run(self._servicer.PlanSample(request, Call()))
        # The call is not admitted any more when its client has the answer.
        assert self.admission.streams == 0
        return response


@pytest.fixture(scope="module")
def served():
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler, ThreadPoolExecutor(2) as workers:
        yield Served(sampler, workers)


def spec_of(request: sampling_pb2.SampleRequest) -> SampleSpec:
    requested = converters.sample_request(request)
    return SampleSpec(**{name: getattr(requested, name) for name in SampleSpec.__dataclass_fields__})


def in_process(model: Model, request: sampling_pb2.SampleRequest) -> list[sampling_pb2.SampleResponse]:
    """Return what a sampler should respond, made without one."""
    family = reference(request.model.split("/")[3].partition("@")[0])
    stream = open_stream(model, spec_of(request), f"{family.model}/versions/{family.version}")
    events = itertools.chain([stream.header], stream.messages(), (stream.summary for _ in range(1)))
    return [converters.sample_response(event) for event in events]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("row_format", RowFormat)
@pytest.mark.parametrize(("where", "seed"), list(zip(WHERE, (0, 2**64 - 1), strict=True)), ids=["all", "conditions"])
def test_rows_made_in_process_are_those_that_are_served(served, family, row_format, where, seed):
    request = sampling_pb2.SampleRequest(
        model=f"projects/golden/models/{family}/versions/1",
        rows=10**12,
        start_row=100,
        end_row=100 + 2 * GRID,
        seed=seed,
        where=WHERE[where],
        format=FORMATS[row_format],
        message_bytes=16 * 1024,
    )
    assert in_process(golden_model(family), request) == served.sample(request)


@pytest.mark.parametrize("row_format", [RowFormat.ARROW_STREAM, RowFormat.CSV, RowFormat.NDJSON])
def test_served_parts_join_to_what_is_written_in_process(served, row_format):
    request = sampling_pb2.SampleRequest(
        model="projects/golden/models/tvae/versions/1",
        rows=3 * GRID + 50,
        seed=3,
        where=WHERE[CITY, AGE],
        format=FORMATS[row_format],
        columns=["id", "age", "city"],
    )
    sink = io.BytesIO()
    summary = write_rows(golden_model("tvae"), spec_of(request), sink)
    parts = served.parts(request, 3)
    assert len(parts) == 3
    assert sink.getvalue() == b"".join(
        response.data.data for part in parts for response in served.sample(part) if response.HasField("data")
    )
    assert (summary.complete, summary.rows_delivered, summary.next_row) == (True, 3 * GRID + 50, 3 * GRID + 50)


def test_a_gap_ends_a_stream_in_process_as_it_ends_a_served_one(served, monkeypatch):
    real = RowSource.block

    def block(self, number, needed, stopped=lambda: False):
        found = real(self, number, needed, stopped)
        if number != 1 or found.rows <= 2:
            return found
        return replace(found, rows=2, columns={name: array.take(slice(0, 2)) for name, array in found.columns.items()})

    monkeypatch.setattr(RowSource, "block", block)
    request = sampling_pb2.SampleRequest(
        model="projects/golden/models/independent/versions/1", rows=10_000, seed=5, format=FORMATS[RowFormat.CSV]
    )
    received = []
    with pytest.raises(AcceptanceTooLowError) as local:
        received.extend(open_stream(golden_model("independent"), spec_of(request)).messages())
    with pytest.raises(AcceptanceTooLowError) as remote:
        served.sample(request)
    assert sum(message.row_count for message in received) == 4096
    assert (local.value.message, local.value.metadata) == (remote.value.message, remote.value.metadata)
    request.allow_partial = True
    assert in_process(golden_model("independent"), request) == served.sample(request)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_completed_in_process_are_those_that_are_served(served, family):
    known = [sampling_pb2.PartialRow(known={"city": value_pb2.Value(string_value="Zürich")}), sampling_pb2.PartialRow()]
    sent = known * 150
    config = sampling_pb2.CompleteRowsConfig(
        model=f"projects/golden/models/{family}/versions/1", seed=9, start_row=100, candidates=512
    )
    messages = [
        sampling_pb2.CompleteRowsRequest(config=config),
        *(
            sampling_pb2.CompleteRowsRequest(rows=sampling_pb2.PartialRows(rows=rows))
            for rows in (sent[:7], [], sent[7:])
        ),
    ]
    header, *made, summary = served.complete(messages)
    completion = RowCompletion(golden_model(family), CompletionSpec(seed=9, start_row=100, candidates=512))
    read = SentCells().read(sent, 100)
    rows = finish(completion.complete(read.known))

    def respond(event):
        (response,) = CompletedRows().responses(event)
        return response

    assert header == respond(completion.header(config.model))
    assert [row for response in made for row in response.rows.rows] == list(respond(AnsweredRows(rows, read)).rows.rows)
    assert summary == respond(completion.summary(complete=True))


def completing(known, **config):
    """Return the messages of a completion of some rows."""
    config = sampling_pb2.CompleteRowsConfig(model="projects/golden/models/tvae/versions/1", seed=9, **config)
    rows = sampling_pb2.PartialRows(rows=[sampling_pb2.PartialRow(known=one) for one in known])
    return [sampling_pb2.CompleteRowsRequest(config=config), sampling_pb2.CompleteRowsRequest(rows=rows)]


def test_a_completion_holds_its_candidates_and_the_memory_they_take():
    held = []
    known = [{}, {"age": {"int64_value": 30}}]
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler, ThreadPoolExecutor(2) as workers:
        served = Served(sampler, workers)

        def look(response):
            if response.HasField("rows"):
                held.append((served.admission.rows, served.admission.bytes))

        served.complete(completing(known, candidates=65_536), look)
        size = golden_model("tvae").synthesizer.completion_bytes({"age"}, 65_536)
        assert held == [(65_536, size)]
        assert (served.admission.rows, served.admission.bytes) == (0, 0)
        few = golden_model("tvae").synthesizer.completion_bytes((), 65_536)
        narrow = Served(sampler, workers, process=Allowance(8, 0, few))
        assert len(narrow.complete(completing([{}], candidates=65_536))) == 3
        with pytest.raises(LimitError, match=rf"takes {size} bytes.*ROWMINT_MAX_WORK_BYTES"):
            narrow.complete(completing(known, candidates=65_536))
        assert (narrow.admission.rows, narrow.admission.bytes) == (0, 0)


def test_a_completion_takes_turns_between_tasks_of_a_second():
    """A task compares about a million rows and candidates; each gives messages of its own."""
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler, ThreadPoolExecutor(2) as workers:
        _, *made, _ = Served(sampler, workers).complete(completing([{}] * 40, candidates=65_536))
    assert [len(response.rows.rows) for response in made] == [16, 16, 8]


def test_a_draining_sampler_ends_a_completion_and_refuses_the_next():
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler, ThreadPoolExecutor(2) as workers:
        draining = Served(sampler, workers)
        config = sampling_pb2.CompleteRowsConfig(model="projects/golden/models/tvae/versions/1", seed=9, candidates=256)

        def drain_at_rows(response):
            if response.HasField("rows"):
                draining.drain.begin()

        rows = sampling_pb2.CompleteRowsRequest(rows=sampling_pb2.PartialRows(rows=[sampling_pb2.PartialRow()] * 600))
        messages = [sampling_pb2.CompleteRowsRequest(config=config), rows]
        _, *made, last = draining.complete(messages, drain_at_rows)
        assert sum(len(response.rows.rows) for response in made) == last.summary.next_row == 256
        assert not last.summary.complete
        with pytest.raises(UnavailableError, match="is draining"):
            draining.complete(messages)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"seed": None}, InvalidFieldError),
        ({"rows": 0}, InvalidFieldError),
        ({"start_row": 11}, RowRangeError),
        ({"start_row": 5, "continued": True}, RowRangeError),
        ({"columns": ("agee",)}, ColumnNotFoundError),
        ({"expected_model_digest": bytes(32)}, StreamMismatchError),
        ({"expected_plan_digest": bytes(32)}, StreamMismatchError),
    ],
)
def test_what_cannot_be_is_refused(change, error):
    with pytest.raises(error):
        open_stream(golden_model("independent"), replace(SampleSpec(10, seed=1), **change))


def test_typed_columns_are_not_written():
    with pytest.raises(InvalidFieldError, match="row_format"):
        write_rows(golden_model("independent"), SampleSpec(1, seed=0, row_format=RowFormat.COLUMNS), io.BytesIO())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_model_is_verified(family):
    draw_first_row(golden_model(family))
    verify_model(golden_model(family))


def test_a_model_that_cannot_draw_is_found(monkeypatch):
    model = golden_model("independent")

    def block(self, number, needed, stopped=lambda: False):
        raise ValueError("cannot draw")

    monkeypatch.setattr(RowSource, "block", block)
    for check in (draw_first_row, verify_model):
        with pytest.raises(ValueError, match="cannot draw"):
            check(model)


def test_a_plan_of_no_conditions_needs_no_pilot(monkeypatch):
    model = golden_model("ctgan")
    monkeypatch.setattr("rowmint.sampling.plan.pilot_steps", None)
    assert compile_plan(model.digest, model.synthesizer, ()).acceptance == 1.0


def test_a_plan_has_parts_as_requests_and_as_ranges(served):
    request = sampling_pb2.SampleRequest(
        model=str(reference("ctgan")), rows=3 * GRID, seed=7, where=WHERE[CITY, AGE], max_reuse=2
    )
    whole = served.plan(sampling_pb2.PlanSampleRequest(sample=request, parts=3))
    ranges = served.plan(sampling_pb2.PlanSampleRequest(sample=request, parts=3, ranges_only=True))
    edges = [(start, start + GRID) for start in range(0, 3 * GRID, GRID)]
    assert [(one.start_row, one.end_row) for one in whole.ranges] == edges
    assert [(one.start_row, one.end_row) for one in whole.parts] == edges
    assert {part.max_reuse for part in whole.parts} == {2}
    assert (list(ranges.parts), ranges.ranges, ranges.header) == ([], whole.ranges, whole.header)
    assert client_plan(request, ranges).parts[1:] == whole.parts[1:]
    assert client_plan(request, whole).parts[0] == whole.parts[0]


@pytest.mark.parametrize(
    ("framing", "received_bytes", "first"),
    [("FILE", None, "FILE"), ("UNSPECIFIED", None, "FILE"), ("CONTINUE", None, "CONTINUE"), ("RESUME", 9, "RESUME")],
)
def test_the_first_part_of_a_plan_is_framed_as_its_stream(served, framing, received_bytes, first):
    request = sampling_pb2.SampleRequest(
        model=str(reference("ctgan")), rows=3 * GRID, start_row=GRID, seed=7, framing=f"FRAMING_{framing}"
    )
    if received_bytes is not None:
        request.received_bytes = received_bytes
    plan = served.plan(sampling_pb2.PlanSampleRequest(sample=request, parts=2))
    framings = [
        (sampling_pb2.Framing.Name(part.framing), part.HasField("received_bytes"), part.received_bytes)
        for part in plan.parts
    ]
    assert framings == [
        (f"FRAMING_{first}", received_bytes is not None, received_bytes or 0),
        ("FRAMING_CONTINUE", False, 0),
    ]
    assert list(client_plan(request, plan).parts) == list(plan.parts)


def test_parts_are_answered_up_to_the_bound_and_refused_past_it():
    request = sampling_pb2.PlanSampleRequest(sample=sampling_pb2.SampleRequest(model="m" * 2000, rows=4096 * 1024))
    header = StreamHeader("v", bytes(32), bytes(32), 7, 2048, 4096 * 1024, 0, 4096 * 1024, TableSchema(()))
    parts = tuple(PlannedPart(row * 4096, row * 4096 + 4096, continued=row > 0) for row in range(1024))
    planned = PlannedSample(header, compile_plan(bytes(32), golden_model("ctgan").synthesizer, ()), "", parts)
    # The first part has zeros, which take no room: all have its size or a few bytes more.
    (first, *_) = converters.plan_response(replace(planned, parts=parts[:1]), request, 1 << 20).parts
    bound = 1024 * first.ByteSize()
    assert len(converters.plan_response(planned, request, bound).parts) == 1024
    with pytest.raises(LimitError, match=rf"parts: 1024 requests of {first.ByteSize()} bytes are more than") as error:
        converters.plan_response(planned, request, bound - 1)
    assert error.value.metadata == {"limit": str(bound - 1), "setting": "ROWMINT_MAX_PLAN_BYTES"}
    assert len(converters.plan_response(replace(planned, parts=parts[:1023]), request, bound - 1).parts) == 1023
    request.ranges_only = True
    assert len(converters.plan_response(planned, request, 1).ranges) == 1024


def test_a_plan_is_admitted_as_a_stream_is(served):
    request = sampling_pb2.PlanSampleRequest(sample=sampling_pb2.SampleRequest(model=str(reference("ctgan")), rows=10))
    held = [served.admission.enter("golden") for _ in range(8)]
    try:
        with pytest.raises(UnavailableError, match="as many streams as it carries"):
            served.plan(request)
    finally:
        for ticket in held:
            ticket.close()
    assert served.plan(request).header.rows == 10


class HeldExecutor(Executor):
    """Keeps what is submitted until it is released, and then does it on other threads."""

    def __init__(self, workers):
        self._workers = workers
        self._kept = []
        self._released = False
        self.come = asyncio.Event()

    def submit(self, work, /, *arguments, **named):
        if self._released:
            return self._workers.submit(work, *arguments, **named)
        future = Future()
        self._kept.append((future, work, arguments))
        self.come.set()
        return future

    def release(self):
        self._released = True
        for future, work, arguments in self._kept:
            future.set_result(work(*arguments))


def test_what_is_large_is_read_and_written_on_the_projects_own_threads(monkeypatch):
    values = [value_pb2.Value(int64_value=age) for age in range(10, 80)] * 140
    where = condition_pb2.Where(
        predicates=[condition_pb2.Predicate(column="age", any_of=condition_pb2.ValueSet(values=values))] * 2
    )
    own, others = reference("independent"), replace(reference("independent"), model=ModelName("others", "independent"))
    large = sampling_pb2.SampleRequest(model=str(own), rows=10, where=where)
    assert large.ByteSize() > 64 * 1024
    read = []
    sample_request = converters.sample_request
    monkeypatch.setattr(
        converters, "sample_request", lambda *given: (read.append(given[0].model), sample_request(*given))[1]
    )

    async def scenario(workers, loaders):
        held, catalog = HeldExecutor(workers), golden_catalog()
        models = ModelCache(catalog, catalog.store, choose_kernel("numpy"), loaders, 1 << 28, lookups=inline_threads())

        def executor_of(project):
            return workers if project == "others" else held

        sampler = Sampler(models, PlanCache(executor_of), executor_of, lambda: 1)

        class Divided(Served):
            def executor_of(self, project):
                return executor_of(project)

        servicer = Divided(sampler, workers)._servicer
        calls = [Call(), Call(), Call()]
        planning = asyncio.create_task(
            servicer.PlanSample(sampling_pb2.PlanSampleRequest(sample=large, parts=2), calls[0])
        )
        await held.come.wait()
        assert read == []
        # Another project is served meanwhile.
        small = sampling_pb2.SampleRequest(model=str(others), rows=10)
        responses = [response async for response in servicer.Sample(small, calls[1])]
        assert responses[-1].summary.complete
        assert (read, planning.done()) == ([small.model], False)
        held.release()
        assert (await planning).header.rows == 10
        assert [response async for response in servicer.Sample(large, calls[2])][-1].summary.complete
        for call in calls:
            call.end()

    with ThreadPoolExecutor(2) as workers, ThreadPoolExecutor(1) as loaders:
        asyncio.run(scenario(workers, loaders))
    assert read == [str(others), str(own), str(own)]


def test_more_rows_than_an_id_column_has_ids_are_refused():
    model = golden_model("independent")
    few = replace(model, identities={**model.identities, "badge": IdentityCodec(False, 0, 100, "N[0-9]{2}")})
    SampleSpec(rows=10**6, start_row=90, end_row=100).validate_for(few)
    SampleSpec(rows=10**6, end_row=101, columns=("age",)).validate_for(few)
    with pytest.raises(RowRangeError, match="column 'badge' has 100 ids, too few for row 100") as caught:
        SampleSpec(rows=10**6, start_row=90, end_row=101).validate_for(few)
    assert caught.value.metadata == {"column": "badge", "size": "100"}
