"""Streams on two replicas: cut, planned in parts, far out; the bytes are those of one unbroken call.

Replicas that die are in tests/faults/test_lost_replicas.py.
"""

import hashlib
from collections.abc import Iterator

import grpc
import pytest

from rowmint.client import Client
from rowmint.v1 import sampling_pb2, sampling_service_pb2_grpc
from tests.acceptance.processes import Services, customers_csv

FORMATS = ["arrow", "csv", "ndjson"]
WHERE = {"city": ["Quito", "Hanoi"], "age": (30, None)}


@pytest.fixture(scope="module")
def version(shared_services: Services) -> str:
    with Client(shared_services.started[0].address) as client:
        dataset = client.upload(customers_csv(1_500), "streams", format="csv", primary_key="customer")
        job = client.train(
            dataset,
            "streams",
            family="ctgan",
            epochs=2,
            batch_size=100,
            generator_dim=[32],
            discriminator_dim=[32],
            seed=1,
            threads=1,
        )
        return client.wait_job(job).model_version


def call(address: str, request: sampling_pb2.SampleRequest) -> Iterator[sampling_pb2.SampleResponse]:
    with grpc.insecure_channel(address) as channel:
        yield from sampling_service_pb2_grpc.SamplingServiceStub(channel).Sample(request)


def data_of(address: str, request: sampling_pb2.SampleRequest) -> bytes:
    return b"".join(response.data.data for response in call(address, request))


@pytest.mark.parametrize("form", FORMATS)
def test_planned_parts_on_two_replicas_join_to_the_single_stream(
    shared_services: Services, version: str, form: str
) -> None:
    one, two = (sampler.address for sampler in shared_services.started[1:3])
    with Client(shared_services.started[0].address, one) as client:
        request = client.sample_request(version, 60_000, where=WHERE, seed=5, format=form)
        plan = client.plan_sample(request, parts=5)
    assert len(plan.parts) == 5
    assert plan.parts[0].framing == sampling_pb2.FRAMING_FILE
    joined = b"".join(data_of((one, two)[index % 2], part) for index, part in enumerate(plan.parts))
    assert hashlib.sha256(joined).digest() == hashlib.sha256(data_of(one, request)).digest()
    assert data_of(two, request) == joined


def test_the_first_row_far_out_is_the_same_row_from_either_side(shared_services: Services, version: str) -> None:
    one, two = (sampler.address for sampler in shared_services.started[1:3])
    far = 10**12
    with Client(shared_services.started[0].address, [one]) as client:
        # The keys of this dataset have ten digits, too few for so many rows: they are left out.
        columns = ["city", "age", "income", "note"]
        request = client.sample_request(
            version, far + 10_000, seed=2, format="ndjson", start_row=far, end_row=far + 40, columns=columns
        )
        short = data_of(one, request)
        request.end_row = far + 10
        ten = data_of(two, request)
    assert short.startswith(ten)
    assert short.count(b"\n") == 40


def test_a_short_request_is_the_beginning_of_a_long_one(shared_services: Services, version: str) -> None:
    address = shared_services.started[1].address
    with Client(shared_services.started[0].address, address) as client:
        ten = data_of(address, client.sample_request(version, 10, seed=4, format="csv", where=WHERE))
        many = data_of(address, client.sample_request(version, 10_000, seed=4, format="csv", where=WHERE))
    assert many.startswith(ten)
    assert ten.count(b"\n") == 11


def test_projection_changes_no_value(shared_services: Services, version: str) -> None:
    address = shared_services.started[1].address
    with Client(shared_services.started[0].address, address) as client:
        table = client.sample(version, 5_000, seed=4, where=WHERE).to_table()
        some = client.sample(version, 5_000, seed=4, where=WHERE, columns=["note", "income"]).to_table()
    assert some.equals(table.select(["note", "income"]))
