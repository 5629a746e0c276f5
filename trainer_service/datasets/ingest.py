"""Ingest: from uploaded bytes to a finished table, in two passes and bounded memory.

The first pass joins the types of each column over all rows; the second converts every row, checks it against what was
declared, and writes the canonical Parquet file. ***Each input row is in the finished table exactly once***, or there is
no finished table.
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
from trainer_service.datasets.column_types import ColumnJoin, Target
from trainer_service.datasets.conversion import ImpossibleError, convert, reason
from trainer_service.datasets.declarations import fitted_domain, require_columns, violations
from trainer_service.datasets.formats import DataFormat, format_from_json
from trainer_service.datasets.joined_types import types_from_json, types_to_json
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import MAX_PROBLEMS, Problems
from trainer_service.datasets.readers import TableReader, open_reader
from trainer_service.datasets.uniqueness import DistinctProof, repeated_rows

_log = structlog.get_logger(__name__)

SAMPLE_ROWS = 1000
"""Rows that SDV's detection sees."""
ID_ROWS = 100
"""A text column is taken for an id if all of at least this many values are distinct."""
_GROUP_ROWS = 65_536
_GROUP_BYTES = 16 << 20
# What is looked at at once: proving values distinct takes some thirty times a text's bytes, and a row of one byte some
# twenty.
_PIECE_ROWS = 1 << 17
_PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class IngestResult:
    """A finished table.

    Attributes:
        schema: Its shape.
        row_count: Its rows, at least 1.
        path: The canonical Parquet file, in the scratch directory.
        profile: What is known of the columns, JSON values of bounded size.
        sdv_metadata: The shape in SDV's JSON form.
    """

    schema: TableSchema
    row_count: int
    path: Path
    profile: Mapping[str, Any]
    sdv_metadata: Mapping[str, Any]


class Column:
    """What the second pass knows of one column."""

    def __init__(self, name: str, target: Target, declared: ColumnSpec | None) -> None:
        self.name = name
        self.target = target
        self.declared = ColumnSpec(name) if declared is None else declared
        self.domain = fitted_domain(self.declared, target)
        self.profile = ColumnProfile(target.data_type)
        self.proof: DistinctProof | None = None


def ingest(
    source: io.RawIOBase,
    data_format: DataFormat | Mapping[str, Any],
    overrides: tuple[ColumnSpec, ...],
    primary_key: str,
    scratch: Path,
    *,
    limits: IngestLimits | None = None,
    types: Mapping[str, Any] | None = None,
    joined: Callable[[dict[str, Any]], None] | None = None,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    propose_key: Callable[[pa.Table], str] | None = None,
) -> IngestResult:
    """Read uploaded bytes as a table.

    Args:
        source: The bytes, seekable, for example a `SegmentReader`.
        data_format: How they are to be read, or its JSON values.
        overrides: Declared columns.
        primary_key: Declared primary key; empty: one is proposed from the data, and taken if it holds in all rows.
        scratch: An empty directory; the result's file stays in it.
        limits: How large the table and its parts may be; None for the defaults.
        types: What `joined` was given by an ingest of the same bytes: there is no first pass then; None for none.
        joined: Called with what the first pass found, JSON values.
        progress: Called now and then with the share done, 0 to 1.
        cancelled: Asked now and then whether to stop.
        propose_key: Gives the name of a likely primary key of a sample of at most 1,000 rows, or ""; default: what SDV
            detects.

    Raises:
        InvalidDataError: The bytes are no table of this format, or break what was declared; the first 100 problems.
        ColumnNotFoundError: A declared column does not exist.
        InvalidFieldError: A declaration contradicts itself or the column's type.
        DataLossError: Stored bytes are damaged.
        CancelledError: `cancelled` said so.
    """
    validate_declared(overrides)
    if isinstance(data_format, Mapping):
        data_format = format_from_json(data_format)
    watch = _Watch(source, progress, cancelled)
    limits = IngestLimits() if limits is None else limits
    reader = open_reader(source, data_format, limits)
    columns = None if types is None else _known_types(types, overrides)
    if columns is None:
        columns = _join_types(reader, overrides, primary_key, watch)
        if joined is not None:
            joined(types_to_json((column.name, column.target) for column in columns))
    path = scratch / "table.parquet"
    rows = _convert(reader, columns, primary_key, path, watch, limits=limits)
    key = primary_key
    if primary_key:
        _require_unique(reader, columns, primary_key, path)
    else:
        possible = {column.name for column in columns if _may_be_key(column, path)}
        # Detecting takes seconds: not where nothing that may be detected holds.
        proposed = (sdv_primary_key if propose_key is None else propose_key)(_sample(path)) if possible else ""
        key = proposed if proposed in possible else ""
    schema = TableSchema(tuple(_spec(column, rows, key, path) for column in columns), key)
    for column in columns:
        if column.proof is not None:
            column.proof.drop()
    profile = {"rows": rows, "columns": {column.name: column.profile.to_json() for column in columns}}
    watch.done()
    return IngestResult(schema, rows, path, profile, sdv_metadata(schema))


