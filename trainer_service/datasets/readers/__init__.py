"""Readers of uploaded bytes as batches of columns, one module per format.

The batches of a reader can be iterated repeatedly, in the same order; at most a few are in memory at a time.
"""

import io
from collections.abc import Collection, Iterator
from typing import Protocol

import pyarrow as pa

from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.formats import ArrowStreamFormat, CsvFormat, DataFormat, JsonFormat, ParquetFormat
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_stream import ArrowStreamReader
from trainer_service.datasets.readers.csv_file import CsvReader
from trainer_service.datasets.readers.json_objects import JsonReader
from trainer_service.datasets.readers.parquet_file import ParquetReader


class TableReader(Protocol):
    """Reads one upload as a table. Used by one thread at a time.

    Attributes:
        inference: Types that are inferred from its text.
    """

    inference: Inference

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """Yield the table's rows in order, from the first one.

        Columns are text or of the types that `readers.arrow_types.normalised` returns. A column may appear only in a
        later batch: its cells are missing in all rows before. Invalid rows are added to `problems` and skipped; reading
        continues until `problems` is full.

        Raises:
            InvalidDataError: Reading cannot continue.
            DataLossError: Stored bytes are corrupt.
        """
        ...

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """Return the line, from 1, of each of these rows, from 1; empty if the format has no lines."""
        ...


def open_reader(source: io.RawIOBase, data_format: DataFormat, limits: IngestLimits) -> TableReader:
    """Open the reader of a format.

    Args:
        source: The bytes, seekable.
        data_format: Their format.
        limits: Limits of the table and its parts.

    Raises:
        InvalidDataError: The start or the footer of the file is not of this format.
    """
    match data_format:
        case CsvFormat():
            return CsvReader(source, data_format, limits)
        case JsonFormat():
            return JsonReader(source, limits)
        case ParquetFormat():
            return ParquetReader(source, limits)
        case ArrowStreamFormat():
            return ArrowStreamReader(source, limits)
