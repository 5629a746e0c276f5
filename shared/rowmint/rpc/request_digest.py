"""Digests of requests: equal exactly for requests that say the same, whichever release or library computes them."""

import hashlib
import struct
from collections.abc import Collection
from typing import Any

import rfc8785
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_PREFIX = b"rowmint/request/1\0"
_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def request_digest(request: Message, ignored: Collection[str] = ()) -> bytes:
    """Return the SHA-256 of what a request says.

    Only fields that are set count, by number: fields that a later release adds change nothing until they are set, and
    defaults, which may change from release to release, are not filled in. Fields that this release does not know do
    not count.

    Args:
        request: The request; its message type is part of the digest.
        ignored: Paths of fields that do not count, with their content, such as ``"dataset.state"``.

    Returns:
        32 bytes.
    """
    name = request.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(_PREFIX + name + b"\0" + rfc8785.dumps(_tree(request, "", ignored))).digest()


def _tree(message: Message, prefix: str, ignored: Collection[str]) -> dict[str, Any]:
    """Return the set fields of a message as JSON values, by field number."""
    tree: dict[str, Any] = {}
    for field, value in message.ListFields():
        path = prefix + field.name
        if path not in ignored:
            tree[str(field.number)] = _field(field, value, f"{path}.", ignored)
    return tree


def _field(field: FieldDescriptor, value: Any, prefix: str, ignored: Collection[str]) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        pairs = [
            [_single(key_field, key, prefix, ignored), _single(value_field, value[key], prefix, ignored)]
            for key in value
        ]
        return sorted(pairs, key=lambda pair: pair[0])
    if field.is_repeated:
        return [_single(field, one, prefix, ignored) for one in value]
    return _single(field, value, prefix, ignored)


def _single(field: FieldDescriptor, value: Any, prefix: str, ignored: Collection[str]) -> Any:
    """Return one value as JSON: integers in decimal, floating-point numbers and bytes in hexadecimal."""
    if field.message_type is not None:
        return _tree(value, prefix, ignored)
    if isinstance(value, str | bool):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if field.cpp_type in _FLOATS:
        return struct.pack(">d", value).hex()
    return str(value)
