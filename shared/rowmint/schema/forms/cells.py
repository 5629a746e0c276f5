"""Cells as the text of their column, and back: one at a time, exactly.

Vectorised writers and readers give what these functions give.
"""

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from rowmint.schema.cell import (
    EPOCH,
    EPOCH_DATE,
    EPOCH_UTC,
    INT64_MAX,
    INT64_MIN,
    Cell,
    DataType,
    cell_text,
    parse_cell,
)
from rowmint.schema.column import ColumnKind, ColumnSpec
from rowmint.schema.forms.id_pattern import parse_id_pattern
from rowmint.schema.forms.moments import DAY, moment_text, read_moment
from rowmint.schema.forms.numbers import MAX_NUMBER_TEXT, number_text, read_number
from rowmint.schema.forms.written_form import (
    BooleanForm,
    DatetimeForm,
    Grouping,
    NegativeStyle,
    NumberForm,
    PlusSign,
    StorageType,
)

_MICROSECOND = timedelta(microseconds=1)
_DAY_DIGITS = 86_399_999_999  # the last microsecond of a day
_EXAMPLE_NUMBERS = ("1234", "87", "350", "-1234", "26081", "5")
_EXAMPLE_FRACTION = "372915864027193"
_EXAMPLE_MOMENTS = (
    datetime(2021, 3, 14, 9, 26, 53, 589_793),  # noqa: DTZ001 - local times have no zone
    datetime(1998, 11, 5, 0, 0, 0),  # noqa: DTZ001
    datetime(2009, 8, 27, 18, 4, 5),  # noqa: DTZ001
)


def moment_of(cell: Cell) -> int:
    """Return a date, datetime or time of day (an integer) as `rowmint.schema.forms.moments` has it.

    Raises:
        ValueError: It is another cell.
    """
    if isinstance(cell, datetime):
        return (cell - (EPOCH_UTC if cell.tzinfo else EPOCH)) // _MICROSECOND
    if isinstance(cell, date):
        return (cell - EPOCH_DATE).days * DAY
    if isinstance(cell, int) and not isinstance(cell, bool):
        return cell
    raise ValueError(f"{cell!r} is neither a date nor a time")


def written(cell: Cell, column: ColumnSpec) -> str:
    """Return a present cell as its column writes it: in its form, else its datetime format, else canonically.

    Raises:
        ValueError: The cell is None, or not of the form's type.
    """
    form = column.written_form
    match form.form:
        case NumberForm() if isinstance(cell, int | float | Decimal) and not isinstance(cell, bool):
            text = number_text(cell, form.form)
        case DatetimeForm(pattern=pattern) if pattern:
            text = moment_text(moment_of(cell), form.form)
        case BooleanForm() if isinstance(cell, bool):
            text = form.form.true_text if cell else form.form.false_text
        case None | DatetimeForm() if column.datetime_format and isinstance(cell, date):
            local = cell.astimezone(UTC) if isinstance(cell, datetime) and cell.tzinfo else cell
            text = local.strftime(column.datetime_format)
        case None | DatetimeForm():
            text = cell_text(cell)
        case _:
            raise ValueError(f"{cell!r} is not of the type that column {column.name!r} writes")
    return text.rjust(form.pad_width)


def json_bare(column: ColumnSpec) -> bool:
    """Say whether the texts of a column are numbers or truth values of JSON, and so written without quotes."""
    match column.written_form.form:
        case NumberForm() as form:
            plain = form.grouping is Grouping.NONE and form.decimal_separator == "." and not form.leading_point
            signs = form.plus is PlusSign.NEVER and form.negative is NegativeStyle.MINUS
            return plain and signs and not form.prefix + form.suffix and form.minimum_integer_digits <= 1
        case BooleanForm() as form:
            return (form.true_text, form.false_text) == ("true", "false")
        case DatetimeForm(pattern=pattern) if pattern:
            return False
    match column.data_type:
        case DataType.STRING:
            return column.written_form.storage is StorageType.UINT64
        case DataType.DATE | DataType.TIMESTAMP:
            return False
        case _:
            return True


def read(text: str, column: ColumnSpec) -> Cell:
    """Return the cell that a text is in a column: in the column's own form, else canonical.

    Where a text can be read both ways, the column's form counts: 1.234 is 1234 where points group digits. Space around
    it counts only in a column of text that is not padded.

    Raises:
        ValueError: It is neither; the message names both forms.
    """
    data_type = column.data_type
    if data_type is None or data_type is DataType.STRING:
        return text.lstrip(" ") if column.written_form.pad_width else text
    stripped = text.strip()
    refusal = ""
    try:
        own = _read_own(stripped, column)
    except ValueError as error:
        refusal = f"{error}, nor {data_type} in its canonical form: "
    else:
        if own is not None:
            return own
    try:
        return _read_canonical(stripped, column)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{refusal}{error}") from error


