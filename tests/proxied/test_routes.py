"""Envoy as it runs: what it limits, how it finds replicas, what it shows and what it traces."""

import json
import signal
import threading
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.parser import text_string_to_metric_families

from rowmint.client import Client
from rowmint.v1 import model_service_pb2
from rowmint.v1.model_service_pb2_grpc import ModelServiceStub
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from tests.faults.golden_home import golden_request, golden_version
from tests.faults.process_figures import wait_until_idle
from tests.faults.raw_streams import Undisturbed, opened
from tests.proxied.deployment import Deployment
from tests.waiting import PATIENCE, wait_until

STREAMS = 40
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def settings(two: Deployment) -> dict[str, Any]:
    """What Envoy says it runs with."""
    dump = json.loads(two.requested("/config_dump"))["configs"]
    (bootstrap,) = [one["bootstrap"] for one in dump if "bootstrap" in one]
    return bootstrap["static_resources"]


def ask(channel: grpc.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> None:
    request = model_service_pb2.GetModelRequest(name=golden_version("ctgan").rpartition("/versions/")[0])
    ModelServiceStub(channel).GetModel(request, metadata=metadata, timeout=PATIENCE)


def replica_of(channel: grpc.Channel, request: Any) -> str:
    """Return which replica serves a stream that is read to its end."""
    call = SamplingServiceStub(channel).Sample(request, timeout=60)
    for _ in call:
        pass
    return dict(call.initial_metadata())["rowmint-replica"]


def test_no_stream_has_an_end_in_time(two: Deployment, settings: dict[str, Any]) -> None:
    (listener,) = [one for one in settings["listeners"] if one["name"] == "rowmint"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    routes = [route["route"] for route in host["routes"] if "route" in route]
    assert len(routes) == 9
    assert {route["timeout"] for route in routes} == {"0s"}
    assert "max_stream_duration" not in manager["common_http_protocol_options"]
    assert manager["stream_idle_timeout"] == "300s"
    assert two.figure("cluster.samplers.upstream_rq_timeout") == 0


def test_limits_are_not_defaults(two: Deployment) -> None:
    reported = json.loads(two.requested("/clusters?format=json"))["cluster_statuses"]
    for name in ("samplers", "trainers"):
        (cluster,) = [one for one in reported if one["name"] == name]
        (usual,) = [one for one in cluster["circuit_breakers"]["thresholds"] if "priority" not in one]
        assert usual["max_requests"] == 16_384
        assert usual["max_pending_requests"] == 4_096


def test_new_replicas_are_found_and_removed_ones_are_dropped(deployment: Deployment) -> None:
    first = deployment.sampler()
    deployment.start_envoy()
    second = deployment.sampler()
    wait_until(lambda: deployment.healthy("samplers") == ["127.0.0.2", "127.0.0.3"], "Envoy finding the second")
    deployment.set_name("sampler", ["127.0.0.3"])
    assert first.terminate() == 0
    wait_until(lambda: list(deployment.hosts("samplers")) == ["127.0.0.3"], "Envoy to drop the first")
    with grpc.insecure_channel(deployment.address) as channel:
        for _ in range(4):
            request = golden_request(second.address, 100)
            assert replica_of(channel, request) == "127.0.0.3:7402"


def test_streams_are_spread(two: Deployment) -> None:
    with grpc.insecure_channel(two.address) as channel, Client(two.address, two.address) as client:
        version = client.get_version(golden_version("ctgan"))
        request = client.sample_request(version, 10**6, seed=3, message_bytes=16 * 1024)
        calls, replicas = [], []
        for _ in range(STREAMS):
            calls.append(SamplingServiceStub(channel).Sample(request, timeout=60))
            # One after another: Envoy counts a stream only once it has a connection, and before the first it has none.
            replicas.append(dict(calls[-1].initial_metadata())["rowmint-replica"])
        for call in calls:
            call.cancel()
    counts = sorted(replicas.count(one) for one in set(replicas))
    # The less busy of two drawn at random, with replacement: even without regard to load, fewer than 5 of 40 at one are
    # seen once in five million times.
    assert sum(counts) == STREAMS
    assert len(counts) == 2
    assert counts[0] >= 5


def test_a_replica_that_drains_gets_no_new_stream(deployment: Deployment) -> None:
    ending = deployment.sampler(ROWMINT_GRACE_SECONDS="600", ROWMINT_WRITE_TIMEOUT="3600")
    staying = deployment.sampler()
    deployment.start_envoy()
    whole = Undisturbed(staying.address)
    request = golden_request(staying.address, 5_000)
    with opened(ending.address, golden_request(staying.address, 10**7)) as held:
        assert next(held).HasField("header")
        wait_until_idle(ending.pid, "the sampler waiting for its reader")
        ending.process.send_signal(signal.SIGTERM)
        ending.wait_until_draining()
        # From the first moment on, whether Envoy knows or not: nothing fails, and rows come from the other.
        with Client(deployment.address, deployment.address) as client:
            for _ in range(8):
                assert b"".join(client.sample_stream(request).chunks()) == whole.data(request)
        wait_until(lambda: deployment.healthy("samplers") == ["127.0.0.3"], "Envoy finding one healthy")
        assert ending.process.poll() is None
        with grpc.insecure_channel(deployment.address) as channel:
            assert {replica_of(channel, request) for _ in range(8)} == {"127.0.0.3:7402"}
        ending.process.send_signal(signal.SIGTERM)
        assert ending.process.wait(PATIENCE) == 0


def test_reflection_lists_the_samplers_services(two: Deployment) -> None:
    with grpc.insecure_channel(two.address) as channel:
        reported = ProtoReflectionDescriptorDatabase(channel)
        assert {"rowmint.v1.SamplingService", "rowmint.v1.ModelService"} <= set(reported.get_services())
        sample = DescriptorPool(reported).FindServiceByName("rowmint.v1.SamplingService").FindMethodByName("Sample")
    assert sample.GetOptions().Extensions[annotations_pb2.http].post.endswith(":sample")


def test_figures_are_shown_and_nothing_else(two: Deployment) -> None:
    with grpc.insecure_channel(two.address) as channel:
        ask(channel)
    with urlopen(f"http://{two.figures}/stats/prometheus", timeout=PATIENCE) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    healthy = {
        sample.labels["envoy_cluster_name"]: sample.value
        for sample in families["envoy_cluster_membership_healthy"].samples
    }
    assert healthy["samplers"] == 2
    (requested,) = families["envoy_cluster_grpc"].samples
    assert requested.labels == {"envoy_cluster_name": "samplers"}
    assert requested.value >= 1
    with urlopen(f"http://{two.figures}/ready", timeout=PATIENCE) as answer:
        assert answer.read() == b"LIVE\n"
    for path, method in (
        ("/", "GET"),
        ("/config_dump", "GET"),
        ("/stats", "GET"),
        ("/stats/prometheus/../../config_dump", "GET"),
        ("/quitquitquit", "POST"),
        ("/stats/prometheus", "POST"),
        ("/ready", "DELETE"),
    ):
        with pytest.raises(HTTPError) as raised:
            urlopen(Request(f"http://{two.figures}{path}", method=method), timeout=PATIENCE)
        with raised.value as refused:
            assert refused.code == 404, path


@pytest.mark.parametrize("flags", ["00", "01"])
def test_tracing_does_no_harm_without_a_collector(two: Deployment, flags: str) -> None:
    with grpc.insecure_channel(two.address) as channel:
        threads = [
            threading.Thread(target=ask, args=(channel, (("traceparent", f"00-{TRACE}-{CALLER}-{flags}"),)))
            for _ in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        ask(channel)
    assert two.figure("cluster.otel.membership_total") == 0


def test_spans_of_callers_who_trace_reach_the_collector(deployment: Deployment) -> None:
    deployment.sampler()
    spans = deployment.collector()
    deployment.start_envoy()
    with grpc.insecure_channel(deployment.address) as channel:
        ask(channel)
        ask(channel, (("traceparent", f"00-{'1' * 32}-{CALLER}-00"),))
        ask(channel, (("traceparent", f"00-{TRACE}-{CALLER}-01"),))
        wait_until(lambda: TRACE in spans.read_text(), "the span's arrival")
    found = [json.loads(line) for line in spans.read_text().splitlines()]
    assert {span["trace_id"] for span in found} == {TRACE}
    (outermost,) = [span for span in found if span["parent"] == CALLER]
    assert outermost["service"] == "rowmint-envoy"