class _Watch:
    """Tells progress and asks for a cancel, once a batch."""

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
        """Note a batch of pass `number`, 0 or 1.

        Raises:
            CancelledError: The work is to stop.
        """
        if self._cancelled is not None and self._cancelled():
            raise CancelledError("the ingest was cancelled")
        # Some formats jump about in the file; what is told never goes back.
        self._share = max(self._share, min(0.99, (number + self._source.tell() / self._size) / 2))
        if self._progress is not None:
            self._progress(self._share)

    def done(self) -> None:
        """Note the end."""
        if self._progress is not None:
            self._progress(1.0)


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows, no more than a few megabytes at once save where one row is longer."""
    for batch in batches:
        left = [batch]
        while left:
            piece = left.pop()
            rows = len(piece)
            if rows > _PIECE_ROWS or (rows > 1 and piece.nbytes > _PIECE_BYTES):
                left += [piece.slice(rows // 2), piece.slice(0, rows // 2)]
            else:
                yield piece


def _known_types(types: Mapping[str, Any], overrides: tuple[ColumnSpec, ...]) -> list[Column] | None:
    """Return the columns that an earlier first pass found; None where they cannot be read."""
    declared = {column.name: column for column in overrides}
    try:
        return [Column(name, target, declared.get(name)) for name, target in types_from_json(types, overrides)]
    except ValueError as error:
        _log.warning("the first pass is made again", error=str(error))
        return None


def _join_types(
    reader: TableReader, overrides: tuple[ColumnSpec, ...], primary_key: str, watch: _Watch
) -> list[Column]:
    """Return the table's columns with the types that hold all of their values."""
    declared = {column.name: column for column in overrides}
    joins: dict[str, ColumnJoin] = {}
    problems, rows = Problems(), 0
    for batch in _pieces(reader.batches(problems)):
        watch.batch(0)
        rows += len(batch)
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name not in joins:
                joins[name] = ColumnJoin(name, reader.inference, declared.get(name))
            joins[name].add(array)
        if problems.full:
            break
    _raise_located(problems, reader)
    if not rows:
        raise InvalidDataError([DataProblem("the file has no rows; a table needs at least one")])
    if not joins:
        raise InvalidDataError([DataProblem("the file has no columns")])
    require_columns(overrides, primary_key, list(joins))
    return [Column(name, join.target(is_key=name == primary_key), declared.get(name)) for name, join in joins.items()]


