"""One trace across the command, the services, and the worker of a job."""

import json
import os
import subprocess
import sys

import pytest

from tests.acceptance.processes import ROOT, Services, refused_start
from tests.observability.collector import Span
from tests.observability.conftest import CITY, PROJECT, REQUESTED, Watched

INTERNAL, SERVER, CLIENT = 1, 2, 3
CREATE = "rowmint.v1.TrainingService/CreateTrainingJob"
SAMPLE = "rowmint.v1.SamplingService/Sample"


def whole_trace(watched: Watched, root: str, last: str) -> list[Span]:
    """Return the first trace whose root has a name, once a service's span that ends after the others has come."""

    def found(spans: list[Span]) -> list[Span]:
        traces = [span.trace for span in spans if span.name == root and not span.parent]
        members = [span for span in spans if span.trace in traces[:1]]
        return members if any(span.name == last and span.kind != CLIENT for span in members) else []

    return watched.collector.wait(found, f"a trace of {root!r} with {last!r}")


def parent_of(span: Span, trace: list[Span]) -> Span:
    (found,) = (other for other in trace if other.id == span.parent)
    return found


def test_a_job_is_one_trace_from_the_command_to_the_phases_of_its_worker(watched: Watched):
    trace = whole_trace(watched, "rowmint train", "train attempt")
    (attempt,) = (span for span in trace if span.name == "train attempt")
    created = parent_of(attempt, trace)
    assert (created.service, created.name, created.kind) == ("rowmint-trainer", CREATE, SERVER)
    called = parent_of(created, trace)
    assert (called.service, called.name, called.kind) == ("rowmint-client", CREATE, CLIENT)
    command = parent_of(called, trace)
    assert (command.service, command.name, command.parent) == ("rowmint-client", "rowmint train", "")

    phases = [span for span in trace if span.parent == attempt.id]
    assert [span.name for span in phases] == ["fetching", "encoding", "fitting", "verifying", "publishing"]
    assert {span.service for span in [attempt, *phases]} == {"rowmint-trainer"}
    assert attempt.attributes["rowmint.job"].startswith(f"projects/{PROJECT}/trainingJobs/")
    assert attempt.attributes["rowmint.attempt"] == 1
    assert attempt.attributes["rowmint.state"] == "SUCCEEDED"
    assert attempt.attributes["rowmint.model_version"] == 1
    assert not attempt.failed
    # Every call of the command is in it, at both of its ends.
    for span in trace:
        if span.kind == SERVER and span.service == "rowmint-trainer":
            assert parent_of(span, trace).kind == CLIENT
            assert span.attributes["rpc.system"] == "grpc"
            assert f"{span.attributes['rpc.service']}/{span.attributes['rpc.method']}" == span.name
            assert span.attributes["rpc.grpc.status_code"] in (0, 1), span


def test_the_spans_of_a_stream_have_version_and_rows_and_no_condition(watched: Watched):
    trace = whole_trace(watched, "rowmint sample", SAMPLE)
    sent = [span for span in trace if span.name == SAMPLE and span.kind == SERVER]
    assert len(sent) == 1
    assert sent[0].service == "rowmint-sampler"
    assert sent[0].attributes["rowmint.rows"] == REQUESTED
    assert sent[0].attributes["rowmint.outcome"] == "complete"
    assert sent[0].attributes["rowmint.model_version"].startswith(f"projects/{PROJECT}/models/customers/versions/")
    requested = parent_of(sent[0], trace)
    assert (requested.service, requested.kind, requested.attributes["rowmint.rows"]) == (
        "rowmint-client",
        CLIENT,
        REQUESTED,
    )
    reported = repr(watched.collector.wait(lambda spans: spans, "spans"))
    assert CITY not in reported
    assert "Samarkand" not in reported


def test_a_refused_call_has_its_status_and_no_server_fault(watched: Watched):
    def refused(spans: list[Span]) -> list[Span]:
        return [span for span in spans if span.name == SAMPLE and span.attributes.get("rpc.grpc.status_code") == 3]

    (span,) = watched.collector.wait(refused, "the refused call")
    assert (span.kind, span.failed) == (SERVER, False)


def test_health_checks_make_no_traces(watched: Watched):
    names = {span.name for span in watched.collector.wait(lambda spans: spans, "spans")}
    assert not {name for name in names if name.startswith("grpc.health")}


