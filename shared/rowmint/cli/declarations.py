"""Declarations of columns on the command line: `NAME=KIND:FORM` and the like, as messages."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation

from rowmint.errors import InvalidFieldError
from rowmint.rpc.written_forms import form_to_proto
from rowmint.schema.forms import (
    BooleanForm,
    DatetimeForm,
    ExponentStyle,
    Grouping,
    NegativeStyle,
    NumberForm,
    PlusSign,
    WrittenForm,
)
from rowmint.schema.forms.moments import parse_pattern
from rowmint.schema.forms.number_layouts import NumberLayout, number_layouts
from rowmint.v1 import schema_pb2, value_pb2

KINDS = {name.removeprefix("COLUMN_KIND_").lower(): number for name, number in schema_pb2.ColumnKind.items() if number}
"""Kinds of columns by the name that the command has for them."""

_DECLARATION = re.compile(rf'(?P<name>"(?:[^"]|"")+"|.+?)=(?P<kind>{"|".join(KINDS)})(?::(?P<form>.*))?', re.IGNORECASE)
_NAMED = re.compile(r'(?P<name>"(?:[^"]|"")+"|[^=]+)=(?P<value>.*)')
_GROUPINGS = (Grouping.THOUSANDS, Grouping.INDIAN, Grouping.MYRIAD)
"""Where the groups of a sample fit several, the first is meant."""
_FORM_HELP = (
    "NAME=KIND or NAME=KIND:FORM, KIND one of numerical, categorical, datetime, boolean, id, ignored; FORM a date"
    " pattern such as %d.%m.%Y, a number as it is written such as '$1,234.50', yes/no, or a pattern of ids such as"
    " KD-[0-9]{6}"
)


def declared_columns(texts: Iterable[str]) -> list[schema_pb2.ColumnSpec]:
    """Return the columns that texts of the form NAME=KIND[:FORM] declare; a name may be in double quotes.

    Raises:
        InvalidFieldError: One is not of that form, its kind is unknown, or its form is none of that kind.
    """
    columns = []
    for text in texts:
        found = _DECLARATION.fullmatch(text)
        if found is None:
            raise InvalidFieldError("--column", f"{text!r} is not {_FORM_HELP}")
        column = schema_pb2.ColumnSpec(name=_unquoted(found["name"]), kind=KINDS[found["kind"].lower()])
        if found["form"] is not None:
            _set_form(column, found["kind"].lower(), found["form"])
        columns.append(column)
    return columns


def with_values(columns: list[schema_pb2.ColumnSpec], values: Mapping[str, Iterable[str]]) -> None:
    """Add to columns what texts of the form NAME=VALUE declare of them; columns that are missing are added.

    Args:
        columns: The columns, changed in place.
        values: Such texts by option: `--column-null`, `--minimum`, `--maximum`.

    Raises:
        InvalidFieldError: A text is not of that form.
    """
    by_name = {column.name: column for column in columns}
    for option, texts in values.items():
        for text in texts:
            found = _NAMED.fullmatch(text)
            if found is None:
                raise InvalidFieldError(option, f"{text!r} is not NAME=VALUE")
            name = _unquoted(found["name"])
            if name not in by_name:
                by_name[name] = schema_pb2.ColumnSpec(name=name)
                columns.append(by_name[name])
            column = by_name[name]
            if option == "--column-null":
                column.null_values.append(found["value"])
            else:
                bound = column.domain.minimum if option == "--minimum" else column.domain.maximum
                bound.CopyFrom(_bound(found["value"]))


def _bound(text: str) -> value_pb2.Value:
    """Return a bound; the service converts it to the type of its column."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return value_pb2.Value(date_value=text)
        return value_pb2.Value(timestamp_value=text)
    if number == number.to_integral_value() and abs(number) < 2**63:
        return value_pb2.Value(int64_value=int(number))
    return value_pb2.Value(double_value=float(number))


def _unquoted(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        return name[1:-1].replace('""', '"')
    return name


def _set_form(column: schema_pb2.ColumnSpec, kind: str, form: str) -> None:
    match kind:
        case "datetime":
            parse_pattern(form, f"--column {column.name}")
            column.written_form.CopyFrom(form_to_proto(WrittenForm(DatetimeForm(form))))
        case "numerical":
            spelling, colon, decimals = form.rpartition(":")
            if not colon and form.isdigit():
                spelling, decimals = "", form
            elif not colon:
                spelling, decimals = form, ""
            if decimals:
                if not (decimals.isdigit() and int(decimals) <= 15):
                    raise InvalidFieldError("--column", f"{column.name}: {decimals!r} decimals; give 0 to 15")
                column.domain.decimals = int(decimals)
            if spelling:
                column.written_form.CopyFrom(form_to_proto(WrittenForm(_number_form(spelling, column.name))))
        case "boolean":
            true, slash, false = form.partition("/")
            if not (slash and true and false and true != false):
                raise InvalidFieldError("--column", f"{column.name}: {form!r} is not two texts such as yes/no")
            column.written_form.CopyFrom(form_to_proto(WrittenForm(BooleanForm(true, false))))
        case "id":
            column.id_pattern = form
        case _:
            raise InvalidFieldError("--column", f"{column.name}: {kind} has no form; {form!r} is one too many")


def _number_form(spelling: str, name: str) -> NumberForm:
    """Return the form of a number that is written as a sample shows.

    Raises:
        InvalidFieldError: It is not written as a number, or can be read in two ways.
    """
    layouts = number_layouts(re.sub(r"[1-9]", "0", spelling))
    if not layouts:
        raise InvalidFieldError("--column", f"{name}: {spelling!r} is not written as a number, such as $1,234.50")
    if len(layouts) > 1:
        raise InvalidFieldError(
            "--column",
            f"{name}: {spelling!r} can be read in two ways; show a number with groups and a fraction: 1,234.50",
        )
    return _form_of(layouts[0])


def _form_of(layout: NumberLayout) -> NumberForm:
    grouping = next((one for one in _GROUPINGS if one in layout.groupings), Grouping.NONE)
    decimals = {pair.decimal for pair in layout.separators}
    return NumberForm(
        prefix=layout.prefix,
        suffix=layout.suffix,
        grouping=grouping,
        group_separator=layout.group if grouping is not Grouping.NONE else "",
        decimal_separator="." if "." in decimals else min(decimals),
        minimum_fraction_digits=len(layout.fraction),
        plus=PlusSign.POSITIVE if layout.plus else PlusSign.NEVER,
        negative=NegativeStyle.MINUS if layout.negative is None else layout.negative,
        sign_after_prefix=layout.sign_after_prefix,
        exponent=ExponentStyle.ALWAYS if layout.exponent else ExponentStyle.SHORTEST,
        exponent_digits=len(layout.exponent) or NumberForm.exponent_digits,
        exponent_upper=layout.exponent_upper,
        exponent_plus=layout.exponent_sign == "+",
        leading_point=not layout.whole,
    )
