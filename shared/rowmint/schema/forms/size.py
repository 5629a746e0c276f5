"""How long the texts of a form may become: what the rows of a batch are estimated by."""

from rowmint.schema.forms.moments import MONTHS, WEEKDAYS, PatternPart, parse_pattern
from rowmint.schema.forms.written_form import (
    BooleanForm,
    DatetimeForm,
    ExponentStyle,
    Grouping,
    NumberForm,
    WrittenForm,
)

_DIGITS = 24  # of the longest integer, and of the shortest text of a double
_DOUBLE_DIGITS = 326  # of the smallest and the largest double, written out
_FIELD_BYTES = {"Y": 5, "B": max(map(len, MONTHS)), "A": max(map(len, WEEKDAYS)), "f": 6, "z": 6, "s": 13}


def most_bytes(form: WrittenForm) -> int:
    """Return how many bytes of UTF-8 a value's text may take, about: 0 where the form has no text of its own."""
    match form.form:
        case NumberForm() as number:
            most = _number_bytes(number)
        case DatetimeForm(pattern=pattern) if pattern:
            most = sum(map(_part_bytes, parse_pattern(pattern)))
        case BooleanForm() as booleans:
            most = max(len(booleans.true_text.encode()), len(booleans.false_text.encode()))
        case _:
            most = 0
    return max(most, form.pad_width)


def _number_bytes(form: NumberForm) -> int:
    digits = max(_DOUBLE_DIGITS if form.exponent is ExponentStyle.NEVER else _DIGITS, form.minimum_integer_digits)
    separators = 0 if form.grouping is Grouping.NONE else digits // 2 * len(form.group_separator.encode())
    affixes = len((form.prefix + form.suffix + form.decimal_separator).encode()) + 3  # a sign, or two
    return digits + separators + affixes + (form.minimum_fraction_digits or 0)


def _part_bytes(part: PatternPart) -> int:
    if part.directive:
        return max(_FIELD_BYTES.get(part.directive, 3), part.digits)
    return len(part.text.encode()) + sum(map(_part_bytes, part.optional))
