"""How the cells of a column are written: a value beside kind, type and domain, which models know nothing of.

A form decides about the text of a value in CSV and NDJSON, about what text is read as that value, and about the Arrow
type that it is delivered in. Without one, values are in their canonical text and type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self, get_type_hints


class StorageType(StrEnum):
    """Arrow type that a column came in, where that is not the canonical one of its data type."""

    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    TIMESTAMP_S = "timestamp_s"
    TIMESTAMP_MS = "timestamp_ms"
    TIMESTAMP_NS = "timestamp_ns"
    DATE64 = "date64"
    TIME32_S = "time32_s"
    TIME32_MS = "time32_ms"
    TIME64_US = "time64_us"
    TIME64_NS = "time64_ns"
    DURATION_S = "duration_s"
    DURATION_MS = "duration_ms"
    DURATION_US = "duration_us"
    DURATION_NS = "duration_ns"
    LARGE_STRING = "large_string"


class Grouping(StrEnum):
    """How digits before the decimal separator are grouped."""

    NONE = "none"
    THOUSANDS = "thousands"
    """By threes: 1,234,567."""
    INDIAN = "indian"
    """The last three, then by twos: 12,34,567."""
    MYRIAD = "myriad"
    """By fours: 123,4567."""


class PlusSign(StrEnum):
    """Which numbers have a plus sign."""

    NEVER = "never"
    POSITIVE = "positive"
    NOT_NEGATIVE = "not_negative"


class NegativeStyle(StrEnum):
    """How numbers below 0 are written."""

    MINUS = "minus"
    PARENTHESES = "parentheses"
    TRAILING_MINUS = "trailing_minus"
    UNICODE_MINUS = "unicode_minus"
    CREDIT = "credit"
    """With CR after: 12CR."""


class ExponentStyle(StrEnum):
    """When numbers have an exponent."""

    SHORTEST = "shortest"
    """Where Python's `repr` has one."""
    NEVER = "never"
    ALWAYS = "always"


class ZoneStyle(StrEnum):
    """How an offset from UTC is written."""

    NONE = "none"
    Z = "z"
    COLON = "colon"
    """+02:00"""
    COMPACT = "compact"
    """+0200"""
    HOURS = "hours"
    """+02"""
    UTC = "utc"
    GMT = "gmt"


class NameCase(StrEnum):
    """Case of the names of months and days."""

    TITLE = "title"
    UPPER = "upper"
    LOWER = "lower"


@dataclass(frozen=True)
class _Part:
    """A value whose fields are texts, integers, truth values and enums; JSON has those that are not the default."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not the default, as JSON values."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: str(value) if isinstance(value, StrEnum) else value
            for name, value in found.items()
            if value != type(self).__dataclass_fields__[name].default
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the value that `to_json` wrote.

        Raises:
            ValueError: A field is unknown, missing or of another type.
        """
        if not isinstance(body, Mapping):
            raise ValueError(f"a {cls.__name__} is not an object")
        hints = get_type_hints(cls)
        unknown = sorted(set(body) - set(hints))
        if unknown:
            raise ValueError(f"a {cls.__name__} has the unknown field {unknown[0]!r}")
        try:
            return cls(**{name: _field(value, hints[name], f"{cls.__name__}.{name}") for name, value in body.items()})
        except TypeError as error:
            raise ValueError(f"a {cls.__name__} is incomplete: {error}") from error


