"""Bounds of repeated and map fields: every request is checked before its handler runs.

The bounds are field options in the protos (`rowmint.v1.max_items`). They are checked from the outside inwards, and only
messages that can hold a bounded field are entered, so the check itself takes bounded time.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from rowmint.errors import InvalidFieldError
from rowmint.observability.calls import wrap_handler
from rowmint.v1 import limits_pb2


def max_items(field: FieldDescriptor) -> int:
    """Return the most entries that a repeated or map field may have; 0 for no bound."""
    return field.GetOptions().Extensions[limits_pb2.max_items]


def check_field_limits(message: Message, prefix: str = "") -> None:
    """Check every repeated and map field of a message against its bound.

    Args:
        message: The message.
        prefix: What stands before the path of a field in errors; ends with a dot.

    Raises:
        InvalidFieldError: A field has too many entries; the error names its path.
    """
    for field in _fields(message.DESCRIPTOR):
        path = prefix + field.name
        if not field.repeated:
            if message.HasField(field.name):
                check_field_limits(getattr(message, field.name), f"{path}.")
            continue
        entries = getattr(message, field.name)
        if field.most and len(entries) > field.most:
            raise InvalidFieldError(path, f"has {len(entries):,} entries; at most {field.most:,}")
        if field.entered:
            for key, entry in _messages(entries):
                check_field_limits(entry, f"{path}[{key}].")


def _messages(entries: Any) -> Iterator[tuple[object, Message]]:
    """Return the messages of a repeated or map field with their indices or keys."""
    return ((key, entries[key]) for key in entries) if hasattr(entries, "keys") else enumerate(entries)


@dataclass(frozen=True)
class _Field:
    """A field that is checked.

    Attributes:
        name: Its name.
        repeated: Whether it has entries: it is repeated or a map.
        most: Most entries; 0 for no bound.
        entered: Whether its messages have fields that are checked.
    """

    name: str
    repeated: bool
    most: int
    entered: bool


@cache
def _fields(descriptor: Descriptor) -> tuple[_Field, ...]:
    """Return the fields of a message type that are checked, or whose messages are."""
    return tuple(
        _Field(field.name, field.is_repeated, most, entered)
        for field in descriptor.fields
        for most in (max_items(field) if field.is_repeated else 0,)
        for entered in (_is_entered(field),)
        if most or entered
    )


def _is_entered(field: FieldDescriptor) -> bool:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        kind = kind.fields_by_name["value"].message_type
    return kind is not None and bool(_fields(kind))


class FieldLimitInterceptor(grpc.aio.ServerInterceptor):
    """Refuses messages of Rowmint's own services with too many entries in a field. Inside authorization."""

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None or not str(handler_call_details.method).startswith("/rowmint."):
            return handler
        return wrap_handler(
            handler, _checked_stream, _checked_unary, handler.request_deserializer, handler.response_serializer
        )


class _CheckedMessages:
    """The messages of a request stream, each checked before it is returned."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages

    def __aiter__(self) -> "_CheckedMessages":
        return self

    async def __anext__(self) -> Any:
        message = await anext(self._messages)
        check_field_limits(message)
        return message


def _checked(request: Any) -> Any:
    if isinstance(request, AsyncIterator):
        return _CheckedMessages(request)
    check_field_limits(request)
    return request


def _checked_unary(inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        return await inner(_checked(request), context)

    return behavior


def _checked_stream(
    inner: Callable[[Any, Any], AsyncGenerator[Any, None]],
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
        async with aclosing(inner(_checked(request), context)) as responses:
            async for response in responses:
                yield response

    return behavior
