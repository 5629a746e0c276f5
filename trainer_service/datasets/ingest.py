"""Ingest: converts uploaded bytes to a canonical table, in two passes and bounded memory.

The first pass infers the type of each column from all rows; the second converts every row, checks it against the
declarations, and writes the canonical Parquet file. ***Each input row is in the canonical table exactly once***, or
ingest fails.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from rowmint.errors import CancelledError, DataProblem, InvalidDataError, InvalidFieldError
from rowmint.schema import ColumnSpec, TableSchema, validate_declared
from rowmint.schema.sdv import sdv_metadata
from trainer_service.datasets.canonical_column import CanonicalColumn
from trainer_service.datasets.canonical_file import CanonicalFile, CanonicalWriter
from trainer_service.datasets.canonical_schema import SchemaBuilder, profile_json
from trainer_service.datasets.declarations import require_columns
from trainer_service.datasets.declared_nulls import DeclaredNulls
from trainer_service.datasets.formats import DataFormat, format_from_json
from trainer_service.datasets.inference.table_inference import TableInference
from trainer_service.datasets.inferred_types import InferredTypes
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import Finding, Notice, NoticeCode, Notices
from trainer_service.datasets.problems import MAX_PROBLEMS, Problems
from trainer_service.datasets.readers import TableReader, open_reader
from trainer_service.datasets.table_options import InfinitePolicy, TableOptions
from trainer_service.datasets.uniqueness import repeated_rows

_log = structlog.get_logger(__name__)

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
        profile: Profiles of the columns, notices and findings, JSON values of bounded size.
        sdv_metadata: The schema in SDV's JSON form.
        notices: What was decided that may be wanted otherwise.
        findings: What was found of each column.
    """

    schema: TableSchema
    row_count: int
    path: Path
    profile: Mapping[str, Any]
    sdv_metadata: Mapping[str, Any]
    notices: tuple[Notice, ...]
    findings: tuple[Finding, ...]


