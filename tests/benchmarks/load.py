"""Load on samplers, from a process of its own: `python -m tests.benchmarks.load TARGET SECONDS VERSION=STREAMS ...`.

As many streams at once as requested, of 20,000 rows each in Arrow, one after another; prints what came as JSON.
TARGET is a gRPC target: an address, or `ipv4:a,b` for calls that take replicas in turn.
"""

import json
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field

import grpc

from rowmint.client.balancing import service_config
from rowmint.v1 import sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

ROWS = 20_000
_STREAMS_A_CHANNEL = 8
_WARM_SECONDS = 1.5


@dataclass
class Counts:
    """What one stream after another gave, once warm: rows, failed calls, and seconds to each one's first rows."""

    rows: int = 0
    failed: int = 0
    first: list[float] = field(default_factory=list)


def stream_on(channel: grpc.Channel, version: str, begin: float, end: float, counts: Counts) -> None:
    """Sample again and again until `end`, by the monotonic clock; count from `begin` on."""
    stub = SamplingServiceStub(channel)
    seed = 0
    while time.monotonic() < end:
        seed += 1
        request = sampling_pb2.SampleRequest(model=version, rows=ROWS, seed=seed)
        requested, first = time.monotonic(), 0.0
        try:
            for response in stub.Sample(request, timeout=60):
                now = time.monotonic()
                rows = response.data.row_count if response.HasField("data") else 0
                if rows and not first:
                    first = now
                    # One that was requested in time is waited for, however long that takes: the slow ones count most.
                    if requested > begin:
                        counts.first.append(now - requested)
                if now > end and first:
                    break
                counts.rows += rows if begin < now < end else 0
        except grpc.RpcError:
            counts.failed += 1


def run(target: str, seconds: float, requested: dict[str, int]) -> dict[str, dict[str, float]]:
    """Load `target` and return rows a second, and first-row times in milliseconds, by version."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", service_config("round_robin"))]
    streams = sum(requested.values())
    channels = [grpc.insecure_channel(target, options) for _ in range(-(-streams // _STREAMS_A_CHANNEL))]
    begin = time.monotonic() + _WARM_SECONDS
    found: dict[str, list[Counts]] = {version: [] for version in requested}
    threads = []
    for version, many in requested.items():
        for number in range(many):
            found[version].append(Counts())
            arguments = (channels[number % len(channels)], version, begin, begin + seconds, found[version][-1])
            threads.append(threading.Thread(target=stream_on, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for channel in channels:
        channel.close()
    return {version: reported(several, seconds) for version, several in found.items()}


def reported(several: list[Counts], seconds: float) -> dict[str, float]:
    first = sorted(1000 * one for counts in several for one in counts.first)
    cuts = statistics.quantiles(first, n=100) if len(first) > 1 else first * 99
    return {
        "rows_per_second": sum(counts.rows for counts in several) / seconds,
        "failed": sum(counts.failed for counts in several),
        "streams": len(first),
        "p50": cuts[49] if cuts else 0.0,
        "p99": cuts[98] if cuts else 0.0,
    }


if __name__ == "__main__":
    target, seconds, *versions = sys.argv[1:]
    wanted = {name: int(many) for name, many in (one.rsplit("=", 1) for one in versions)}
    print(json.dumps(run(target, float(seconds), wanted)))
