"""Ingest: converts uploaded bytes to a canonical table, in two passes and bounded memory.

The first pass infers the type of each column from all rows; the second converts every row, checks it against the
declarations, and writes the canonical Parquet file. ***Each input row is in the canonical table exactly once***, or
ingest fails.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from rowmint.errors import CancelledError, DataProblem, InvalidDataError, InvalidFieldError
from rowmint.schema import (
    KINDS_OF_TYPE,
    ColumnKind,
    ColumnSpec,
    DataType,
    Domain,
    TableSchema,
    validate_declared,
    with_nullable,
)
from rowmint.schema.sdv import sdv_metadata
from trainer_service.datasets.column_profile import ColumnProfile
from trainer_service.datasets.column_types import Target, TypeInference
from trainer_service.datasets.conversion import ImpossibleError, convert, reason
from trainer_service.datasets.declarations import converted_domain, require_columns, violations
from trainer_service.datasets.formats import DataFormat, format_from_json
from trainer_service.datasets.inferred_types import types_from_json, types_to_json
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import MAX_PROBLEMS, Problems
from trainer_service.datasets.readers import TableReader, open_reader
from trainer_service.datasets.uniqueness import DistinctnessTest, repeated_rows

_log = structlog.get_logger(__name__)

SAMPLE_ROWS = 1000
"""Number of rows given to SDV's detection of the primary key."""
ID_ROWS = 100
"""A text column is considered an ID if it has at least this many values, all distinct."""
_GROUP_ROWS = 65_536
_GROUP_BYTES = 16 << 20
# Size of the slices processed at once: testing for distinct values takes about thirty times a text's bytes, and about
# twenty times those of a row of one byte.
_PIECE_ROWS = 1 << 17
_PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class IngestResult:
    """A canonical table.

    Attributes:
        schema: Its schema.
        row_count: Number of rows, at least 1.
        path: The canonical Parquet file, in the scratch directory.
        profile: Profiles of the columns, JSON values of bounded size.
        sdv_metadata: The schema in SDV's JSON form.
    """

    schema: TableSchema
    row_count: int
    path: Path
    profile: Mapping[str, Any]
    sdv_metadata: Mapping[str, Any]


class Column:
    """State of the second pass for one column."""

    def __init__(self, name: str, target: Target, declared: ColumnSpec | None) -> None:
        self.name = name
        self.target = target
        self.declared = ColumnSpec(name) if declared is None else declared
        self.domain = converted_domain(self.declared, target)
        self.profile = ColumnProfile(target.data_type)
        self.distinctness: DistinctnessTest | None = None