def _convert(
    reader: TableReader, columns: list[Column], primary_key: str, path: Path, watch: _Watch, *, limits: IngestLimits
) -> int:
    """Write the canonical file and return the number of its rows."""
    for index, column in enumerate(columns):
        if column.target.data_type in (DataType.INT64, DataType.STRING):
            column.proof = DistinctProof(path.with_name(f"keys-{index}"))
    schema = pa.schema([(column.name, column.target.arrow_type) for column in columns])
    problems, rows = Problems(), 0
    with _Writer(path, schema) as writer:
        for batch in _pieces(reader.batches(problems)):
            watch.batch(1)
            found = {name: array for name, array in zip(batch.schema.names, batch.columns, strict=True) if len(batch)}
            arrays = [
                _convert_column(column, found.get(column.name), len(batch), rows + 1, problems, limits=limits)
                for column in columns
            ]
            for column, array in zip(columns, arrays, strict=True):
                _learn(column, array, is_key=column.name == primary_key)
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


def _learn(column: Column, array: pa.Array, *, is_key: bool) -> None:
    column.profile.add(array)
    if column.proof is not None:
        column.proof.add(array)
        # Most columns repeat a value in their first batch and cost nothing from there on.
        if not is_key and not column.profile.all_distinct:
            column.proof.drop()
            column.proof = None


class _Writer:
    """Writes record batches in row groups of even size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = pq.ParquetWriter(path, schema, compression="zstd")
        self._held: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._file.write_table(pa.Table.from_batches(self._held, self._schema), row_group_size=1 << 20)
        self._held, self._rows, self._bytes = [], 0, 0


def _raise_located(problems: Problems, reader: TableReader) -> None:
    """Raise what was found, rows with their lines where the format has lines."""
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
        # By position: a name with a dot in it would be taken for a path.
        for group in range(file.num_row_groups):
            leaf = file.metadata.schema.column(index).path
            for batch in file.iter_batches(_GROUP_ROWS, row_groups=[group], columns=[leaf]):
                yield batch.column(batch.schema.names.index(name))


def _require_unique(reader: TableReader, columns: list[Column], name: str, path: Path) -> None:
    column = next(column for column in columns if column.name == name)
    if column.proof is None:
        raise InvalidFieldError("dataset.primary_key", f"column {name!r} is neither whole numbers nor text")
    suspects = column.proof.suspects()
    if len(suspects):
        problems = Problems()
        for row, earlier in repeated_rows(_column_batches(path, name), suspects, MAX_PROBLEMS):
            problems.add(f"repeats the primary key of row {earlier}", row=row, column=name)
        _raise_located(problems, reader)


def _is_distinct(column: Column, path: Path) -> bool:
    """Return whether no cell is missing and no value repeats, over all rows."""
    if column.proof is None or not column.profile.all_distinct:
        return False
    suspects = column.proof.suspects()
    return not len(suspects) or not repeated_rows(_column_batches(path, column.name), suspects, 1)


def _may_be_key(column: Column, path: Path) -> bool:
    return column.declared.kind in (None, ColumnKind.ID) and not column.domain.categories and _is_distinct(column, path)


def _sample(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(SAMPLE_ROWS))
    return pa.Table.from_batches([batch])


def sdv_primary_key(sample: pa.Table) -> str:
    """Return the primary key that SDV detects in a sample, or "" where it detects none."""
    # What the passes held is given back first: SDV alone takes some 300 MB.
    pa.default_memory_pool().release_unused()
    from sdv.metadata import Metadata  # noqa: PLC0415 - importing it takes seconds and brings torch.

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            metadata = Metadata.detect_from_dataframes({"t": sample.to_pandas()})
        except Exception:  # noqa: BLE001 - a proposal is a convenience; no data set may fail for want of one.
            return ""
    return str(metadata.to_dict()["tables"]["t"].get("primary_key") or "")


def _spec(column: Column, rows: int, key: str, path: Path) -> ColumnSpec:
    """Return what the finished schema says of a column: what is declared, and where nothing is, what was found."""
    declared, target, profile = column.declared, column.target, column.profile
    kind = declared.kind
    if column.name == key:
        if kind not in (None, ColumnKind.ID):
            raise InvalidFieldError("dataset.primary_key", f"column {key!r} is declared {kind}; a primary key is an ID")
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
