"""Little work is done on the loop, and much of it on the threads of the project whose call it is."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.synthesizer import choose_kernel
from rowmint.v1 import sampling_pb2
from sampler_service import computing, converters
from sampler_service.computing import compute, schema_bytes
from tests.golden.streams import golden_catalog, reference, sampler_of
from tests.unit.test_sampling_in_process import Served

MODEL = str(reference("tvae"))


@pytest.mark.parametrize(("size", "on_loop"), [(0, True), (64 * 1024, True), (64 * 1024 + 1, False)])
def test_much_work_is_done_on_the_executor(size, on_loop):
    async def scenario(executor):
        return await compute(executor, size, threading.get_ident) == threading.get_ident()

    with ThreadPoolExecutor(1) as executor:
        assert asyncio.run(scenario(executor)) is on_loop


def test_a_schema_counts_by_its_categories():
    plain = ColumnSpec("n", ColumnKind.NUMERICAL, DataType.INT64, Domain(minimum=0, maximum=9))
    few, many = (
        ColumnSpec("t", ColumnKind.CATEGORICAL, DataType.STRING, Domain(tuple(map(str, range(count)))))
        for count in (3, 2000)
    )
    assert schema_bytes(TableSchema((plain, few))) < 1024
    assert schema_bytes(TableSchema((plain, many))) > 64 * 1024


def test_long_headers_are_made_on_the_projects_threads(monkeypatch):
    made = []
    header_to_proto = converters.header_to_proto

    def noting(header):
        made.append(threading.current_thread().name)
        return header_to_proto(header)

    monkeypatch.setattr(converters, "header_to_proto", noting)
    # As if every schema had thousands of categories.
    monkeypatch.setattr(computing, "_SMALL_BYTES", -1)
    with (
        sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler,
        ThreadPoolExecutor(1, "project") as workers,
    ):
        served = Served(sampler, workers)
        request = sampling_pb2.SampleRequest(model=MODEL, rows=10)
        served.sample(request)
        served.plan(sampling_pb2.PlanSampleRequest(sample=request))
        config = sampling_pb2.CompleteRowsConfig(model=MODEL, candidates=256)
        served.complete([sampling_pb2.CompleteRowsRequest(config=config)])
    assert [name.partition("_")[0] for name in made] == ["project"] * 3
