"""Hostile requests: proper ones with a field changed, ones made at random, and bytes that are none.

All of it follows the descriptors: a field that is added is tried without a word here. Nothing draws from a global.
"""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

MANY = 2_000
"""Entries of a list that is too long."""
LONG = 1 << 20
"""Characters of a text, and bytes, that are too long."""
TEXTS = (
    "",
    "x",
    "\0",
    "../../../etc/passwd",
    "projects/../models/x/versions/1",
    "projects/p/models/m@sha256:" + "0" * 64,
    "%00%2e%2e/",
    "{0.__class__} %s ${HOME}",
    "\r\n\t\x1b[31m",
    "\u202e\ufeff\U0001f4a9",
    "9" * 400,
    "NaN",
    "0001-01-01T00:00:00+23:59",
    "x" * LONG,
)
RAW = (b"", b"\0", b"\xff\xfe\x80", bytes(31), bytes(32), bytes(33), b"\xc0" * LONG)
DOUBLES = (0.0, -0.0, -1.0, 0.5, 1.0, float("nan"), float("inf"), float("-inf"), 1.7976931348623157e308, 5e-324)
UNKNOWN = (
    # Fields that no message has: a number, bytes, and groups within groups.
    b"\xf8\x7f\x01",
    b"\xfa\x7f\x03abc",
    b"\xfb\x7f" * 50 + b"\xfc\x7f" * 50,
)
_BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}

Words = Mapping[str, Sequence[Any]]
"""Values that a field of a name may well have; for a map, its keys."""


@dataclass(frozen=True)
class Case:
    """A request as it is sent.

    Attributes:
        label: How it was made.
        body: Its bytes.
    """

    label: str
    body: bytes


