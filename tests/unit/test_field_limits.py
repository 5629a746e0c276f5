"""Bounds of repeated and map fields: every one that a request can reach has one, and each is held."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from rowmint.conditions import MAX_PREDICATES, MAX_VALUES
from rowmint.errors import InvalidFieldError
from rowmint.rpc.field_limits import FieldLimitInterceptor, check_field_limits, max_items
from rowmint.v1 import condition_pb2, dataset_service_pb2, sampling_pb2
from sampler_service.converters import MAX_PARTIAL_ROWS
from tests.docs.field_limits import bounded_fields
from trainer_service.datasets.formats import MAX_NULL_VALUES

Create = dataset_service_pb2.CreateDatasetRequest


def test_every_field_that_a_request_can_reach_has_a_bound():
    fields = bounded_fields()
    assert [name for name, field in fields.items() if not max_items(field)] == []
    assert len(fields) > 15


def test_checks_within_the_process_have_the_same_bounds():
    fields = bounded_fields()
    assert max_items(fields["rowmint.v1.Where.predicates"]) == MAX_PREDICATES
    assert max_items(fields["rowmint.v1.ValueSet.values"]) == MAX_VALUES
    assert max_items(fields["rowmint.v1.PartialRows.rows"]) == MAX_PARTIAL_ROWS
    assert max_items(fields["rowmint.v1.CsvFormat.null_values"]) == MAX_NULL_VALUES


def nulls(count: int) -> Create:
    request = Create()
    request.dataset.format.csv.null_values.extend(["-"] * count)
    return request


def predicates(count: int, values: int) -> sampling_pb2.SampleRequest:
    request = sampling_pb2.SampleRequest()
    for _ in range(count):
        request.where.predicates.add(column="c")
    request.where.predicates[-1].any_of.values.extend([condition_pb2.Predicate().equals] * values)
    return request


def known(count: int) -> sampling_pb2.CompleteRowsRequest:
    request = sampling_pb2.CompleteRowsRequest()
    request.rows.rows.add()
    row = request.rows.rows.add()
    for number in range(count):
        row.known[str(number)].null_value = True
    return request


@pytest.mark.parametrize(
    ("most", "above", "message"),
    [
        (nulls(100), nulls(101), "dataset.format.csv.null_values: has 101 entries; at most 100"),
        (predicates(64, 1), predicates(65, 1), "where.predicates: has 65 entries; at most 64"),
        (
            predicates(2, 10_000),
            predicates(2, 10_001),
            "where.predicates[1].any_of.values: has 10,001 entries; at most 10,000",
        ),
        (known(16_384), known(16_385), "rows.rows[1].known: has 16,385 entries; at most 16,384"),
    ],
    ids=["list", "list of messages", "list within a list", "map"],
)
def test_a_field_has_at_most_its_bound(most: Any, above: Any, message: str):
    check_field_limits(most)
    with pytest.raises(InvalidFieldError) as raised:
        check_field_limits(above)
    assert str(raised.value) == message


def test_nothing_is_added_to_a_request():
    request = Create(parent="projects/p")
    check_field_limits(request)
    assert request == Create(parent="projects/p")
    assert not request.HasField("dataset")


async def handled(handler: Any, method: str = "/rowmint.v1.Any/Method") -> Any:
    """Return a handler as the interceptor wraps it."""

    async def continuation(_: object) -> Any:
        return handler

    details: Any = SimpleNamespace(method=method)
    return await FieldLimitInterceptor().intercept_service(continuation, details)


def test_messages_are_refused_before_they_are_handled():
    reached: list[int] = []

    async def many(requests: Any, _: object) -> Any:
        async for request in requests:
            reached.append(len(request.dataset.format.csv.null_values))
            yield request

    async def one(request: Any, _: object) -> Any:
        reached.append(len(request.dataset.format.csv.null_values))
        return request

    async def messages() -> Any:
        yield nulls(1)
        yield nulls(101)
        yield nulls(2)

    async def test() -> None:
        stream = await handled(grpc.stream_stream_rpc_method_handler(many))
        with pytest.raises(InvalidFieldError):
            [_ async for _ in stream.stream_stream(messages(), None)]
        unary = await handled(grpc.unary_unary_rpc_method_handler(one))
        assert await unary.unary_unary(nulls(3), None) == nulls(3)
        with pytest.raises(InvalidFieldError):
            await unary.unary_unary(nulls(101), None)

    asyncio.run(test())
    assert reached == [1, 3]


def test_other_services_are_left_alone():
    async def test() -> None:
        handler = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        assert await handled(handler, "/grpc.health.v1.Health/Check") is handler
        assert await handled(None) is None

    asyncio.run(test())