def _field(value: Any, hint: Any, name: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    expected = int if hint == int | None else hint
    if type(value) is not expected:
        raise ValueError(f"{name} is {value!r}, which is not of type {expected.__name__}")
    return value


@dataclass(frozen=True)
class NumberForm(_Part):
    """How numbers are written; the default is ``-1234.5``.

    Attributes:
        prefix: Text before the number, such as ``$``; at most 16 characters, none of them digits.
        suffix: Text after the number, such as ``%``; likewise.
        grouping: How digits are grouped.
        group_separator: What stands between groups, one character.
        decimal_separator: What stands before the fraction, one character.
        minimum_fraction_digits: Fewest digits of the fraction: with 2, 12.5 is ``12.50``. None: as many as the value
            needs, and for DOUBLE at least one.
        minimum_integer_digits: Fewest digits before the fraction; shorter numbers are preceded by zeros.
        plus: Which numbers have a plus sign.
        negative: How numbers below 0 are written.
        sign_after_prefix: Whether the sign follows the prefix: ``$-5``.
        exponent: When numbers have an exponent.
        exponent_digits: Fewest digits of an exponent.
        exponent_upper: Whether it is introduced by ``E``.
        exponent_plus: Whether exponents that are not negative have a plus sign.
        leading_point: Whether the zero before a fraction is left out: ``.5``.
    """

    prefix: str = ""
    suffix: str = ""
    grouping: Grouping = Grouping.NONE
    group_separator: str = ""
    decimal_separator: str = "."
    minimum_fraction_digits: int | None = None
    minimum_integer_digits: int = 0
    plus: PlusSign = PlusSign.NEVER
    negative: NegativeStyle = NegativeStyle.MINUS
    sign_after_prefix: bool = False
    exponent: ExponentStyle = ExponentStyle.SHORTEST
    exponent_digits: int = 2
    exponent_upper: bool = False
    exponent_plus: bool = False
    leading_point: bool = False


@dataclass(frozen=True)
class DatetimeForm(_Part):
    """How days, times and moments are written. Names are English, whatever the machine's locale.

    Attributes:
        pattern: A strftime pattern, extended: ``%-d %-m %-H %-I %-M`` are not padded; ``%3f`` is a fraction of three
            digits (1 to 9), ``%f`` of as many as it needs; a part in brackets is written unless all of it is zero.
            Empty: the canonical text.
        utc_offset_seconds: Offset from UTC in which moments are written.
        zone: How the offset is written, where the pattern has ``%z``.
        lower_half: Whether ``%p`` is in lower case.
        names: Case of names.
        arrow_zone: Time zone of the Arrow type: a label, which nothing is computed with.
    """

    pattern: str
    utc_offset_seconds: int = 0
    zone: ZoneStyle = ZoneStyle.NONE
    lower_half: bool = False
    names: NameCase = NameCase.TITLE
    arrow_zone: str = ""


@dataclass(frozen=True)
class BooleanForm(_Part):
    """How truth values are written.

    Attributes:
        true_text: Text of true, at most 32 characters.
        false_text: Text of false, at most 32 characters; another one.
    """

    true_text: str
    false_text: str


_FORMS: Mapping[str, type[NumberForm] | type[DatetimeForm] | type[BooleanForm]] = {
    "number": NumberForm,
    "datetime": DatetimeForm,
    "boolean": BooleanForm,
}


@dataclass(frozen=True)
class WrittenForm:
    """How the cells of a column are written; false where that is the canonical way.

    Attributes:
        form: How values are written; None: in the canonical text of the data type.
        storage: Arrow type they are delivered in; None: the canonical type of the data type.
        pad_width: Text is padded with spaces on the left to this many characters, 0 to 64.
    """

    form: NumberForm | DatetimeForm | BooleanForm | None = None
    storage: StorageType | None = None
    pad_width: int = 0

    def __bool__(self) -> bool:
        return self != CANONICAL

    def to_json(self) -> dict[str, Any]:
        """Return the form as JSON values; empty where it is canonical."""
        body: dict[str, Any] = {}
        for name, kind in _FORMS.items():
            if self.form is not None and isinstance(self.form, kind):
                body[name] = self.form.to_json()
        if self.storage is not None:
            body["storage"] = str(self.storage)
        if self.pad_width:
            body["pad_width"] = self.pad_width
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the form that `to_json` wrote.

        Raises:
            ValueError: A field is unknown, or of another type.
        """
        if not isinstance(body, Mapping) or set(body) - {*_FORMS, "storage", "pad_width"}:
            raise ValueError("a written form is malformed")
        forms = [kind.from_json(body[name]) for name, kind in _FORMS.items() if name in body]
        if len(forms) > 1:
            raise ValueError("a written form has two forms")
        return cls(
            form=forms[0] if forms else None,
            storage=StorageType(body["storage"]) if "storage" in body else None,
            pad_width=_field(body.get("pad_width", 0), int, "WrittenForm.pad_width"),
        )


CANONICAL = WrittenForm()
"""Values in their canonical text and type."""
