"""Readers: uploaded bytes as batches of columns, one module a format.

Every reader gives its batches as often as it is asked to, in the same order, holding no more than a few at a time.
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
        inference: What its text may turn out to be.
    """

    inference: Inference

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """Yield the table's rows in order, from the first one.

        Columns are text or of the types that `readers.arrow_types.normalised` gives, and may come to be only in a later
        batch: they are missing in all rows before. A row that is a problem is noted and left out; reading goes on while
        `problems` is not full.

        Raises:
            InvalidDataError: Reading cannot go on.
            DataLossError: Stored bytes are damaged.
        """
        ...

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """Return the line, from 1, of each of these rows, from 1; empty where the format has no lines."""
        ...


def open_reader(source: io.RawIOBase, data_format: DataFormat, limits: IngestLimits) -> TableReader:
    """Return the reader of a format.

    Args:
        source: The bytes, seekable.
        data_format: How they are to be read.
        limits: How large the table and its parts may be.

    Raises:
        InvalidDataError: The beginning, or the footer, is not of this format.
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