def _read_own(text: str, column: ColumnSpec) -> Cell:
    """Return the cell of a text in the column's form, or None where it has none."""
    match column.written_form.form:
        case NumberForm() as form:
            return _number_cell(read_number(text, form), column)
        case DatetimeForm(pattern=pattern) as form if pattern:
            return _moment_cell(read_moment(text, form), column)
        case BooleanForm() as form:
            folded = text.casefold()
            # Where two words differ by case alone, case counts.
            words = {form.true_text.casefold(): True, form.false_text.casefold(): False}
            if len(words) < 2:
                folded, words = text, {form.true_text: True, form.false_text: False}
            if folded not in words:
                raise ValueError(f"{text!r} is neither {form.true_text!r} nor {form.false_text!r}")
            return words[folded]
    if column.datetime_format and column.data_type in (DataType.DATE, DataType.TIMESTAMP):
        moment = datetime.strptime(text, column.datetime_format)  # noqa: DTZ007 - the format says whether it has one
        return moment.date() if column.data_type is DataType.DATE else moment
    return None


def _read_canonical(text: str, column: ColumnSpec) -> Cell:
    match column.data_type:
        case DataType.BOOL:
            return bool(parse_cell(text.lower(), DataType.BOOL))
        case DataType.INT64 | DataType.DOUBLE | DataType.DECIMAL:
            if len(text) > MAX_NUMBER_TEXT:
                raise ValueError(f"a text of {len(text)} characters is not read as a number")
            number = parse_cell(text, DataType.DECIMAL)
            if not isinstance(number, Decimal) or not number.is_finite():
                raise ValueError(f"{text!r} is not a finite number")
            return _number_cell(number, column)
        case DataType.DATE:
            return date.fromisoformat(text)
        case _:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None and column.time_zone and len(text) <= len("2020-01-01"):
                return moment.replace(tzinfo=UTC)  # a day stands for its midnight
            return moment


def _number_cell(number: Decimal, column: ColumnSpec) -> Cell:
    match column.data_type:
        case DataType.DECIMAL:
            return number
        case DataType.DOUBLE:
            double = float(number)
            if not math.isfinite(double):
                raise ValueError(f"{number} is beyond binary64")
            return double
        case _:
            if number.adjusted() > len(str(INT64_MAX)) or number != number.to_integral_value():
                raise ValueError(f"{number} is not an integer of 64 bits")
            if not INT64_MIN <= number <= INT64_MAX:
                raise ValueError(f"{number} is not an integer of 64 bits")
            return int(number)


def _moment_cell(moment: int, column: ColumnSpec) -> Cell:
    match column.data_type:
        case DataType.DATE:
            days, rest = divmod(moment, DAY)
            if rest:
                raise ValueError("a day has no time of day")
            return EPOCH_DATE + timedelta(days=days)
        case DataType.TIMESTAMP:
            return (EPOCH_UTC if column.time_zone else EPOCH) + moment * _MICROSECOND
        case _:
            return moment


def example(column: ColumnSpec, index: int) -> str:
    """Return a made-up cell as the column writes it; only its type and form are looked at, never its values.

    Args:
        column: The column; its type is known.
        index: Which one, 0 or more; neighbours differ.
    """
    return written(_example_cell(column, index), column)


def _example_cell(column: ColumnSpec, index: int) -> Cell:
    if column.kind is ColumnKind.ID and column.id_pattern:
        language = parse_id_pattern(column.id_pattern)
        return language.text((index + 1) * 0x9E3779B97F4A7C15 % language.size)
    whole = _EXAMPLE_NUMBERS[index % len(_EXAMPLE_NUMBERS)]
    digits = 2 if column.domain.decimals is None else column.domain.decimals
    fraction = f".{_EXAMPLE_FRACTION[index % 3 :][:digits]}" if digits else ""
    moment = _EXAMPLE_MOMENTS[index % len(_EXAMPLE_MOMENTS)]
    match column.data_type:
        case DataType.BOOL:
            return index % 2 == 0
        case DataType.INT64 if isinstance(column.written_form.form, DatetimeForm):
            return (index + 1) * 23_456_789_000 % _DAY_DIGITS
        case DataType.INT64:
            return int(whole)
        case DataType.DOUBLE:
            return float(whole + fraction)
        case DataType.DECIMAL:
            return Decimal(whole + fraction)
        case DataType.DATE:
            return moment.date()
        case DataType.TIMESTAMP:
            return moment.replace(tzinfo=UTC) if column.time_zone else moment
        case _:
            return f"text {index + 1}"
