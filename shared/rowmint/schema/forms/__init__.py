"""Written forms: how the cells of a column are spelled as text, and the Arrow type that they are delivered in."""

from rowmint.schema.forms.written_form import (
    CANONICAL,
    BooleanForm,
    DatetimeForm,
    ExponentStyle,
    Grouping,
    NameCase,
    NegativeStyle,
    NumberForm,
    PlusSign,
    StorageType,
    WrittenForm,
    ZoneStyle,
)

__all__ = [
    "CANONICAL",
    "BooleanForm",
    "DatetimeForm",
    "ExponentStyle",
    "Grouping",
    "NameCase",
    "NegativeStyle",
    "NumberForm",
    "PlusSign",
    "StorageType",
    "WrittenForm",
    "ZoneStyle",
]
