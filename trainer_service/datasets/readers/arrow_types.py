"""Normalisation of the typed columns of Parquet and Arrow to the few types that ingest supports."""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.errors import DataProblem, InvalidDataError
from rowmint.schema import INT64_MAX, MAX_COLUMN_NAME
from trainer_service.datasets.conversion import Mask, mask
from trainer_service.datasets.datetimes import FIRST_MICROS, LAST_MICROS
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_DESCRIPTION = 1 << 20
_DAY = 86_400_000_000
_YEARS = "lies outside the years 0001 to 9999"
EXPANDED_BYTES = 16 << 20
"""Maximum size of a batch once dictionaries and views are expanded."""
_CELL_BYTES = 16  # of the widest type other than text
_ROWS = 65_536


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
            problems.add(f"column {position} has no name; every column needs one", line=line)
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
        described = str(schema.types) + "".join(
            kind.tz or "" for kind in map(_inner, schema.types) if pa.types.is_timestamp(kind)
        )
    except UnicodeDecodeError as error:
        raise InvalidDataError([DataProblem("a column's name or type is not UTF-8")]) from error
    check_names(names, limits)
    if len(described) > _MAX_DESCRIPTION:
        raise InvalidDataError([DataProblem("the description of the columns' types is too long; use simpler types")])
    problems = Problems()
    for column in schema:
        inner = _inner(column.type)
        if not _is_flat(inner) or (inner is not column.type and pa.types.is_string_view(inner)):
            problems.add(
                f"is of type {column.type}; supported are booleans, numbers, decimals of up to 38 digits, text, dates"
                " and timestamps: convert or drop the column",
                column=column.name,
            )
    problems.raise_any()


