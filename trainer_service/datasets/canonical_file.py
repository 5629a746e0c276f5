"""The file of a canonical table, while it is written and read back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 65_536
_GROUP_BYTES = 16 << 20


class CanonicalWriter:
    """Writes record batches in row groups of even size.

    Args:
        path: The file.
        schema: Its schema.
    """

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
        """Add some rows."""
        self._buffered.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._buffered:
            self._file.write_table(pa.Table.from_batches(self._buffered, self._schema), row_group_size=1 << 20)
        self._buffered, self._rows, self._bytes = [], 0, 0


class CanonicalFile:
    """A canonical table that is read back; its footer, as large as the table has many columns, is read once.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        self._index = {name: index for index, name in enumerate(self._file.metadata.schema.names)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def batches(self, name: str) -> Iterator[pa.Array]:
        """Yield the cells of one column, in order."""
        # By position, as a name with a dot would be interpreted as a path.
        leaf = self._file.metadata.schema.column(self._index[name]).path
        for group in range(self._file.num_row_groups):
            for batch in self._file.iter_batches(GROUP_ROWS, row_groups=[group], columns=[leaf]):
                yield batch.column(batch.schema.names.index(name))
