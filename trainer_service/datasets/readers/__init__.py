"""Readers of uploaded bytes as batches of columns, one module per format.

The batches of a reader can be iterated repeatedly, in the same order; at most a few are in memory at a time.
"""

import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.formats import (
    ArrowFileFormat,
    ArrowStreamFormat,
    CsvFormat,
    DataFormat,
    JsonFormat,
    ParquetFormat,
)
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import Notices
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_stream import ArrowReader
from trainer_service.datasets.readers.csv_file import CsvReader
from trainer_service.datasets.readers.json_objects import JsonReader
from trainer_service.datasets.readers.parquet_file import ParquetReader


class TableReader(Protocol):
    """Reads one upload as a table. Used by one thread at a time.

    Attributes:
        inference: Types that are inferred from its text.
        hints: What the format says of its columns beside their cells.
        notices: What was decided in reading. Complete once `batches` has been read to its end; each pass decides the
            same, which is counted once.
    """

    inference: Inference
    hints: FormatHints
    notices: Notices

    @property
    def dialect(self) -> CsvFormat | None:
        """The dialect of a CSV file as it was seen, else None."""
        ...

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """Yield the table's rows in order, from the first one.

        Columns are text or of the types that `readers.arrow_columns.ArrowPass.pieces` yields. A column may appear only
        in a later batch: its cells are missing in all rows before. Invalid rows are added to `problems` and skipped;
        reading continues until `problems` is full.

        Raises:
            InvalidDataError: Reading cannot continue.
            DataLossError: Stored bytes are corrupt.
        """
        ...

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """Return the line, from 1, of each of these rows, from 1; empty if the format has no lines."""
        ...


def open_reader(
    source: io.RawIOBase, data_format: DataFormat, limits: IngestLimits, scratch: Path | None = None
) -> TableReader:
    """Open the reader of a format.

    Args:
        source: The bytes, seekable.
        data_format: Their format.
        limits: Limits of the table and its parts.
        scratch: Folder of scratch files, which have no names there; None for the system's.

    Raises:
        InvalidDataError: The start or the footer of the file is not of this format.
    """
    match data_format:
        case CsvFormat():
            return CsvReader(source, data_format, limits)
        case JsonFormat():
            return JsonReader(source, data_format, limits, scratch)
        case ParquetFormat():
            return ParquetReader(source, limits)
        case ArrowStreamFormat() | ArrowFileFormat():
            return ArrowReader(source, limits)
