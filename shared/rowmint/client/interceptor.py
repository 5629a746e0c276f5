"""Channels whose calls are intercepted, whatever their kind."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc

Metadata = tuple[tuple[str, str], ...]
Around = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""Makes a call, given its continuation, its details and its request or requests."""


class _Details(NamedTuple):
    """The details of a call, as gRPC's interceptors get them."""

    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, around: Around) -> None:
        self._around = around

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._around(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._around(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._around(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._around(continuation, client_call_details, request_iterator)


def intercepted(channel: grpc.Channel, around: Around) -> grpc.Channel:
    """Return a channel whose calls are made by `around`; closing it closes `channel`."""
    return grpc.intercept_channel(channel, _Interceptor(around))


def with_metadata(details: Any, more: Metadata) -> Any:
    """Return the details of a call, with metadata added."""
    return _Details(
        details.method,
        details.timeout,
        (*(details.metadata or ()), *more),
        details.credentials,
        details.wait_for_ready,
        details.compression,
    )
