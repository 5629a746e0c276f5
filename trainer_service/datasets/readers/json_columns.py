"""JSON documents that hold a table column by column, as pandas writes them by default.

Each column is read once, to a scratch file, from which all are read in step.
"""

import hashlib
import io
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_types import check_names
from trainer_service.datasets.readers.json_orients import Labels
from trainer_service.datasets.readers.json_scan import JsonScanner, shown

_ROWS = 8192
# A piece of each column is in memory while they are read in step: the more there are, the smaller they are.
_PIECE_CHARACTERS = 1 << 20
_ALL_CHARACTERS = 16 << 20
_FEW_CHARACTERS = 8 << 10
_NONE = pa.nulls(0)


class ToArray(Protocol):
    """Returns the cells of a column as an array; see `json_objects.JsonReader`."""

    def __call__(self, values: list[Any], name: str, first_row: int, problems: Problems) -> pa.Array:
        """Return the array of `values`, the first of which is of row `first_row`, from 1."""
        ...


@dataclass
class _Column:
    """A column in the scratch file.

    Attributes:
        name: Its name.
        pieces: Offset and size in the file of each piece of its cells.
        labels: The labels of its rows.
        digest: SHA-256 of these.
    """

    name: str
    pieces: list[tuple[int, int]] = field(default_factory=list)
    labels: Labels = field(default_factory=Labels)
    digest: bytes = b""


class JsonColumns:
    """The columns of one document.

    Args:
        open_scanner: Returns a scanner at the start of the document.
        to_array: Makes an array of cells.
        limits: Limits of columns.
        scratch: Folder of the scratch file, which has no name there; None for the system's.
    """

    def __init__(
        self,
        open_scanner: Callable[[Problems], JsonScanner],
        to_array: ToArray,
        limits: IngestLimits,
        scratch: Path | None,
    ) -> None:
        self._open_scanner = open_scanner
        self._to_array = to_array
        self._limits = limits
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  # it lives as long as this
        weakref.finalize(self, self._file.close)
        self._columns: list[_Column] = []
        self._complete = False

    @property
    def labels(self) -> Labels:
        """The labels of the rows, once `batches` has been read."""
        return self._columns[0].labels if self._columns else Labels()

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order; while the document is scanned, batches without rows.

        Raises:
            InvalidDataError: The document is malformed, or its columns have other rows.
        """
        if not self._complete:
            for _ in self._scan(problems):
                yield pa.RecordBatch.from_struct_array(pa.array([], pa.struct([])))
            self._complete = True
        if not self._columns or problems.full:
            return
        names = [column.name for column in self._columns]
        left = [self._arrays(column) for column in self._columns]
        arrays = [next(pieces, _NONE) for pieces in left]
        while rows := min(map(len, arrays)):
            yield pa.RecordBatch.from_arrays([array.slice(0, rows) for array in arrays], names=names)
            arrays = [
                next(pieces, _NONE) if len(array) == rows else array.slice(rows)
                for array, pieces in zip(arrays, left, strict=True)
            ]

    def _arrays(self, column: _Column) -> Iterator[pa.Array]:
        for offset, size in column.pieces:
            self._file.seek(offset)
            yield pa.ipc.open_stream(self._file.read(size)).read_next_batch().column(0)

    def _scan(self, problems: Problems) -> Iterator[None]:
        """Read every column to the file; yield after each piece."""
        self._columns = []
        self._file.seek(0)
        scanner = self._open_scanner(problems)
        names: set[str] = set()
        for line, name in scanner.members():
            if name in names:
                raise scanner.failure(f"the key {shown(name)!r} is given more than once")
            names.add(name)
            check_names([name], self._limits, line)
            if len(names) > self._limits.columns:
                raise scanner.failure(f"there are {len(names)} columns up to here; {self._limits.columns_reason}")
            column = _Column(name)
            self._columns.append(column)
            yield from self._scan_column(scanner, column, problems)
            first = self._columns[0]
            if (column.labels.rows, column.digest) != (first.labels.rows, first.digest):
                message = (
                    f"has {column.labels.rows} rows, or labels, other than column {shown(first.name)!r} with"
                    f" {first.labels.rows}; if the orient of the document is not columns, declare it, or write the"
                    " document with orient='records'"
                )
                raise InvalidDataError([*problems.found, DataProblem(message, line=line, column=shown(name))])
        scanner.end()

    def _scan_column(self, scanner: JsonScanner, column: _Column, problems: Problems) -> Iterator[None]:
        most = max(min(_PIECE_CHARACTERS, _ALL_CHARACTERS // len(self._columns)), _FEW_CHARACTERS)
        values: list[Any] = []
        characters, first_row, digest = 0, 1, hashlib.sha256()
        for label, (line, length, value) in scanner.cells():
            column.labels.add(column.labels.rows if label is None else label)
            if label is not None:
                digest.update(f"{len(label)}:{label}".encode("utf-8", "surrogatepass"))
            nested = isinstance(value, dict | list)
            if nested and label is None and isinstance(value, dict):
                message = "is an object in an array: if these are the rows, upload that array alone"
                problems.add(message, line=line, column=shown(column.name))
            elif nested:
                message = "is nested; a cell is a text, a number, true, false or null (is the orient another one?)"
                problems.add(message, line=line, row=column.labels.rows, column=shown(column.name))
            values.append(None if nested else value)
            characters += length
            if len(values) == _ROWS or characters >= most:
                self._write(column, self._to_array(values, column.name, first_row, problems))
                first_row += len(values)
                values, characters = [], 0
                yield
        if values:
            self._write(column, self._to_array(values, column.name, first_row, problems))
        column.digest = digest.digest()
        yield

    def _write(self, column: _Column, array: pa.Array) -> None:
        buffer = io.BytesIO()
        batch = pa.RecordBatch.from_arrays([array], names=[""])
        with pa.ipc.new_stream(buffer, batch.schema) as writer:
            writer.write_batch(batch)
        column.pieces.append((self._file.tell(), buffer.tell()))
        self._file.write(buffer.getbuffer())
