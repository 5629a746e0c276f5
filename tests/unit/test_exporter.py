"""Metrics over HTTP: what is served, where, and for which processes."""

import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from rowmint.errors import UnavailableError
from rowmint.observability.exporter import (
    MAX_CONNECTIONS,
    every_client,
    mark_dead,
    serve_metrics,
    shared_registry,
)
from tests.waiting import PATIENCE, wait_until


@pytest.fixture
def registry():
    found = CollectorRegistry()
    Counter("apples", "Apples.", ["kind"], registry=found).labels("red").inc(3)
    return found


@pytest.fixture
def server(registry):
    found = serve_metrics("127.0.0.1:0", registry, None, every_client)
    yield found
    found.close()


def fetch(port, path="/metrics", **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers, answer.read()


def samples(body):
    families = text_string_to_metric_families(body.decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_metrics_are_served_as_prometheus_reads_them(server):
    headers, body = fetch(server.port)
    assert headers["Content-Type"].startswith("text/plain")
    assert samples(body) == {("apples_total", "red"): 3.0}


def test_openmetrics_and_gzip_are_served_on_request(server, registry):
    headers, body = fetch(
        server.port, Accept="application/openmetrics-text; version=1.0.0", **{"Accept-Encoding": "gzip"}
    )
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"# EOF\n")
    assert b'apples_total{kind="red"} 3.0' in gzip.decompress(body)
    assert b"apples_total" in generate_latest(registry)


@pytest.mark.parametrize("path", ["/", "/metricsandmore", "/../etc/passwd"])
def test_there_is_nothing_else(server, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(server.port, path)
    assert caught.value.code == 404
    caught.value.close()


def test_a_silent_client_delays_no_other(server):
    with socket.create_connection(("127.0.0.1", server.port)):
        assert fetch(server.port)[1]


def test_silent_clients_take_a_bounded_number_of_threads(server):
    def connected():
        return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)

    with contextlib.ExitStack() as silent:
        for _ in range(MAX_CONNECTIONS):
            silent.enter_context(connected())
        with connected() as one_more:
            assert one_more.recv(1) == b""

    def served():
        try:
            return bool(fetch(server.port)[1])
        except OSError:
            return False

    wait_until(served, "a scrape once they have gone")


class Refuses(Collector):
    """Does nothing before it is called, and fails then."""

    def __init__(self, error):
        self.error = error

    def describe(self):
        return ()

    def collect(self):
        raise self.error


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (ZeroDivisionError(), ["a scrape failed"]),
        (OSError(28, "no space"), ["a scrape failed"]),
        (BrokenPipeError(), []),
        (ConnectionResetError(), []),
        (TimeoutError(), []),
    ],
)
def test_only_errors_other_than_a_closed_connection_are_logged(server, registry, error, reported):
    refuses = Refuses(error)
    registry.register(refuses)
    with structlog.testing.capture_logs() as lines, pytest.raises(OSError, match="without response"):
        fetch(server.port)
    # A connection is closed after what there is to say is said.
    registry.unregister(refuses)
    assert fetch(server.port)[1]
    assert [line["event"] for line in lines] == reported
    assert [line["exc_info"] for line in lines] == [error] * len(reported)


def test_a_port_is_given_back(registry):
    first = serve_metrics("127.0.0.1:0", registry, None, every_client)
    first.close()
    second = serve_metrics(f"127.0.0.1:{first.port}", registry, None, every_client)
    assert second.port == first.port
    second.close()


def test_an_address_of_ipv6_is_served(registry):
    server = serve_metrics("[::1]:0", registry, None, every_client)
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.port}/metrics", timeout=20) as answer:
            assert b"apples_total" in answer.read()
    finally:
        server.close()


@pytest.mark.parametrize(
    "listen", ["{taken}", "256.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:x", "nonsense", "192.0.2.1:0"]
)
def test_an_address_that_cannot_be_served_is_refused(server, registry, listen):
    with pytest.raises(UnavailableError, match="ROWMINT_METRICS_LISTEN must be a free host:port of this machine"):
        serve_metrics(listen.format(taken=f"127.0.0.1:{server.port}"), registry, None, every_client)


PROCESS = """
import json, os, sys
from sampler_service import metrics
metrics.rows_sent("p", "csv", int(sys.argv[1]))
metrics.show(streams=lambda: float(sys.argv[1]), utilization=lambda: float(sys.argv[1]) / 10)
import asyncio
async def once():
    task = asyncio.create_task(metrics.keep_fresh())
    await asyncio.sleep(0)
    task.cancel()
asyncio.run(once())
print(json.dumps(os.getpid()), flush=True)
sys.stdin.read()
"""


def test_processes_are_counted_together_and_ended_ones_are_not_live(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(number)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in (3, 5)
    ]
    pids = [json.loads(process.stdout.readline()) for process in started]
    server = serve_metrics("127.0.0.1:0", shared_registry(str(tmp_path)), None, every_client)
    try:
        found = samples(fetch(server.port)[1])
        assert found["rowmint_rows_sent_total", "p", "csv"] == 8
        assert found["rowmint_streams",] == 8
        assert found["rowmint_utilization",] == 0.5
        started[1].communicate()
        mark_dead(pids[1], str(tmp_path))
        found = samples(fetch(server.port)[1])
        assert found["rowmint_rows_sent_total", "p", "csv"] == 8
        assert found["rowmint_streams",] == 3
        assert found["rowmint_utilization",] == 0.3
    finally:
        for process in started:
            process.communicate()
        server.close()
