"""Names and types of the columns of typed formats: which are supported, and what to do about the others."""

import re

import pyarrow as pa

from rowmint.errors import DataProblem, InvalidDataError
from rowmint.schema import MAX_COLUMN_NAME
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_DESCRIPTION = 1 << 20
_MAX_ZONE = 64
_MAX_SHOWN = 64
_MAX_SCALE = 38


class Expansion:
    """Counts the expanded size of a table.

    Args:
        limits: Limits of the table.
    """

    def __init__(self, limits: IngestLimits) -> None:
        self._limits = limits
        self._bytes = 0

    def add(self, piece: pa.RecordBatch, row: int) -> None:
        """Add a slice that starts at about `row`.

        Raises:
            InvalidDataError: The table is too large.
        """
        # Cells of type null have no bytes, but take time to process.
        self._bytes += max(piece.nbytes, len(piece) * max(piece.num_columns, 1))
        if self._bytes > self._limits.decompressed_bytes:
            raise InvalidDataError([DataProblem(f"the table {self._limits.decompressed_reason}", row=row)])


def check_names(names: list[str], limits: IngestLimits, line: int = 0) -> None:
    """Check the names of a table's columns.

    Raises:
        InvalidDataError: There are none or too many, or a name is empty, too long, repeated or contains U+0000; all
            problems are listed.
    """
    problems = Problems()
    if not 1 <= len(names) <= limits.columns:
        problems.add(f"has {len(names)} columns; {limits.columns_reason}", line=line)
    seen: dict[str, int] = {}
    for position, name in enumerate(names, 1):
        if not name:
            hint = "" if position > 1 else " (an index that pandas wrote has none; index=False leaves it out)"
            problems.add(f"column {position} has no name; every column needs one{hint}", line=line)
        elif len(name) > MAX_COLUMN_NAME:
            problems.add(f"the name of column {position} is longer than {MAX_COLUMN_NAME} characters", line=line)
        elif _SURROGATE.search(name):
            problems.add(f"the name of column {position} has an unpaired surrogate, which is not valid text", line=line)
        elif "\0" in name:
            problems.add(f"the name of column {position} contains U+0000, which is not allowed", line=line)
        elif name in seen:
            message = f"columns {seen[name]} and {position} have the same name; rename one"
            problems.add(message, line=line, column=name)
        else:
            seen[name] = position
    problems.raise_any()


def check_types(schema: pa.Schema, limits: IngestLimits) -> None:
    """Check that every column is of a supported type.

    Raises:
        InvalidDataError: Some are not; all are listed.
    """
    try:
        names = list(schema.names)
        zones = [kind.tz or "" for kind in map(inner, schema.types) if pa.types.is_timestamp(kind)]
        described = str(schema.types) + "".join(zones)
    except UnicodeDecodeError as error:
        raise InvalidDataError([DataProblem("a column's name or type is not UTF-8")]) from error
    check_names(names, limits)
    if len(described) > _MAX_DESCRIPTION:
        raise InvalidDataError([DataProblem("the description of the columns' types is too long; use simpler types")])
    problems = Problems()
    for column in schema:
        kind = inner(column.type)
        if pa.types.is_timestamp(kind) and len(kind.tz or "") > _MAX_ZONE:
            problems.add(f"has a time zone of more than {_MAX_ZONE} characters", column=column.name)
        elif not _is_flat(kind):
            shown = str(column.type)[:_MAX_SHOWN]
            problems.add(f"is of type {shown}; {_remedy(kind)}", column=column.name)
    problems.raise_any()


def inner(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary type; else the type itself."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def extension(kind: pa.DataType) -> str:
    """Return the name of an extension type, at most 64 characters; empty for other types."""
    return kind.extension_name[:_MAX_SHOWN] if isinstance(kind, pa.BaseExtensionType) else ""


def _is_flat(kind: pa.DataType) -> bool:
    if name := extension(kind):
        return name == "arrow.uuid" or (not extension(kind.storage_type) and _is_flat(kind.storage_type))
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    decimal = pa.types.is_decimal(kind) and 0 <= kind.scale <= min(kind.precision, _MAX_SCALE)
    time = pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind)
    return bool(text or number or decimal or time or pa.types.is_null(kind))


def _remedy(kind: pa.DataType) -> str:
    """Return what can be done about a column of an unsupported type."""
    if pa.types.is_struct(kind):
        return "flatten it to one column per field (pyarrow: Table.flatten), or drop it"
    if pa.types.is_nested(kind):
        return "a cell holds one value: write one row per element, or join them to text, or drop the column"
    if pa.types.is_decimal(kind):
        return f"write decimals with 0 to {_MAX_SCALE} digits after the point, as many as the whole number or fewer"
    if pa.types.is_interval(kind):
        return "an interval of months has no length: cast it to a duration or to an integer, or drop the column"
    if pa.types.is_run_end_encoded(kind):
        return "decode it (pyarrow.compute.run_end_decode)"
    return (
        "supported are booleans, numbers, decimals, text, dates, times and timestamps: cast it to one of them, such as"
        " bytes to text, or drop the column"
    )