def _inner(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_flat(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    decimal = pa.types.is_decimal(kind) and kind.precision <= 38 and 0 <= kind.scale <= kind.precision
    time = pa.types.is_date(kind) or pa.types.is_timestamp(kind)
    return bool(text or number or decimal or time or pa.types.is_null(kind))


def normalised(
    batch: pa.RecordBatch, first_row: int, problems: Problems, limits: IngestLimits
) -> Iterator[pa.RecordBatch]:
    """Yield a batch in one or more slices with few types.

    They are null, bool, int64, float64, decimal128, string, date32, timestamp[us] and timestamp[us, UTC].

    Args:
        batch: A batch whose types have passed `check_types`; it is untrusted, so its offsets and text are validated
            here first.
        first_row: Number of its first row, from 1.
        problems: Receives the rows with values that these types cannot represent.
        limits: Limits of texts and rows.

    Raises:
        InvalidDataError: The batch is inconsistent, or a text is too long.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InvalidDataError(
            [DataProblem("the batch of this row is corrupt; write the file again", row=first_row)]
        ) from error
    columns = [_cleared_views(column) if pa.types.is_string_view(column.type) else column for column in batch.columns]
    batch = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    step = _rows_at_a_time(batch, first_row, limits)
    for start in range(0, len(batch), step):
        piece = batch.slice(start, step)
        columns = [
            _normalised(column, name, first_row + start, problems)
            for name, column in zip(piece.schema.names, piece.columns, strict=True)
        ]
        _check_rows(columns, first_row + start, problems, limits)
        yield pa.RecordBatch.from_arrays(columns, names=piece.schema.names)


def _check_rows(columns: list[pa.Array], first_row: int, problems: Problems, limits: IngestLimits) -> None:
    """Report the rows whose texts together are too long."""
    texts = [column for column in columns if pa.types.is_string(column.type) and len(column) > column.null_count]
    if sum(pc.max(pc.binary_length(column)).as_py() for column in texts) <= limits.row_bytes:
        return
    lengths = np.zeros(len(columns[0]), np.int64)
    for column in texts:
        lengths += pc.binary_length(column).fill_null(0).to_numpy()
    problems.add_rows(limits.row_reason, lengths > limits.row_bytes, first_row, "")


def _cleared_views(array: pa.Array) -> pa.Array:
    """Return a string view array in which the views of missing cells are zero.

    Validation ignores the views of missing cells, but a cast follows them: crafted bytes could read any memory.
    """
    if not array.null_count:
        return array
    validity, views_buffer, *data = array.buffers()
    views = np.frombuffer(views_buffer, dtype=np.uint8, count=16 * (array.offset + len(array))).reshape(-1, 16).copy()
    views[array.offset :][mask(array.is_null())] = 0
    buffers = [validity, pa.py_buffer(views), *data]
    return pa.Array.from_buffers(array.type, len(array), buffers, array.null_count, array.offset)


def _rows_at_a_time(batch: pa.RecordBatch, first_row: int, limits: IngestLimits) -> int:
    """Return how many rows can be expanded at once, as many cells can refer to one long text."""
    longest = _CELL_BYTES * max(batch.num_columns, 1)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        texts = column.dictionary if pa.types.is_dictionary(column.type) else column
        if pa.types.is_string_view(texts.type):
            lengths = np.frombuffer(texts.buffers()[1], dtype=np.int32)[::4] if len(texts) else np.zeros(1, np.int32)
            most = int(lengths[texts.offset : texts.offset + len(texts)].max(initial=0))
        elif texts is not column and (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
            most = pc.max(pc.binary_length(texts)).as_py() or 0
        else:
            continue
        if most > limits.text_bytes:
            message = f"a text in the batch of this row {limits.text_reason}"
            raise InvalidDataError([DataProblem(message, row=first_row, column=name)])
        longest += most
    return int(max(1, min(len(batch), _ROWS, EXPANDED_BYTES // longest)))


def _normalised(array: pa.Array, name: str, first_row: int, problems: Problems) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return array.cast(pa.string())
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            large = mask(pc.greater(array, pa.scalar(INT64_MAX, kind)).fill_null(False))
            problems.add_rows("is beyond the range of 64-bit integers", large, first_row, name)
            array = _without(array, large)
        return array.cast(pa.int64())
    if pa.types.is_floating(kind):
        return array.cast(pa.float64())
    if pa.types.is_decimal(kind):
        return array.cast(pa.decimal128(38, kind.scale))
    if pa.types.is_date(kind):
        days = array.cast(pa.date32()) if pa.types.is_date32(kind) else array.cast(pa.date32(), safe=False)
        numbers = days.cast(pa.int32()).cast(pa.int64())
        outside = _outside(numbers, FIRST_MICROS // _DAY, LAST_MICROS // _DAY)
        problems.add_rows(_YEARS, outside, first_row, name)
        return _without(days, outside)
    if pa.types.is_timestamp(kind):
        return _instants(array, name, first_row, problems)
    return array


def _instants(array: pa.Array, name: str, first_row: int, problems: Problems) -> pa.Array:
    target = pa.timestamp("us", None if array.type.tz is None else "UTC")
    per_micro = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1}[array.type.unit]
    numbers = array.cast(pa.int64())
    if array.type.unit == "ns":
        # Digits past the microsecond are truncated towards the past; its whole range is within years 0001 to 9999.
        micros = np.floor_divide(numbers.fill_null(0).to_numpy(), 1000)
        return pa.array(micros, pa.int64(), mask=~mask(numbers.is_valid())).cast(target)
    outside = _outside(numbers, -(-FIRST_MICROS // per_micro), LAST_MICROS // per_micro)
    problems.add_rows(_YEARS, outside, first_row, name)
    return pc.multiply(_without(numbers, outside), per_micro).cast(target)


def _outside(numbers: pa.Array, low: int, high: int) -> Mask:
    return mask(pc.or_(pc.less(numbers, low), pc.greater(numbers, high)).fill_null(False))


def _without(array: pa.Array, dropped: Mask) -> pa.Array:
    return pc.if_else(pa.array(dropped), pa.scalar(None, array.type), array) if dropped.any() else array