def ingest(
    source: io.RawIOBase,
    data_format: DataFormat | Mapping[str, Any],
    overrides: tuple[ColumnSpec, ...],
    primary_key: str,
    scratch: Path,
    *,
    options: TableOptions | None = None,
    limits: IngestLimits | None = None,
    types: Mapping[str, Any] | None = None,
    on_types: Callable[[dict[str, Any]], None] | None = None,
    progress: Callable[[float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> IngestResult:
    """Convert uploaded bytes to a canonical table.

    Args:
        source: The bytes, seekable, for example a `SegmentReader`.
        data_format: Their format, or its JSON values.
        overrides: Declared columns.
        primary_key: Declared primary key; empty: one is proposed by name or shape, and used if it is unique in all
            rows.
        scratch: An empty directory; the resulting file stays in it.
        options: Options of the whole table; None for the defaults.
        limits: Limits of the table and its parts; None for the defaults.
        types: Argument of `on_types` in an earlier attempt on the same bytes, which replaces the first pass; or None.
        on_types: Called with the types that the first pass inferred, JSON values.
        progress: Called regularly with the share done, 0 to 1.
        cancelled: Called regularly; returns whether to stop.

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
    options = TableOptions() if options is None else options
    reader = open_reader(source, data_format, limits, scratch)
    inferred = None if types is None else _earlier_types(types)
    notices = Notices()
    if inferred is None:
        inferred = _infer_types(reader, overrides, primary_key, reporter)
        # A reader notes the same things each time it reads.
        notices.extend(reader.notices.all())
        if on_types is not None:
            on_types(inferred.to_json())
    declared = {column.name: column for column in overrides}
    columns = [CanonicalColumn(name, target, declared.get(name), options.infinite) for name, target in inferred.columns]
    path = scratch / "table.parquet"
    try:
        rows = _convert(reader, columns, primary_key, path, reporter, limits=limits)
        if primary_key:
            _require_unique(reader, columns, primary_key, path)
        if types is not None and not notices.all():
            notices.extend(reader.notices.all())
        notices.extend(inferred.notices)
        _report_infinite(columns, options.infinite, notices)
        with CanonicalFile(path) as file:
            builder = SchemaBuilder(columns, rows, file, notices)
            schema, findings = builder.build(primary_key, propose=not options.no_primary_key)
    finally:
        for column in columns:
            column.close()
    profile: dict[str, Any] = {
        "rows": rows,
        "columns": profile_json(columns, schema),
        "notices": [notice.to_json() for notice in notices.all()],
        "findings": [finding.to_json() for finding in findings],
    }
    if reader.dialect is not None:
        profile["dialect"] = reader.dialect.to_json()
    reporter.done()
    return IngestResult(schema, rows, path, profile, sdv_metadata(schema), notices.all(), findings)


def _report_infinite(columns: list[CanonicalColumn], policy: InfinitePolicy, notices: Notices) -> None:
    what = "clipped to the declared bounds" if policy is InfinitePolicy.CLIP else "missing cells"
    for column in columns:
        if column.infinite:
            notices.add(Notice(NoticeCode.INFINITE, column.name, f"infinite values are {what}", rows=column.infinite))


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


def _earlier_types(types: Mapping[str, Any]) -> InferredTypes | None:
    """Return what the first pass of an earlier attempt found; None if it is not usable."""
    try:
        return InferredTypes.from_json(types)
    except ValueError as error:
        _log.warning("inferred types of an earlier attempt are unusable; the first pass is repeated", error=str(error))
        return None


def _infer_types(
    reader: TableReader, overrides: tuple[ColumnSpec, ...], primary_key: str, reporter: _ProgressReporter
) -> InferredTypes:
    """Return the types of the table's columns, which represent all of their values."""
    inference = TableInference(reader.inference, {column.name: column for column in overrides}, reader.hints)
    problems, rows = Problems(), 0
    for batch in DeclaredNulls(overrides).applied(_pieces(reader.batches(problems))):
        reporter.batch(0)
        rows += len(batch)
        inference.add(batch)
        if problems.full:
            break
    _raise_located(problems, reader)
    if not rows:
        raise InvalidDataError([DataProblem("the file has no rows; a table needs at least one")])
    if not inference.names:
        raise InvalidDataError([DataProblem("the file has no columns; a table needs at least one")])
    require_columns(overrides, primary_key, inference.names)
    notices = Notices()
    columns = inference.decide(primary_key, notices)
    return InferredTypes(tuple(columns), notices.all())


def _convert(
    reader: TableReader,
    columns: list[CanonicalColumn],
    primary_key: str,
    path: Path,
    reporter: _ProgressReporter,
    *,
    limits: IngestLimits,
) -> int:
    """Write the canonical file and return its number of rows."""
    for index, column in enumerate(columns):
        column.open(path.with_name(f"keys-{index}"))
    schema = pa.schema([(column.name, column.target.arrow_type) for column in columns])
    problems, rows = Problems(), 0
    with CanonicalWriter(path, schema) as writer:
        nulls = DeclaredNulls(column.declared for column in columns)
        for batch in nulls.applied(_pieces(reader.batches(problems))):
            reporter.batch(1)
            found = {name: array for name, array in zip(batch.schema.names, batch.columns, strict=True) if len(batch)}
            arrays = [
                column.convert(
                    found.get(column.name), len(batch), problems, limits=limits, is_key=column.name == primary_key
                )
                for column in columns
            ]
            writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
            rows += len(batch)
            if problems.full:
                break
    _raise_located(problems, reader)
    return rows


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


def _require_unique(reader: TableReader, columns: list[CanonicalColumn], name: str, path: Path) -> None:
    column = next(column for column in columns if column.name == name)
    if column.distinctness is None:
        raise InvalidFieldError("dataset.primary_key", f"column {name!r} has neither integers nor text; choose another")
    repeated = column.distinctness.repeated_keys()
    if len(repeated):
        problems = Problems()
        with CanonicalFile(path) as file:
            for row, earlier in repeated_rows(file.batches(name), repeated, MAX_PROBLEMS):
                problems.add(f"repeats the primary key of row {earlier}", row=row, column=name)
        _raise_located(problems, reader)