def ingest(
    source: io.RawIOBase,
    data_format: DataFormat | Mapping[str, Any],
    overrides: tuple[ColumnSpec, ...],
    primary_key: str,
    scratch: Path,
    *,
    limits: IngestLimits | None = None,
    types: Mapping[str, Any] | None = None,
    on_types: Callable[[dict[str, Any]], None] | None = None,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    propose_key: Callable[[pa.Table], str] | None = None,
) -> IngestResult:
    """Convert uploaded bytes to a canonical table.

    Args:
        source: The bytes, seekable, for example a `SegmentReader`.
        data_format: Their format, or its JSON values.
        overrides: Declared columns.
        primary_key: Declared primary key; empty: one is proposed from the data, and used if it is unique in all rows.
        scratch: An empty directory; the resulting file stays in it.
        limits: Limits of the table and its parts; None for the defaults.
        types: Argument of `on_types` in an earlier attempt on the same bytes, which replaces the first pass; or None.
        on_types: Called with the types that the first pass inferred, JSON values.
        progress: Called regularly with the share done, 0 to 1.
        cancelled: Called regularly; returns whether to stop.
        propose_key: Returns the name of a likely primary key of a sample of at most 1,000 rows, or ""; default: SDV's
            detection.

    Raises:
        InvalidDataError: The bytes are not a table of this format, or violate declarations; has the first 100 problems.
        ColumnNotFoundError: A declared column does not exist.
        InvalidFieldError: A declaration is inconsistent, or does not fit the column's type.
        DataLossError: Stored bytes are corrupt.
        CancelledError: `cancelled` returned true.
    """
    validate_declared(overrides)
    if isinstance(data_format, Mapping):
        data_format = format_from_json(data_format)
    reporter = _ProgressReporter(source, progress, cancelled)
    limits = IngestLimits() if limits is None else limits
    reader = open_reader(source, data_format, limits, scratch)
    columns = None if types is None else _earlier_types(types, overrides)
    if columns is None:
        columns = _infer_types(reader, overrides, primary_key, reporter)
        if on_types is not None:
            on_types(types_to_json((column.name, column.target) for column in columns))
    path = scratch / "table.parquet"
    rows = _convert(reader, columns, primary_key, path, reporter, limits=limits)
    key = primary_key
    if primary_key:
        _require_unique(reader, columns, primary_key, path)
    else:
        possible = {column.name for column in columns if _may_be_key(column, path)}
        # Detection takes seconds, so it is skipped if no column can be the primary key.
        proposed = (sdv_primary_key if propose_key is None else propose_key)(_sample(path)) if possible else ""
        key = proposed if proposed in possible else ""
    schema = TableSchema(tuple(_spec(column, rows, key, path) for column in columns), key)
    for column in columns:
        if column.distinctness is not None:
            column.distinctness.close()
    profile: dict[str, Any] = {"rows": rows, "columns": {column.name: column.profile.to_json() for column in columns}}
    if reader.dialect is not None:
        profile["dialect"] = reader.dialect.to_json()
    reporter.done()
    return IngestResult(schema, rows, path, profile, sdv_metadata(schema))