def edges(field: FieldDescriptor, now: Any = None) -> list[Any]:
    """Return values of a scalar field at the edges of its type and beyond those of its meaning; `now` is its value."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return list(RAW)
        case FieldDescriptor.CPPTYPE_STRING:
            near = [f"{now}{end}" for end in ("\0", "\n", "/..", "@latest")] if now else []
            return [*TEXTS, *near, *([now.upper(), now[:-1]] if now else [])]
        case FieldDescriptor.CPPTYPE_BOOL:
            return [False, True]
        case FieldDescriptor.CPPTYPE_ENUM:
            return [*field.enum_type.values_by_number, -1, 99, 2**31 - 1]
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return list(DOUBLES)
        case _:
            least, most = _BOUNDS[field.cpp_type]
            return [number for number in (0, 1, -1, 7, 2**31 - 1, least, most) if least <= number <= most]


def one_changed(message: Message, spared: Collection[str] = ()) -> Iterator[Case]:
    """Yield a proper request with one field changed, for every field but `spared` ones and every way to change it."""
    for label, changed in _changed(message):
        if label.partition(" ")[0] not in spared:
            yield Case(label, changed.SerializeToString())
    for unknown in UNKNOWN:
        yield Case(f"unknown field {unknown[:9]!r}", message.SerializeToString() + unknown)


def some_changed(draw: random.Random, message: Message, count: int, spared: Collection[str] = ()) -> Iterator[Case]:
    """Yield `count` requests in which a few fields are changed at once, none of those that are `spared`."""
    # By field first: else most of what is drawn is of the few fields that can be changed in most ways.
    ways: dict[str, list[str]] = {}
    for label, _ in _changed(message):
        name = label.partition(" ")[0]
        if name not in spared:
            ways.setdefault(name, []).append(label)
    for _ in range(count):
        changed, labels = message, []
        for _ in range(draw.randint(2, 4)):
            wanted = draw.choice(ways[draw.choice(sorted(ways))])
            changed = next((found for label, found in _changed(changed, wanted) if label == wanted), changed)
            labels.append(wanted)
        yield Case(" and ".join(labels), changed.SerializeToString())


def at_random(draw: random.Random, kind: type[Message], words: Words, count: int) -> Iterator[Case]:
    """Yield `count` requests of a kind whose fields are set or not, most of them to a word that fits."""
    for number in range(count):
        message = kind()
        _fill(draw, message, words)
        yield Case(f"random {number} {str(message)[:400]!r}", message.SerializeToString())


def cut(message: Message) -> Iterator[Case]:
    """Yield a request that ends after each of its bytes."""
    body = message.SerializeToString()
    for size in range(len(body)):
        yield Case(f"cut at {size} of {len(body)}", body[:size])


def noise(draw: random.Random, message: Message, count: int) -> Iterator[Case]:
    """Yield `count` times random bytes, and as often a request of which some bits are other ones."""
    body = message.SerializeToString()
    for _ in range(count):
        found = draw.randbytes(draw.randint(1, 64))
        yield Case(f"bytes {found.hex()}", found)
        flipped = bytearray(body)
        for _ in range(draw.randint(1, 3)):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        yield Case(f"flipped {flipped.hex()}", bytes(flipped))


def _changed(message: Message, wanted: str = "") -> Iterator[tuple[str, Message]]:
    """Yield the message with one field changed; with `wanted`, only where that may come of it."""
    for field in message.DESCRIPTOR.fields:
        name = field.name
        if wanted and wanted[: len(name)] != name:
            continue
        for way, change in _ways(message, field):
            label = f"{name} {way}"
            if not wanted or label == wanted:
                yield label, _copy(message, change)
        inner = _inner(message, field)
        if inner is None:
            continue
        deeper = wanted.removeprefix(f"{name}.") if wanted else ""
        for label, changed in _changed(inner, deeper):
            yield f"{name}.{label}", _copy(message, lambda copy, f=field, c=changed: _put(copy, f, c))


def _ways(message: Message, field: FieldDescriptor) -> Iterator[tuple[str, Callable[[Message], Any]]]:
    """Yield ways to change a field itself, by name."""
    name = field.name
    yield "unset", lambda copy: copy.ClearField(name)
    if _is_map(field):
        for key in TEXTS:
            yield f"key {key[:40]!r}", lambda copy, key=key: getattr(copy, name)[key]
        yield "many", lambda copy: [getattr(copy, name)[f"x{number}"] for number in range(MANY)]
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and _repeated(field):
        yield "twice", lambda copy: getattr(copy, name).extend(getattr(message, name)[:1] or [_make(field)] * 2)
        yield "many", lambda copy: getattr(copy, name).extend((getattr(message, name)[:1] or [_make(field)]) * MANY)
        yield "many empty", lambda copy: getattr(copy, name).extend([_make(field)] * MANY)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        yield "empty", lambda copy: (copy.ClearField(name), getattr(copy, name).SetInParent())
    elif _repeated(field):
        now = getattr(message, name)
        for value in edges(field, now[0] if now else None):
            yield f"[{str(value)[:40]!r}]", lambda copy, value=value: _set_list(copy, name, [value])
        yield "twice", lambda copy: _set_list(copy, name, [*now, *now] or [edges(field)[1]] * 2)
        yield "many", lambda copy: _set_list(copy, name, [now[0] if now else edges(field)[1]] * MANY)
    else:
        for value in edges(field, getattr(message, name)):
            yield f"{str(value)[:40]!r}", lambda copy, value=value: setattr(copy, name, value)


def _inner(message: Message, field: FieldDescriptor) -> Message | None:
    """Return the message in a field, the first one of several; None of a scalar and where it is not set.

    What else could be set in its place is tried too.
    """
    if field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE:
        return None
    held = getattr(message, field.name)
    if _is_map(field):
        first = held[min(held)] if held else None
        return first if isinstance(first, Message) else None
    if _repeated(field):
        return held[0] if held else None
    return held if message.HasField(field.name) or field.containing_oneof is not None else None


def _put(message: Message, field: FieldDescriptor, inner: Message) -> None:
    """Put a message where `_inner` found one."""
    held = getattr(message, field.name)
    if _is_map(field):
        held[min(held)].CopyFrom(inner)
    elif not _repeated(field):
        held.CopyFrom(inner)
        held.SetInParent()
    else:
        held[0].CopyFrom(inner)


def _fill(draw: random.Random, message: Message, words: Words) -> None:
    for field in message.DESCRIPTOR.fields:
        if draw.random() < (0.5 if field.containing_oneof and not field.has_presence else 0.35):
            continue
        held = getattr(message, field.name)
        times = draw.choice((1, 1, 2, 3))
        if _is_map(field):
            for _ in range(times):
                value = held[_value(draw, field.message_type.fields_by_name["key"], words, field.name)]
                if isinstance(value, Message):
                    _fill(draw, value, words)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and _repeated(field):
            for _ in range(times):
                _fill(draw, held.add(), words)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            held.SetInParent()
            _fill(draw, held, words)
        elif _repeated(field):
            held.extend(_value(draw, field, words, field.name) for _ in range(times))
        else:
            setattr(message, field.name, _value(draw, field, words, field.name))


def _value(draw: random.Random, field: FieldDescriptor, words: Words, name: str) -> Any:
    fitting = words.get(name, ())
    if fitting and draw.random() < 0.9:
        return draw.choice(fitting)
    return draw.choice([value for value in edges(field) if not isinstance(value, str | bytes) or len(value) < LONG])


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _repeated(field: FieldDescriptor) -> bool:
    return field.is_repeated


def _make(field: FieldDescriptor) -> Message:
    return GetMessageClass(field.message_type)()


def _copy(message: Message, change: Callable[[Message], Any]) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    change(copy)
    return copy


def _set_list(message: Message, name: str, values: Sequence[Any]) -> None:
    message.ClearField(name)
    getattr(message, name).extend(values)
