"""Requests for plans that are small and ask for much: answered, or refused, in little memory, over the wire."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from rowmint.v1 import condition_pb2, sampling_pb2, value_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from tests.faults.golden_home import golden_version, publish_golden
from tests.hostile.confined import GROWTH
from tests.hostile.uploads import equal
from tests.integration.served_replica import replica

PARTS = 1024
GROWN = {0.9: 64 << 20, 2.9: 128 << 20}
"""Bytes that a plan of many parts may take, by the mebibytes of its stream's request: that some times, as values of the
sampler, and never once a part."""


@contextmanager
def sampler() -> Iterator[Any]:
    """Serve the golden models to a stub."""
    with tempfile.TemporaryDirectory(dir=os.environ["HOSTILE_SCRATCH"]) as folder:
        publish_golden(Path(folder))
        with replica(Path(folder)) as (address, _), grpc.insecure_channel(address) as channel:
            stub = SamplingServiceStub(channel)
            # What the first call loads is no plan's growth.
            list(stub.Sample(sampling_pb2.SampleRequest(model=golden_version("independent"), rows=1)))
            yield stub


def large(mebibytes: float) -> sampling_pb2.SampleRequest:
    """Return a request under very many predicates, all the same, of about so many mebibytes."""
    values = [value_pb2.Value(int64_value=age) for age in range(10, 90)] * 125
    any_of = condition_pb2.Predicate(column="age", any_of=condition_pb2.ValueSet(values=values))
    count = round(mebibytes * (1 << 20) / any_of.ByteSize())
    request = sampling_pb2.SampleRequest(model=golden_version("independent"), rows=10**9)
    request.where.predicates.extend([any_of] * min(count, 64))
    return request


def _plan(mebibytes: float, *, ranges_only: bool) -> None:
    with sampler() as stub:
        request = sampling_pb2.PlanSampleRequest(sample=large(mebibytes), parts=PARTS, ranges_only=ranges_only)
        with GROWTH.measured():
            try:
                response = stub.PlanSample(request)
            except grpc.RpcError as error:
                equal(False, ranges_only)
                equal(grpc.StatusCode.RESOURCE_EXHAUSTED, error.code())
                equal(True, "set ranges_only, request fewer parts, or raise ROWMINT_MAX_PLAN_BYTES" in error.details())
                return
        equal(True, ranges_only)
        equal((0, PARTS), (len(response.parts), len(response.ranges)))
        equal((0, 10**9), (response.ranges[0].start_row, response.ranges[-1].end_row))


CASES: dict[str, Callable[[], None]] = {
    f"{mebibytes} {kind}": lambda mebibytes=mebibytes, ranges=ranges: _plan(mebibytes, ranges_only=ranges)
    for mebibytes in GROWN
    for kind, ranges in (("requests", False), ("ranges", True))
}
