"""Converters of written forms. Pure.

Fields have the same names in messages and values, and one that is unset in the message has the value's default. The
values of an enum are those of the message's enum, in lower case and without the prefix; its first is unspecified.
"""

from dataclasses import MISSING, fields
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.message import Message

from rowmint.errors import InvalidFieldError
from rowmint.schema.forms import BooleanForm, DatetimeForm, NumberForm, StorageType, WrittenForm
from rowmint.v1 import schema_pb2

Part = TypeVar("Part", NumberForm, DatetimeForm, BooleanForm)
Enum = TypeVar("Enum", bound=StrEnum)
_STORAGE = "storage"


def form_from_proto(message: schema_pb2.WrittenForm, field: str) -> WrittenForm:
    """Return a form. `InvalidFieldError` names a path under `field`."""
    form: NumberForm | DatetimeForm | BooleanForm | None = None
    match message.WhichOneof("form"):
        case "number":
            form = _part(message.number, NumberForm, f"{field}.number")
        case "datetime":
            form = _part(message.datetime, DatetimeForm, f"{field}.datetime")
        case "boolean":
            form = _part(message.boolean, BooleanForm, f"{field}.boolean")
    storage = _member(message, _STORAGE, StorageType, field) if message.storage else None
    return WrittenForm(form, storage, message.pad_width)


def form_to_proto(form: WrittenForm) -> schema_pb2.WrittenForm:
    """Return the message of a form."""
    message = schema_pb2.WrittenForm(pad_width=form.pad_width)
    if form.storage is not None:
        _set(message, _STORAGE, form.storage)
    match form.form:
        case NumberForm() as number:
            message.number.SetInParent()
            _fill(message.number, number)
        case DatetimeForm() as moments:
            _fill(message.datetime, moments)
        case BooleanForm() as booleans:
            _fill(message.boolean, booleans)
    return message


def _part(message: Message, kind: type[Part], path: str) -> Part:
    found: dict[str, Any] = {}
    for field in fields(kind):
        descriptor = message.DESCRIPTOR.fields_by_name[field.name]
        value = getattr(message, field.name)
        unset = not message.HasField(field.name) if descriptor.has_presence else value == descriptor.default_value
        if unset and field.default is not MISSING:
            continue
        if isinstance(field.default, StrEnum):
            value = _member(message, field.name, type(field.default), path)
        found[field.name] = value
    return kind(**found)


def _fill(message: Message, part: NumberForm | DatetimeForm | BooleanForm) -> None:
    for field in fields(part):
        value = getattr(part, field.name)
        if value != field.default:
            _set(message, field.name, value)


def _member(message: Message, name: str, kind: type[Enum], path: str) -> Enum:
    """Return the member of an enum that a message's field names."""
    number = getattr(message, name)
    descriptor = _enum(message, name)
    if number not in descriptor.values_by_number:
        raise InvalidFieldError(f"{path}.{name}", f"{number} is not a {descriptor.name}")
    return kind(descriptor.values_by_number[number].name.removeprefix(_prefix(message, name)).lower())


def _set(message: Message, name: str, value: Any) -> None:
    if isinstance(value, StrEnum):
        descriptor = _enum(message, name)
        value = descriptor.values_by_name[_prefix(message, name) + value.upper()].number
    setattr(message, name, value)


def _prefix(message: Message, name: str) -> str:
    first: str = _enum(message, name).values[0].name
    return first.removesuffix("UNSPECIFIED")


def _enum(message: Message, name: str) -> Any:
    return message.DESCRIPTOR.fields_by_name[name].enum_type