def test_a_resumed_stream_is_one_span_with_an_event_for_each_resumption(watched: Watched):
    # A message at least is delivered by each attempt: these are fewer than the 128 events that a span holds at most.
    services = Services(watched.services.home)
    try:
        sampler = services.sampler(
            OTEL_EXPORTER_OTLP_ENDPOINT=watched.collector.endpoint, ROWMINT_MAX_STREAM_SECONDS="0.05"
        )
        done = watched.command(
            *("--sampler", sampler.address, "sample", "customers", "-n", "500000", "--seed", "1", "--json"),
            *("--output", "many.csv"),
        )
    finally:
        services.close()
    resumes = json.loads(done)["resumes"]
    assert resumes > 0

    def resumed(spans: list[Span]) -> list[Span]:
        return [span for span in spans if span.name == SAMPLE and span.kind == CLIENT and span.events]

    (stream,) = watched.collector.wait(resumed, "the resumed stream")
    assert [name for name, _ in stream.events] == ["resumed"] * resumes
    rows = [attributes["rowmint.next_row"] for _, attributes in stream.events]
    assert rows == sorted(rows)
    assert stream.attributes["rowmint.rows"] == 500_000

    def attempts(spans: list[Span]) -> list[Span]:
        found = [span for span in spans if span.parent == stream.id]
        return found if len(found) == resumes + 1 else []

    outcomes = [
        attempt.attributes["rowmint.outcome"]
        for attempt in watched.collector.wait(attempts, "every call of the stream")
    ]
    assert sorted(outcomes) == ["complete"] + ["max_duration"] * resumes


def test_the_parts_of_a_stream_read_at_once_belong_to_the_trace_of_their_reader(watched: Watched):
    many = ("sample", "customers", "-n", "200000", "--seed", "2", "--parallel", "3", "--output", "parts.csv", "--json")
    watched.command(*many)

    def parts(spans: list[Span]) -> list[Span]:
        roots = {span.trace: span.id for span in spans if span.name == "rowmint sample"}
        calls = [span for span in spans if span.name == SAMPLE and span.kind == CLIENT and span.trace in roots]
        for trace, root in roots.items():
            found = [span for span in calls if span.trace == trace]
            if len(found) > 1 and sum(span.attributes.get("rowmint.rows", 0) for span in found) == 200_000:
                return [span for span in found if span.parent == root]
        return []

    found = watched.collector.wait(parts, "the parts")
    assert sum(span.attributes["rowmint.rows"] for span in found) == 200_000


def test_rows_that_are_completed_are_one_span(watched: Watched):
    (watched.services.home / "known.csv").write_text(f"city\n{CITY}\n{CITY}\n")
    watched.command("complete", "customers", "known.csv", "--seed", "1", "--json")
    complete = "rowmint.v1.SamplingService/CompleteRows"
    trace = whole_trace(watched, "rowmint complete", complete)

    def server(spans: list[Span]) -> list[Span]:
        return [
            span
            for span in spans
            if span.name == complete and span.kind == SERVER and "rowmint.rows" in span.attributes
        ]

    (served,) = watched.collector.wait(server, "the call that completes")
    (requested,) = (span for span in trace if span.name == complete and span.kind == CLIENT)
    assert (served.parent, served.attributes["rowmint.rows"], requested.attributes["rowmint.rows"]) == (
        requested.id,
        2,
        2,
    )


HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.parametrize("module", ["trainer_service", "sampler_service"])
def test_traces_without_opentelemetry_are_refused_in_one_line(module, tmp_path):
    run = f"{HIDDEN}\nimport runpy; sys.argv = [{module!r}]; runpy.run_module({module!r}, run_name='__main__')"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    last = refused_start(tmp_path, "-c", run, **environment).splitlines()[-1]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT enables tracing" in last
    assert "rowmint[tracing]" in last


def test_an_unknown_trace_exporter_is_refused(tmp_path):
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    last = refused_start(tmp_path, "-m", "sampler_service", **environment).splitlines()[-1]
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in last


def test_without_traces_nothing_of_opentelemetry_is_loaded(tmp_path):
    code = (
        "import sys; import rowmint.client, sampler_service.__main__, trainer_service.jobs.worker;"
        "from rowmint.observability.tracing import configure_tracing; assert configure_tracing('x') is None;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
