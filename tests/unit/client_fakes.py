"""Fake services over real gRPC, which fail as a test says."""

import hashlib
import io
import struct
import threading
from collections import deque
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import google_crc32c
import grpc
import pyarrow as pa
import pyarrow.ipc
from google.protobuf import any_pb2, duration_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2

from rowmint.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    model_admin_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    sampling_pb2,
    sampling_service_pb2_grpc,
    schema_pb2,
    training_job_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
    value_pb2,
)

GRID = 64
ORIGINS = ["EWR", "JFK", "LGA"]
VERSION = "projects/default/models/flights/versions/1"

SCHEMA = schema_pb2.TableSchema(
    columns=[
        schema_pb2.ColumnSpec(
            name="origin", kind=schema_pb2.COLUMN_KIND_CATEGORICAL, data_type=schema_pb2.DATA_TYPE_STRING
        ),
        schema_pb2.ColumnSpec(
            name="dep_delay", kind=schema_pb2.COLUMN_KIND_NUMERICAL, data_type=schema_pb2.DATA_TYPE_INT64
        ),
        schema_pb2.ColumnSpec(
            name="arr_delay", kind=schema_pb2.COLUMN_KIND_NUMERICAL, data_type=schema_pb2.DATA_TYPE_DOUBLE
        ),
    ]
)


def status_trailer(code, reason, message, *, metadata=(), violations=(), retry_after=None, domain="rowmint"):
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=dict(metadata))]
    if violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
                    for name, text in violations
                ]
            )
        )
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def refuse(context, code, reason, message, **details):
    context.set_trailing_metadata(status_trailer(code, reason, message, **details))
    context.abort(code, message)


@dataclass
class Cut:
    """How one call fails, after `after` data messages."""

    after: int
    kind: str = "abort"  # abort, refuse, crc, gap, silent, early, kill
    code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    reason: str = ""
    retry_after: float | None = None


def origins(first, count):
    return pa.DictionaryArray.from_arrays(
        pa.array([(row * 7) % 3 for row in range(first, first + count)], pa.int32()), pa.array(ORIGINS)
    )


def arrow_batch(first, count):
    rows = range(first, first + count)
    return pa.record_batch(
        [
            origins(first, count),
            pa.array([row % 200 for row in rows], pa.int64()),
            pa.array([row / 8 for row in rows], pa.float64()),
        ],
        names=["origin", "dep_delay", "arr_delay"],
    )


def arrow_lead_and_end():
    sink = io.BytesIO()
    batch = arrow_batch(0, GRID)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
        before_end = sink.tell()
    whole = sink.getvalue()
    return whole[: before_end - batch.serialize().size], whole[before_end:]


def row_bytes(format_, first, count):
    rows = range(first, first + count)
    if format_ == sampling_pb2.ROW_FORMAT_CSV:
        return "".join(f"{ORIGINS[(row * 7) % 3]},{row % 200},{row / 8}\n" for row in rows).encode()
    if format_ == sampling_pb2.ROW_FORMAT_NDJSON:
        return "".join(f'{{"dep_delay":{row % 200}}}\n' for row in rows).encode()
    return bytes(arrow_batch(first, count).serialize())


def lead_and_end(format_):
    if format_ == sampling_pb2.ROW_FORMAT_CSV:
        return b"origin,dep_delay,arr_delay\n", b""
    return (b"", b"") if format_ == sampling_pb2.ROW_FORMAT_NDJSON else arrow_lead_and_end()


def unbroken(format_, rows, start=0):
    lead, end = lead_and_end(format_)
    data = lead
    while start < rows:
        stop = min(start - start % GRID + GRID, rows)
        data += row_bytes(format_, start, stop - start)
        start = stop
    return data + end


