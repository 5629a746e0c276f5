"""Calls at once: at the limit and past it, of every kind of method."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from rowmint.errors import UnavailableError
from rowmint.rpc.call_limit import CallLimitInterceptor
from tests.waiting import PATIENCE


class Held:
    """Handlers that run until they are released."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.started = 0

    async def one(self, request: Any, _: object) -> Any:
        self.started += 1
        await self.go.wait()
        return request

    async def many(self, request: Any, _: object) -> Any:
        self.started += 1
        yield request
        await self.go.wait()
        yield request


async def wrapped(limit: CallLimitInterceptor, handler: Any, method: str = "/rowmint.v1.Any/Method") -> Any:
    async def continuation(_: object) -> Any:
        return handler

    details: Any = SimpleNamespace(method=method)
    return await limit.intercept_service(continuation, details)


def test_one_more_call_than_allowed_is_refused_until_one_has_ended():
    async def test() -> None:
        shed: list[str] = []
        limit, held = CallLimitInterceptor(2, shed.append), Held()
        unary = (await wrapped(limit, grpc.unary_unary_rpc_method_handler(held.one))).unary_unary
        stream = (await wrapped(limit, grpc.unary_stream_rpc_method_handler(held.many))).unary_stream
        responses = stream(1, None)
        assert await anext(responses) == 1
        running = asyncio.create_task(unary(2, None))
        await asyncio.sleep(0)
        for refused in (unary(3, None), anext(stream(4, None))):
            with pytest.raises(UnavailableError) as raised:
                await refused
            assert raised.value.metadata == {"limit": "2", "setting": "ROWMINT_MAX_CALLS"}
            assert raised.value.retry_after == 0.1
        assert (shed, held.started) == (["calls", "calls"], 2)
        # A stream that is given up counts no longer.
        await responses.aclose()
        more = asyncio.create_task(unary(5, None))
        await asyncio.sleep(0)
        held.go.set()
        assert await asyncio.gather(running, more) == [2, 5]
        assert [one async for one in stream(6, None)] == [6, 6]

    asyncio.run(asyncio.wait_for(test(), PATIENCE))


def test_a_call_that_fails_counts_no_longer():
    async def fail(_: object, __: object) -> None:
        raise KeyError

    async def test() -> None:
        unary = await wrapped(CallLimitInterceptor(1, lambda _: None), grpc.unary_unary_rpc_method_handler(fail))
        for _ in range(3):
            with pytest.raises(KeyError):
                await unary.unary_unary(None, None)

    asyncio.run(test())


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Watch", "/xds.service.orca.v3.OpenRcaService/Stream"])
def test_calls_about_the_process_are_not_counted(method):
    async def test() -> None:
        handler = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        assert await wrapped(CallLimitInterceptor(1, lambda _: None), handler, method) is handler
        assert await wrapped(CallLimitInterceptor(1, lambda _: None), None) is None

    asyncio.run(test())
