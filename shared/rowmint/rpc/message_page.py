"""Answers of list methods: as many messages as fit one."""

from collections.abc import Callable
from typing import Generic, TypeVar

from google.protobuf.message import Message

R = TypeVar("R")
M = TypeVar("M", bound=Message)


class MessagePage(Generic[R, M]):
    """The messages of a page, converted as its records are read, so that no more are read than are sent.

    Args:
        convert: Returns the message of a record.
        max_bytes: Bytes of all messages together; one alone may have more.
        spare_bytes: Bytes that each message may get later.

    Attributes:
        messages: The messages, in order.
    """

    def __init__(self, convert: Callable[[R], M], max_bytes: int, spare_bytes: int = 0) -> None:
        self._convert = convert
        self._left = max_bytes
        self._spare_bytes = spare_bytes
        self.messages: list[M] = []

    def fits(self, record: R) -> bool:
        """Add the message of a record if it fits, or is the first; return whether it was added."""
        message = self._convert(record)
        size = message.ByteSize() + self._spare_bytes
        if self.messages and size > self._left:
            return False
        self.messages.append(message)
        self._left -= size
        return True