class FakeSampler(sampling_service_pb2_grpc.SamplingServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """Deterministic rows; `cuts` says how the next calls fail, one entry for each call, None for one that succeeds."""

    def __init__(self, cuts=(), lead_alone=False, plan=b"p" * 32, model=b"m" * 32):
        self.cuts = deque(cuts)
        self.lead_alone = lead_alone
        self.plan = plan
        self.model = model
        self.requests = []
        self.completions = []
        self.address = ""
        self.peers = set()
        self.reports = None
        self.kill = lambda: None

    def cut_of(self, request):
        """Return how a call fails."""
        return self.cuts.popleft() if self.cuts else None

    def header(self, request):
        return sampling_pb2.SampleHeader(
            model_version=VERSION,
            model_digest=self.model,
            plan_digest=self.plan,
            seed=request.seed if request.HasField("seed") else 77,
            grid=GRID,
            rows=request.rows,
            start_row=request.start_row,
            end_row=request.end_row if request.HasField("end_row") else request.rows,
            schema=SCHEMA,
        )

    def lead_and_end(self, format_):
        return lead_and_end(format_)

    def row_bytes(self, format_, first, count):
        return row_bytes(format_, first, count)

    def Sample(self, request, context):  # noqa: N802
        self.requests.append(request)
        self.peers.add(context.peer())
        if self.address:
            context.send_initial_metadata((("rowmint-replica", self.address),))
        if request.model.endswith("/nothing"):
            refuse(context, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", "there is no model nothing")
        cut = self.cut_of(request)
        header = self.header(request)
        yield sampling_pb2.SampleResponse(header=header)
        lead, end = self.lead_and_end(request.format)
        pending = lead if request.framing != sampling_pb2.FRAMING_CONTINUE else b""
        row = header.start_row
        sent = 0
        if cut is not None and not cut.after and (yield from self.misbehave(cut, row, context)):
            return
        if pending and self.lead_alone:
            yield self.message(row, 0, pending)
            pending = b""
            sent += 1
        while row < header.end_row:
            if cut is not None and sent == cut.after:
                stop = yield from self.misbehave(cut, row, context)
                if stop:
                    return
            stop = min(row - row % GRID + GRID, header.end_row)
            data = pending + self.row_bytes(request.format, row, stop - row)
            pending = b""
            if stop == request.rows:
                data += end
            yield self.message(row, stop - row, data)
            sent += 1
            row = stop
        yield sampling_pb2.SampleResponse(
            summary=sampling_pb2.SampleSummary(
                candidates=2 * (row - header.start_row),
                accepted=row - header.start_row,
                rows_delivered=row - header.start_row,
                complete=True,
                next_row=row,
            )
        )

    def misbehave(self, cut, row, context):
        match cut.kind:
            case "abort":
                context.abort(cut.code, "Received RST_STREAM with error code 2")
            case "refuse":
                refuse(context, cut.code, cut.reason, "refused by the test", retry_after=cut.retry_after)
            case "crc":
                yield sampling_pb2.SampleResponse(
                    data=sampling_pb2.SampleData(first_row=row, row_count=1, data=b"x", crc32c=1)
                )
            case "gap":
                yield self.message(row + GRID, GRID, b"later")
            case "silent":
                return True
            case "early":
                yield sampling_pb2.SampleResponse(
                    summary=sampling_pb2.SampleSummary(candidates=10, accepted=5, complete=False, next_row=row)
                )
                return True
            case "kill":
                self.kill()
                context.abort(grpc.StatusCode.UNAVAILABLE, "killed")
        return True

    @staticmethod
    def message(first, count, data):
        return sampling_pb2.SampleResponse(
            data=sampling_pb2.SampleData(first_row=first, row_count=count, data=data, crc32c=google_crc32c.value(data))
        )

    def PlanSample(self, request, context):  # noqa: N802
        if request.sample.model.endswith("/nothing"):
            refuse(context, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", "there is no model nothing")
        header = self.header(request.sample)
        half = request.sample.rows // 2 // GRID * GRID
        first, second = sampling_pb2.SampleRequest(), sampling_pb2.SampleRequest()
        first.CopyFrom(request.sample)
        second.CopyFrom(request.sample)
        first.end_row = second.start_row = half
        second.framing = sampling_pb2.FRAMING_CONTINUE
        return sampling_pb2.PlanSampleResponse(
            header=header, parts=[first, second], acceptance=0.5, block_size=GRID // 2
        )

    def CompleteRows(self, requests, context):  # noqa: N802
        config = next(requests).config
        self.completions.append(config)
        if self.address:
            context.send_initial_metadata((("rowmint-replica", self.address),))
        cut = self.cuts.popleft() if self.cuts else None
        yield sampling_pb2.CompleteRowsResponse(
            header=sampling_pb2.SampleHeader(
                model_version=VERSION,
                model_digest=self.model,
                seed=config.seed if config.HasField("seed") else 77,
                schema=SCHEMA,
            )
        )
        index = config.start_row
        for sent, request in enumerate(requests):
            if cut is not None and sent == cut.after:
                for response in self.misbehave(cut, index, context):
                    if response.HasField("summary"):
                        yield sampling_pb2.CompleteRowsResponse(summary=response.summary)
                    else:
                        wrong = sampling_pb2.CompletedRow(row=response.data.first_row)
                        yield sampling_pb2.CompleteRowsResponse(rows=sampling_pb2.CompletedRows(rows=[wrong]))
                return
            rows = []
            for partial in request.rows.rows:
                known = partial.known
                made = {
                    "origin": value_pb2.Value(string_value="JFK"),
                    "dep_delay": value_pb2.Value(int64_value=index),
                    "arr_delay": value_pb2.Value(double_value=0.5),
                }
                values = [known[name] if name in known else made[name] for name in made]
                rows.append(
                    sampling_pb2.CompletedRow(row=index, values=values, effective_sample_size=12.5, tolerance=0.1)
                )
                index += 1
            yield sampling_pb2.CompleteRowsResponse(rows=sampling_pb2.CompletedRows(rows=rows))
        yield sampling_pb2.CompleteRowsResponse(summary=sampling_pb2.SampleSummary(complete=True, next_row=index))

    def GetModelVersion(self, request, context):  # noqa: N802
        if "nothing" in request.name:
            refuse(context, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", f"there is no {request.name}")
        return self.version()

    @staticmethod
    def version():
        return model_pb2.ModelVersion(
            name=VERSION,
            version=1,
            family="ctgan",
            schema=SCHEMA,
            model_digest=b"m" * 32,
            training_rows=1000,
            state=model_pb2.MODEL_VERSION_STATE_PUBLISHED,
        )

    def GetModel(self, request, context):  # noqa: N802
        return model_pb2.Model(name=request.name, latest_version=VERSION, aliases={"latest": 1})

    def ListModels(self, request, context):  # noqa: N802
        if not request.page_token:
            return model_service_pb2.ListModelsResponse(
                models=[model_pb2.Model(name="projects/default/models/a", latest_version=VERSION)], next_page_token="b"
            )
        return model_service_pb2.ListModelsResponse(models=[model_pb2.Model(name="projects/default/models/b")])

    def ListModelVersions(self, request, context):  # noqa: N802
        return model_service_pb2.ListModelVersionsResponse(model_versions=[self.version()])


def event(sequence, state=training_job_pb2.JOB_STATE_RUNNING, epoch=0, **fields):
    return training_job_pb2.TrainingEvent(
        sequence=sequence,
        attempt=1,
        state=state,
        phase=training_job_pb2.JOB_PHASE_FITTING,
        message=f"event {sequence}",
        progress=training_job_pb2.TrainingProgress(
            epoch=epoch, epochs=5, losses={"generator": 0.5 - epoch, "critic": 0.1}, rows_per_second=1000.0
        )
        if epoch
        else None,
        **fields,
    )


class FakeTrainer(
    dataset_service_pb2_grpc.DatasetServiceServicer,
    training_service_pb2_grpc.TrainingServiceServicer,
    model_admin_service_pb2_grpc.ModelAdminServiceServicer,
):
    """Keeps uploads in memory; `cuts` says after how many bytes the uploads to come break, one entry a stream."""

    segment = 1024 * 1024

    def __init__(self, cuts=(), watch_cuts=()):
        self.cuts = deque(cuts)
        self.watch_cuts = deque(watch_cuts)
        self.stored = {}
        self.datasets = {}
        self.writes = []
        self.created = []
        self.jobs = []
        self.watches = []
        self.deleted = []
        self.decided = []
        self.events = [event(1), *(event(1 + epoch, epoch=epoch) for epoch in range(1, 6))]
        self.events.append(event(7, training_job_pb2.JOB_STATE_SUCCEEDED, model_version=VERSION))
        self.outcome = training_job_pb2.JOB_STATE_SUCCEEDED
        self.ingest_polls = 2
        self.errors = []

    def CreateDataset(self, request, context):  # noqa: N802
        self.created.append(request)
        name = f"{request.parent}/datasets/{request.dataset_id or 'made'}"
        if request.dataset_id == "taken":
            refuse(context, grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS", f"{name} exists; choose another id")
        self.stored[name] = b""
        self.datasets[name] = dataset_pb2.Dataset(
            name=name, format=request.dataset.format, state=dataset_pb2.DATASET_STATE_UPLOADING
        )
        return self.datasets[name]

    def WriteDataset(self, requests, context):  # noqa: N802
        cut = self.cuts.popleft() if self.cuts else None
        name = ""
        for index, request in enumerate(requests):
            if not index:
                name = request.name
                self.writes.append(request.write_offset)
                received = self.stored[name]
                if cut is not None and cut.kind == "offset":
                    refuse(
                        context,
                        grpc.StatusCode.OUT_OF_RANGE,
                        "WRITE_OFFSET",
                        "a gap",
                        metadata={"committed_size": str(len(received))},
                    )
            if cut is not None and index == cut.after:
                # What filled no segment is lost with the stream.
                self.stored[name] = received[: len(received) // self.segment * self.segment]
                self.datasets[name].committed_size = len(self.stored[name])
                self.fail(cut, context, name)
            assert request.write_offset == len(received)
            if request.HasField("finish_write"):
                assert request.finish_write.total_size == len(received)
                assert request.finish_write.sha256 == hashlib.sha256(received).digest()
                self.stored[name] = received
                self.datasets[name].committed_size = len(received)
                self.datasets[name].state = dataset_pb2.DATASET_STATE_INGESTING
                if cut is not None and cut.kind == "lost-answer":
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
                return dataset_service_pb2.WriteDatasetResponse(dataset=self.datasets[name])
            assert google_crc32c.value(request.data) == request.crc32c
            received += request.data
        context.abort(grpc.StatusCode.CANCELLED, "half-closed")
        return None

    def fail(self, cut, context, name):
        if cut.kind == "refuse":
            refuse(context, cut.code, cut.reason, "refused by the test", retry_after=cut.retry_after)
        context.abort(cut.code, "Received RST_STREAM with error code 2")

    def GetDataset(self, request, context):  # noqa: N802
        if request.name not in self.datasets:
            refuse(context, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", f"there is no {request.name}")
        dataset = self.datasets[request.name]
        if dataset.state == dataset_pb2.DATASET_STATE_INGESTING:
            self.ingest_polls -= 1
            if self.ingest_polls <= 0:
                dataset.state = dataset_pb2.DATASET_STATE_FAILED if self.errors else dataset_pb2.DATASET_STATE_READY
                dataset.errors.extend(self.errors)
                dataset.row_count = 1000
                dataset.schema.CopyFrom(SCHEMA)
        return dataset

    def ListDatasets(self, request, context):  # noqa: N802
        return dataset_service_pb2.ListDatasetsResponse(datasets=list(self.datasets.values()))

    def DeleteDataset(self, request, context):  # noqa: N802
        self.deleted.append(request.name)
        return empty_pb2.Empty()

    def CreateTrainingJob(self, request, context):  # noqa: N802
        self.jobs.append(request)
        pac = request.training_job.config.ctgan.pac
        if pac and (request.training_job.config.ctgan.batch_size or 500) % pac:
            refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_FIELD",
                "training_job.config.ctgan.batch_size: must be divisible by pac",
                violations=[("training_job.config.ctgan.batch_size", "must be divisible by pac")],
            )
        job = training_job_pb2.TrainingJob()
        job.CopyFrom(request.training_job)
        if request.validate_only:
            return training_service_pb2.CreateTrainingJobResponse(
                training_job=job,
                estimate=training_job_pb2.TrainingEstimate(encoded_width=40, steps_per_epoch=10, total_seconds=3.0),
            )
        job.name = "projects/default/trainingJobs/j1"
        job.state = training_job_pb2.JOB_STATE_PENDING
        return training_service_pb2.CreateTrainingJobResponse(training_job=job)

    def job(self, state):
        return training_job_pb2.TrainingJob(
            name="projects/default/trainingJobs/j1",
            dataset="projects/default/datasets/d",
            model="projects/default/models/flights",
            state=state,
            model_version=VERSION if state == training_job_pb2.JOB_STATE_SUCCEEDED else "",
            error=training_job_pb2.JobError(reason="TRAINING_FAILED", message="a loss became infinite")
            if state == training_job_pb2.JOB_STATE_FAILED
            else None,
        )

    def GetTrainingJob(self, request, context):  # noqa: N802
        return self.job(self.outcome)

    def ListTrainingJobs(self, request, context):  # noqa: N802
        return training_service_pb2.ListTrainingJobsResponse(training_jobs=[self.job(self.outcome)])

    def CancelTrainingJob(self, request, context):  # noqa: N802
        return self.job(training_job_pb2.JOB_STATE_CANCELLING)

    def WatchTrainingJob(self, request, context):  # noqa: N802
        self.watches.append(request.after_sequence)
        cut = self.watch_cuts.popleft() if self.watch_cuts else None
        for sent, one in enumerate(event for event in self.events if event.sequence > request.after_sequence):
            if cut is not None and sent == cut.after:
                if cut.kind == "silent":
                    return
                if cut.kind == "gap":
                    continue
                self.fail(cut, context, "")
            yield one

    def SetModelAlias(self, request, context):  # noqa: N802
        return model_pb2.Model(name=request.model, latest_version=VERSION, aliases={request.alias: request.version})

    def PromoteModelVersion(self, request, context):  # noqa: N802
        self.decided.append((request.name, ""))
        return model_pb2.ModelVersion(name=request.name, state=model_pb2.MODEL_VERSION_STATE_PUBLISHED)

    def RejectModelVersion(self, request, context):  # noqa: N802
        self.decided.append((request.name, request.reason))
        return model_pb2.ModelVersion(
            name=request.name, state=model_pb2.MODEL_VERSION_STATE_REJECTED, rejection_reason=request.reason
        )

    def DeleteModelVersion(self, request, context):  # noqa: N802
        self.deleted.append(request.name)
        return empty_pb2.Empty()


class _Health(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        if handler_call_details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"\x08\x01")
        return None


class ReplicaReports(grpc.GenericRpcHandler):
    """What a replica reports to balancers: whether it serves (grpc.health.v1), and its load (ORCA)."""

    def __init__(self, utilization=0.5, rate=10.0):
        self.report = b"\x49" + struct.pack("<d", utilization) + b"\x31" + struct.pack("<d", rate)
        self.watches = []
        self.changed = threading.Condition()
        self.serving = True

    def service(self, handler_call_details):
        if handler_call_details.method == "/grpc.health.v1.Health/Watch":
            return grpc.unary_stream_rpc_method_handler(self.watch)
        if handler_call_details.method == "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics":
            return grpc.unary_stream_rpc_method_handler(self.load)
        return None

    def turn(self, *, serving):
        with self.changed:
            self.serving = serving
            self.changed.notify_all()

    def watch(self, request, context):
        self.watches.append(request)
        context.add_callback(self.wake)
        while context.is_active():
            serving = self.serving
            yield b"\x08\x01" if serving else b"\x08\x02"
            with self.changed:
                self.changed.wait_for(lambda serving=serving: self.serving != serving or not context.is_active())

    def load(self, _request, context):
        context.add_callback(self.wake)
        while context.is_active():
            yield self.report
            with self.changed:
                self.changed.wait_for(lambda: not context.is_active(), timeout=0.2)

    def wake(self):
        with self.changed:
            self.changed.notify_all()


def start(servicer, address="127.0.0.1:0"):
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4 * 1024 * 1024)],
    )
    if isinstance(servicer, FakeTrainer):
        dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(servicer, server)
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(servicer, server)
        model_admin_service_pb2_grpc.add_ModelAdminServiceServicer_to_server(servicer, server)
    else:
        sampling_service_pb2_grpc.add_SamplingServiceServicer_to_server(servicer, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
        if servicer.reports is not None:
            server.add_generic_rpc_handlers((servicer.reports,))
    server.add_generic_rpc_handlers((_Health(),))
    port = server.add_insecure_port(address)
    server.start()
    if isinstance(servicer, FakeSampler):
        servicer.kill = lambda: server.stop(0)
        servicer.address = f"127.0.0.1:{port}"
    return server, f"127.0.0.1:{port}"


@dataclass
class Services:
    trainer: FakeTrainer
    samplers: list[FakeSampler]
    trainer_address: str
    sampler_addresses: list[str]
    waits: list[float] = field(default_factory=list)

    @property
    def sampler_address(self):
        return ",".join(self.sampler_addresses)


@contextmanager
def services(trainer=None, samplers=None):
    trainer = FakeTrainer() if trainer is None else trainer
    samplers = [FakeSampler()] if samplers is None else samplers
    servers = []
    try:
        server, trainer_address = start(trainer)
        servers.append(server)
        addresses = []
        for sampler in samplers:
            server, address = start(sampler)
            servers.append(server)
            addresses.append(address)
        yield Services(trainer, samplers, trainer_address, addresses)
    finally:
        for server in servers:
            server.stop(0).wait(5)


def alike(cuts=(), count=2, **options):
    """Samplers of which it does not matter which is called: they share how calls fail, and the list of requests."""
    made = [FakeSampler(**options) for _ in range(count)]
    shared = deque(cuts)
    for one in made:
        one.cuts, one.requests, one.completions = shared, made[0].requests, made[0].completions
    return made


class DemoSampler(FakeSampler):
    """Rows that satisfy the demo's conditions, in the columns it compares."""

    def lead_and_end(self, format_):
        return b"origin,carrier,dep_delay,arr_delay,distance\n", b""

    def row_bytes(self, format_, first, count):
        rows = range(first, first + count)
        return "".join(f"JFK,B6,{61 + row % 200},{row % 300},{row}.5\n" for row in rows).encode()
