"""Validation of written forms: what a caller declares, what inference finds and what a model holds."""

import re

from rowmint.errors import InvalidFieldError
from rowmint.schema.cell import DataType
from rowmint.schema.forms.moments import directives, has_day, is_time_of_day, parse_pattern
from rowmint.schema.forms.number_layouts import MAX_AFFIX, NO_TEXT
from rowmint.schema.forms.storage import STORAGE_OF_TYPE
from rowmint.schema.forms.written_form import BooleanForm, DatetimeForm, Grouping, NumberForm, WrittenForm, ZoneStyle

MAX_PAD_WIDTH = 64
MAX_FRACTION_DIGITS = 38
MAX_EXPONENT_DIGITS = 4
_MAX_WORD = 32
_MAX_DIGITS = 38
_MAX_OFFSET = 86_400
_ZONE = re.compile(r"[A-Za-z0-9_+\-/:]{0,64}")
_NOT_A_LEAD = ("=", "+", "-", "@", "(", "\N{MINUS SIGN}")
_NOT_A_SEPARATOR = re.compile(r"[0-9+\-()eE\N{MINUS SIGN}]")


def validate_form(form: WrittenForm, data_type: DataType | None, field: str) -> None:
    """Check a form by itself and against the type of its column.

    Args:
        form: The form.
        data_type: How the column is stored; None where that is not known yet.
        field: Path of the form, for errors.

    Raises:
        InvalidFieldError: A field is out of its range or contradicts another, or the column's type.
    """
    if not 0 <= form.pad_width <= MAX_PAD_WIDTH:
        raise InvalidFieldError(f"{field}.pad_width", f"is {form.pad_width}; must be 0 to {MAX_PAD_WIDTH}")
    if form.storage is not None and data_type is not None and form.storage not in STORAGE_OF_TYPE[data_type]:
        raise InvalidFieldError(f"{field}.storage", f"a {data_type} column cannot be delivered as {form.storage}")
    match form.form:
        case NumberForm() as number:
            _of_type(data_type, (DataType.INT64, DataType.DOUBLE, DataType.DECIMAL), f"{field}.number")
            _validate_number(number, f"{field}.number")
        case DatetimeForm() as moments:
            _of_type(data_type, (DataType.DATE, DataType.TIMESTAMP, DataType.INT64), f"{field}.datetime")
            _validate_datetime(moments, data_type, f"{field}.datetime")
        case BooleanForm() as booleans:
            _of_type(data_type, (DataType.BOOL,), f"{field}.boolean")
            _validate_boolean(booleans, f"{field}.boolean")


def _of_type(data_type: DataType | None, possible: tuple[DataType, ...], field: str) -> None:
    if data_type is not None and data_type not in possible:
        raise InvalidFieldError(field, f"a {data_type} column is not written that way")


def _within(value: int, least: int, most: int, field: str) -> None:
    if not least <= value <= most:
        raise InvalidFieldError(field, f"is {value}; must be {least} to {most}")


def _validate_number(form: NumberForm, field: str) -> None:
    for name, text in (("prefix", form.prefix), ("suffix", form.suffix)):
        if len(text) > MAX_AFFIX or NO_TEXT.search(text) or any(letter.isdigit() for letter in text):
            raise InvalidFieldError(f"{field}.{name}", f"must be at most {MAX_AFFIX} characters, none of them digits")
    if form.prefix[:1] in _NOT_A_LEAD:
        raise InvalidFieldError(f"{field}.prefix", f"begins with {form.prefix[0]!r}, which would be taken for a sign")
    separators = [("decimal_separator", form.decimal_separator)]
    if form.grouping is not Grouping.NONE:
        separators.append(("group_separator", form.group_separator))
    elif form.group_separator:
        raise InvalidFieldError(f"{field}.group_separator", "is given, but digits are not grouped; set grouping")
    for name, text in separators:
        if len(text) != 1 or NO_TEXT.search(text) or _NOT_A_SEPARATOR.search(text):
            raise InvalidFieldError(f"{field}.{name}", f"is {text!r}; must be one character, not a digit or sign")
    if form.group_separator == form.decimal_separator:
        raise InvalidFieldError(f"{field}.group_separator", "is the decimal separator; give two different characters")
    _within(form.minimum_fraction_digits or 0, 0, MAX_FRACTION_DIGITS, f"{field}.minimum_fraction_digits")
    _within(form.minimum_integer_digits, 0, _MAX_DIGITS, f"{field}.minimum_integer_digits")
    _within(form.exponent_digits, 1, MAX_EXPONENT_DIGITS, f"{field}.exponent_digits")


def _validate_datetime(form: DatetimeForm, data_type: DataType | None, field: str) -> None:
    if _ZONE.fullmatch(form.arrow_zone) is None:
        raise InvalidFieldError(f"{field}.arrow_zone", "is not the name of a time zone")
    if abs(form.utc_offset_seconds) >= _MAX_OFFSET or form.utc_offset_seconds % 60:
        raise InvalidFieldError(
            f"{field}.utc_offset_seconds", f"is {form.utc_offset_seconds}; must be whole minutes within a day"
        )
    if not form.pattern:
        # The canonical text; the form says what the Arrow type is.
        return
    path = f"{field}.pattern"
    parse_pattern(form.pattern, path)
    if data_type is DataType.INT64:
        fits, holds = is_time_of_day(form.pattern), "an hour and no part of a day"
    elif data_type is None:
        fits, holds = has_day(form.pattern) or is_time_of_day(form.pattern), "a whole day, or an hour alone"
    else:
        fits, holds = has_day(form.pattern), "year, month and day"
    if not fits:
        raise InvalidFieldError(path, f"{form.pattern!r} must contain {holds}")
    zoned = "z" in directives(form.pattern)
    if zoned != (form.zone is not ZoneStyle.NONE):
        raise InvalidFieldError(f"{field}.zone", "says how %z is written; set it with %z, and only then")
    if form.utc_offset_seconds and form.zone in (ZoneStyle.Z, ZoneStyle.UTC, ZoneStyle.GMT):
        raise InvalidFieldError(f"{field}.zone", f"{form.zone} stands for an offset of 0")


def _validate_boolean(form: BooleanForm, field: str) -> None:
    for name, text in (("true_text", form.true_text), ("false_text", form.false_text)):
        if not 1 <= len(text) <= _MAX_WORD or text != text.strip() or NO_TEXT.search(text):
            raise InvalidFieldError(
                f"{field}.{name}", f"must have 1 to {_MAX_WORD} characters, without space around them"
            )
    if form.true_text == form.false_text:
        raise InvalidFieldError(f"{field}.false_text", "is the text of true as well")
