"""A fake sampler, whose calls fail as a test says."""

from collections import deque

import google_crc32c
import grpc

from rowmint.v1 import (
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    sampling_pb2,
    sampling_service_pb2_grpc,
    value_pb2,
)
from tests.unit.fake_failures import refuse
from tests.unit.fake_rows import GRID, SCHEMA, VERSION, lead_and_end, row_bytes


class FakeSampler(sampling_service_pb2_grpc.SamplingServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """Deterministic rows; `cuts` says how the next calls fail, one entry for each call, None for one that succeeds.

    A format's header comes with the first rows, or before them in `lead_pieces` messages.
    """

    def __init__(self, cuts=(), lead_pieces=0, plan=b"p" * 32, model=b"m" * 32):
        self.cuts = deque(cuts)
        self.lead_pieces = lead_pieces
        self.plan = plan
        self.model = model
        self.requests = []
        self.completions = []
        self.scorings = []
        self.address = ""
        self.peers = set()
        self.reports = None
        self.before_ranges = False
        self.full = 0
        self.manifest = ""
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
            rows_per_candidate=request.max_reuse or 1,
            distinct_candidates=-(-request.rows // (request.max_reuse or 1)),
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
        header = self.header(request)
        lead = self.missing_lead(request, header, context)
        cut = self.cut_of(request)
        yield sampling_pb2.SampleResponse(header=header)
        row = header.start_row
        if cut is not None and not cut.after and (yield from self.misbehave(cut, row, context)):
            return
        sent = 0
        for message in self.messages(request, header, lead):
            if cut is not None and sent == cut.after and (yield from self.misbehave(cut, row, context)):
                return
            yield message
            sent += 1
            row = message.data.first_row + message.data.row_count
        if cut is not None and sent == cut.after and (yield from self.misbehave(cut, row, context)):
            return
        yield sampling_pb2.SampleResponse(
            summary=sampling_pb2.SampleSummary(
                candidates=2 * (row - header.start_row),
                accepted=row - header.start_row,
                rows_delivered=row - header.start_row,
                complete=True,
                next_row=row,
                distinct_candidates=row - header.start_row,
                rows_per_candidate=1,
            )
        )

    def missing_lead(self, request, header, context):
        """Return what the caller has not received of the format's header; refuse what a sampler refuses."""
        lead, _ = self.lead_and_end(request.format)
        resumed = request.framing == sampling_pb2.FRAMING_RESUME
        if resumed != request.HasField("received_bytes") or request.received_bytes < 0:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "received_bytes: is wrong")
        continued = request.framing == sampling_pb2.FRAMING_CONTINUE
        aligned = not header.start_row % GRID or header.start_row == header.end_row
        if (continued and not header.start_row) or ((continued or request.received_bytes > len(lead)) and not aligned):
            refuse(context, grpc.StatusCode.OUT_OF_RANGE, "ROW_RANGE", "start_row: is wrong")
        return b"" if continued else lead[request.received_bytes :]

    def messages(self, request, header, lead):
        """Yield the messages of a stream between its header and its summary."""
        row = header.start_row
        piece = -(-len(lead) // self.lead_pieces) if self.lead_pieces else 0
        while piece and lead:
            yield self.message(row, 0, lead[:piece])
            lead = lead[piece:]
        while row < header.end_row:
            stop = min(row - row % GRID + GRID, header.end_row)
            data = lead + self.row_bytes(request.format, row, stop - row)
            lead = b""
            if stop == request.rows:
                data += self.lead_and_end(request.format)[1]
            yield self.message(row, stop - row, data)
            row = stop

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
        if self.full:
            self.full -= 1
            refuse(context, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "no room for a plan", retry_after=0.01)
        header = self.header(request.sample)
        half = request.sample.rows // 2 // GRID * GRID
        first, second = sampling_pb2.SampleRequest(), sampling_pb2.SampleRequest()
        first.CopyFrom(request.sample)
        second.CopyFrom(request.sample)
        first.end_row = second.start_row = half
        second.end_row = header.end_row
        second.framing = sampling_pb2.FRAMING_CONTINUE
        ranges = [
            sampling_pb2.RowRange(start_row=start, end_row=stop) for start, stop in ((0, half), (half, header.end_row))
        ]
        return sampling_pb2.PlanSampleResponse(
            header=header,
            parts=[] if request.ranges_only and not self.before_ranges else [first, second],
            acceptance=0.5,
            condition_probability=None if self.before_ranges else 0.25,
            block_size=GRID // 2,
            ranges=[] if self.before_ranges else ranges,
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
                plan_digest=self.plan,
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
                    sampling_pb2.CompletedRow(
                        row=index,
                        values=values,
                        effective_sample_size=12.5,
                        tolerance=0.1,
                        support=sampling_pb2.COMPLETION_SUPPORT_WIDENED,
                    )
                )
                index += 1
            yield sampling_pb2.CompleteRowsResponse(rows=sampling_pb2.CompletedRows(rows=rows))
        yield sampling_pb2.CompleteRowsResponse(summary=sampling_pb2.SampleSummary(complete=True, next_row=index))

    def ScoreRows(self, requests, context):  # noqa: N802
        """Score each row by its number of known cells; one without any is impossible."""
        config = next(requests).config
        self.scorings.append(config)
        cut = self.cuts.popleft() if self.cuts else None
        header = sampling_pb2.SampleHeader(model_version=VERSION, model_digest=self.model, schema=SCHEMA)
        yield sampling_pb2.ScoreRowsResponse(header=header)
        index = config.start_row
        for sent, request in enumerate(requests):
            if cut is not None and sent == cut.after:
                for response in self.misbehave(cut, index, context):
                    if response.HasField("summary"):
                        yield sampling_pb2.ScoreRowsResponse(summary=response.summary)
                    else:
                        wrong = sampling_pb2.RowScore(row=response.data.first_row)
                        yield sampling_pb2.ScoreRowsResponse(rows=sampling_pb2.ScoredRows(scores=[wrong]))
                return
            scores = [
                sampling_pb2.RowScore(
                    row=index + place, log_probability=-0.5 * len(row.known), impossible=not row.known
                )
                for place, row in enumerate(request.rows.rows)
            ]
            index += len(scores)
            yield sampling_pb2.ScoreRowsResponse(rows=sampling_pb2.ScoredRows(scores=scores))
        yield sampling_pb2.ScoreRowsResponse(summary=sampling_pb2.SampleSummary(complete=True, next_row=index))

    def GetModelVersion(self, request, context):  # noqa: N802
        if "nothing" in request.name:
            refuse(context, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", f"there is no {request.name}")
        return self.version()

    def version(self):
        return model_pb2.ModelVersion(
            name=VERSION,
            version=1,
            family="circuit",
            capabilities=model_pb2.Capabilities(conditions=model_pb2.CONDITION_SUPPORT_EXACT, likelihood=True),
            schema=SCHEMA,
            model_digest=b"m" * 32,
            training_rows=1000,
            manifest_json=self.manifest,
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


class DemoSampler(FakeSampler):
    """Flights that satisfy the demo's conditions, in the columns that it makes figures of."""

    columns = "origin,dest,carrier,dep_time,sched_dep_time,arr_time,sched_arr_time,hour,dep_delay,arr_delay,distance"

    def lead_and_end(self, format_):
        return f"{self.columns}\n".encode(), b""

    def row_bytes(self, format_, first, count):
        rows = range(first, first + count)
        return "".join(f"JFK,LAX,B6,2096,1900,100,30,19,{61 + row % 200},{row % 300},2475\n" for row in rows).encode()


def alike(cuts=(), count=2, **options):
    """Samplers of which it does not matter which is called: they share how calls fail, and the list of requests."""
    made = [FakeSampler(**options) for _ in range(count)]
    shared = deque(cuts)
    for one in made:
        one.cuts, one.requests, one.completions = shared, made[0].requests, made[0].completions
        one.scorings = made[0].scorings
    return made