class _ProgressReporter:
    """Reports progress and checks for cancellation, once per batch."""

    def __init__(
        self,
        source: io.RawIOBase,
        progress: Callable[[float], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._source = source
        self._progress = progress
        self._cancelled = cancelled
        self._size = max(source.seek(0, io.SEEK_END), 1)
        self._share = 0.0

    def batch(self, number: int) -> None:
        """Report progress before a batch of pass `number`, 0 or 1.

        Raises:
            CancelledError: The ingest was cancelled.
        """
        if self._cancelled is not None and self._cancelled():
            raise CancelledError("the ingest was cancelled")
        # Some formats are not read sequentially; the reported progress never decreases.
        self._share = max(self._share, min(0.99, (number + self._source.tell() / self._size) / 2))
        if self._progress is not None:
            self._progress(self._share)

    def done(self) -> None:
        """Report completion."""
        if self._progress is not None:
            self._progress(1.0)


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in slices of a few megabytes at most, unless a single row is larger."""
    for batch in batches:
        left = [batch]
        while left:
            piece = left.pop()
            rows = len(piece)
            if rows > _PIECE_ROWS or (rows > 1 and piece.nbytes > _PIECE_BYTES):
                left += [piece.slice(rows // 2), piece.slice(0, rows // 2)]
            else:
                yield piece


def _earlier_types(types: Mapping[str, Any], overrides: tuple[ColumnSpec, ...]) -> list[Column] | None:
    """Return the columns inferred by the first pass of an earlier attempt; None if they are not usable."""
    declared = {column.name: column for column in overrides}
    try:
        return [Column(name, target, declared.get(name)) for name, target in types_from_json(types, overrides)]
    except ValueError as error:
        _log.warning("inferred types of an earlier attempt are unusable; the first pass is repeated", error=str(error))
        return None


def _infer_types(
    reader: TableReader, overrides: tuple[ColumnSpec, ...], primary_key: str, reporter: _ProgressReporter
) -> list[Column]:
    """Return the table's columns, with types that represent all of their values."""
    declared = {column.name: column for column in overrides}
    inferences: dict[str, TypeInference] = {}
    problems, rows = Problems(), 0
    for batch in _pieces(reader.batches(problems)):
        reporter.batch(0)
        rows += len(batch)
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name not in inferences:
                inferences[name] = TypeInference(name, reader.inference, declared.get(name))
            inferences[name].add(array)
        if problems.full:
            break
    _raise_located(problems, reader)
    if not rows:
        raise InvalidDataError([DataProblem("the file has no rows; a table needs at least one")])
    if not inferences:
        raise InvalidDataError([DataProblem("the file has no columns; a table needs at least one")])
    require_columns(overrides, primary_key, list(inferences))
    return [
        Column(name, inference.target(is_key=name == primary_key), declared.get(name))
        for name, inference in inferences.items()
    ]


def _convert(
    reader: TableReader,
    columns: list[Column],
    primary_key: str,
    path: Path,
    reporter: _ProgressReporter,
    *,
    limits: IngestLimits,
) -> int:
    """Write the canonical file and return its number of rows."""
    for index, column in enumerate(columns):
        if column.target.data_type in (DataType.INT64, DataType.STRING):
            column.distinctness = DistinctnessTest(path.with_name(f"keys-{index}"))
    schema = pa.schema([(column.name, column.target.arrow_type) for column in columns])
    problems, rows = Problems(), 0
    with _Writer(path, schema) as writer:
        for batch in _pieces(reader.batches(problems)):
            reporter.batch(1)
            found = {name: array for name, array in zip(batch.schema.names, batch.columns, strict=True) if len(batch)}
            arrays = [
                _convert_column(column, found.get(column.name), len(batch), rows + 1, problems, limits=limits)
                for column in columns
            ]
            for column, array in zip(columns, arrays, strict=True):
                _profile(column, array, is_key=column.name == primary_key)
                if column.name == primary_key and array.null_count:
                    missing = array.is_null().to_numpy(zero_copy_only=False)
                    problems.add_rows("is missing, but is the primary key", missing, rows + 1, column.name)
            writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
            rows += len(batch)
            if problems.full:
                break
    _raise_located(problems, reader)
    return rows


def _convert_column(
    column: Column, array: pa.Array | None, length: int, first_row: int, problems: Problems, *, limits: IngestLimits
) -> pa.Array:
    if array is None:
        array = pa.nulls(length)
    try:
        converted, bad = convert(array, column.target, limits)
    except ImpossibleError as error:
        raise InvalidDataError([DataProblem(str(error), column=column.name)]) from error
    problems.add_rows(reason(column.target, limits), bad, first_row, column.name)
    for message, rows in violations(converted, column.domain, column.target):
        problems.add_rows(message, rows & ~bad, first_row, column.name)
    return converted


def _profile(column: Column, array: pa.Array, *, is_key: bool) -> None:
    column.profile.add(array)
    if column.distinctness is not None:
        column.distinctness.add(array)
        # Most columns repeat a value in their first batch, and are not tested further.
        if not is_key and not column.profile.all_distinct:
            column.distinctness.close()
            column.distinctness = None


class _Writer:
    """Writes record batches in row groups of even size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = pq.ParquetWriter(path, schema, compression="zstd")
        self._buffered: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        self._buffered.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._buffered:
            self._file.write_table(pa.Table.from_batches(self._buffered, self._schema), row_group_size=1 << 20)
        self._buffered, self._rows, self._bytes = [], 0, 0


def _raise_located(problems: Problems, reader: TableReader) -> None:
    """Raise the problems, if any, adding the lines of rows for formats with lines."""
    if not len(problems):
        return
    found = problems.found
    rows = {problem.row for problem in found if problem.row and not problem.line}
    lines = reader.lines_of(rows) if rows else {}
    located = Problems()
    located.extend(
        replace(problem, line=lines.get(problem.row, 0)) if not problem.line else problem for problem in found
    )
    located.raise_any()


def _column_batches(path: Path, name: str) -> Iterator[pa.Array]:
    index = pq.read_schema(path).names.index(name)
    with pq.ParquetFile(path) as file:
        # By position, as a name with a dot would be interpreted as a path.
        for group in range(file.num_row_groups):
            leaf = file.metadata.schema.column(index).path
            for batch in file.iter_batches(_GROUP_ROWS, row_groups=[group], columns=[leaf]):
                yield batch.column(batch.schema.names.index(name))


def _require_unique(reader: TableReader, columns: list[Column], name: str, path: Path) -> None:
    column = next(column for column in columns if column.name == name)
    if column.distinctness is None:
        raise InvalidFieldError("dataset.primary_key", f"column {name!r} has neither integers nor text; choose another")
    repeated = column.distinctness.repeated_keys()
    if len(repeated):
        problems = Problems()
        for row, earlier in repeated_rows(_column_batches(path, name), repeated, MAX_PROBLEMS):
            problems.add(f"repeats the primary key of row {earlier}", row=row, column=name)
        _raise_located(problems, reader)


def _is_distinct(column: Column, path: Path) -> bool:
    """Return whether no cell is missing and all values are distinct."""
    if column.distinctness is None or not column.profile.all_distinct:
        return False
    repeated = column.distinctness.repeated_keys()
    return not len(repeated) or not repeated_rows(_column_batches(path, column.name), repeated, 1)


def _may_be_key(column: Column, path: Path) -> bool:
    return column.declared.kind in (None, ColumnKind.ID) and not column.domain.categories and _is_distinct(column, path)


def _sample(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(SAMPLE_ROWS))
    return pa.Table.from_batches([batch])


def sdv_primary_key(sample: pa.Table) -> str:
    """Return the primary key that SDV detects in a sample, or "" if it detects none."""
    # Unused memory is released first, as SDV takes about 300 MB.
    pa.default_memory_pool().release_unused()
    from sdv.metadata import Metadata  # noqa: PLC0415 - takes seconds to import, as it imports torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            metadata = Metadata.detect_from_dataframes({"t": sample.to_pandas()})
        except Exception:  # noqa: BLE001 - the detection is optional; its failure must not fail the ingest
            return ""
    return str(metadata.to_dict()["tables"]["t"].get("primary_key") or "")


def _spec(column: Column, rows: int, key: str, path: Path) -> ColumnSpec:
    """Return the column of the resulting schema: its declaration, completed by what was found in the data."""
    declared, target, profile = column.declared, column.target, column.profile
    kind = declared.kind
    if column.name == key:
        if kind not in (None, ColumnKind.ID):
            raise InvalidFieldError("dataset.primary_key", f"column {key!r} is declared {kind}, but must be an ID")
        kind = ColumnKind.ID
    if kind is None:
        kind = KINDS_OF_TYPE[target.data_type][0]
        if column.domain.categories and kind is not ColumnKind.BOOLEAN:
            kind = ColumnKind.CATEGORICAL
        elif target.data_type is DataType.STRING and rows >= ID_ROWS and _is_distinct(column, path):
            kind = ColumnKind.ID
    ordered = kind in (ColumnKind.NUMERICAL, ColumnKind.DATETIME)
    domain = column.domain
    found = Domain(
        categories=domain.categories,
        minimum=profile.minimum if ordered and domain.minimum is None else domain.minimum,
        maximum=profile.maximum if ordered and domain.maximum is None else domain.maximum,
        decimals=_decimals(column),
    )
    spec = ColumnSpec(
        column.name,
        kind,
        target.data_type,
        found,
        datetime_format="" if target.form is None else target.form.format,
        time_zone="UTC" if target.utc else "",
        id_pattern=declared.id_pattern,
    )
    return with_nullable(spec, profile.nulls > 0 if domain.nullable is None else domain.nullable)


def _decimals(column: Column) -> int | None:
    if column.target.data_type not in (DataType.DOUBLE, DataType.DECIMAL):
        return None
    if column.domain.decimals is not None:
        return column.domain.decimals
    if column.target.data_type is DataType.DOUBLE and column.target.typed:
        return column.profile.decimals if column.profile.values else None
    return column.target.decimals
