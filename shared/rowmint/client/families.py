"""The families that can be trained and their hyper-parameters, as the API's message of a configuration describes them.

Only the default names a family: one more member of `TrainingConfig.family` is one more family, its fields are keyword
arguments of the client and options of `rowmint train`. What each field means is declared by the trainer;
`hyperparameters.json` holds it for the client.
"""

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from rowmint.v1 import training_job_pb2

DEFAULT_FAMILY = "circuit"
"""The family that is trained where none is chosen."""

_PYTHON_TYPES: dict[int, type] = {
    FieldDescriptor.TYPE_BOOL: bool,
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_INT32: int,
    FieldDescriptor.TYPE_INT64: int,
    FieldDescriptor.TYPE_UINT32: int,
    FieldDescriptor.TYPE_UINT64: int,
}


@dataclass(frozen=True)
class TrainingField:
    """A setting of a training job: a hyper-parameter of some families, or one that all of them share.

    Attributes:
        name: Its name.
        kind: Type of its values; `str` for lists, texts and enumerations, which are written as text.
        families: The families that have it; empty where all share it.
        values: Names of an enumeration's values; empty where it is not one.
        repeated: Whether it is a list.
    """

    name: str
    kind: type
    families: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    repeated: bool = False


@dataclass(frozen=True)
class FieldHelp:
    """What a setting of a training job is.

    Attributes:
        help: Its meaning, one phrase.
        range: Its values in words; empty where its type says them.
        default: The value of a job that does not set it, as text.
    """

    help: str
    range: str
    default: str


def field_help(family: str, name: str) -> FieldHelp | None:
    """Return what a setting is; None where that is not known.

    Args:
        family: The family whose hyper-parameter it is; empty for a setting that all families share.
        name: Its name.
    """
    declared = _declarations()
    fields = declared["families"].get(family, {}) if family else declared["shared"]
    return FieldHelp(**fields[name]) if name in fields else None


@functools.cache
def _declarations() -> dict[str, Any]:
    text = (resources.files("rowmint.client") / "hyperparameters.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))


def family_fields() -> dict[str, Descriptor]:
    """Return the message of each family's hyper-parameters, by the family's name, in the API's order."""
    oneof = training_job_pb2.TrainingConfig.DESCRIPTOR.oneofs_by_name["family"]
    return {field.name: cast("Descriptor", field.message_type) for field in oneof.fields}


def family_names() -> tuple[str, ...]:
    """Return the names of the families, in the API's order."""
    return tuple(family_fields())


def training_fields() -> list[TrainingField]:
    """Return every setting that one value or list of values sets: those of families first, then the shared ones."""
    found: dict[str, TrainingField] = {}
    for family, message in family_fields().items():
        for field in message.fields:
            made, known = _field(field, (family,)), found.get(field.name)
            if known is not None:
                kind = known.kind if known.kind is made.kind else str
                made = TrainingField(
                    made.name, kind, (*known.families, family), made.values, known.repeated or made.repeated
                )
            found[field.name] = made
    shared = training_job_pb2.TrainingConfig.DESCRIPTOR.fields
    return [*found.values(), *(_field(field, ()) for field in shared if field.message_type is None)]


def _field(field: FieldDescriptor, families: tuple[str, ...]) -> TrainingField:
    values: tuple[str, ...] = ()
    if field.enum_type is not None:
        prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        values = tuple(value.name.removeprefix(prefix).lower() for value in field.enum_type.values[1:])
    kind = str if field.is_repeated else _PYTHON_TYPES.get(field.type, str)
    return TrainingField(str(field.name), kind, families, values, bool(field.is_repeated))
