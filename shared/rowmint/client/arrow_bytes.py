"""Tables in memory, such as data frames, as the bytes of an Arrow IPC stream, made a batch at a time."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_BYTES = 64 * 1024 * 1024


@runtime_checkable
class ArrowTable(Protocol):
    """A table that exports itself as a stream of Arrow batches: of pyarrow, pandas, polars and others."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return a capsule of an Arrow C stream."""
        ...


def can_repeat(table: ArrowTable) -> bool:
    """Return whether a table can be exported again."""
    import pyarrow as pa  # noqa: PLC0415  # heavy, and not needed for most commands

    return not isinstance(table, pa.RecordBatchReader)


class ArrowBytes:
    """The bytes of a table as an Arrow IPC stream; the same ones each time, if the table is.

    Args:
        table: The table.
    """

    def __init__(self, table: ArrowTable) -> None:
        import pyarrow as pa  # noqa: PLC0415  # heavy, and not needed for most commands

        self._pieces = _pieces(pa.RecordBatchReader.from_stream(table))
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none only at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = memoryview(piece)
        found = bytes(self._left[:size])
        self._left = self._left[size:]
        return found

    def close(self) -> None:
        """Drop what is left."""
        self._pieces, self._left = iter(()), memoryview(b"")


def _pieces(batches: "pa.RecordBatchReader") -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415  # heavy, and not needed for most commands

    sink = _Sink()
    with pa.ipc.new_stream(sink, batches.schema) as writer:
        for batch in batches:
            rows = max(1, len(batch) * _BATCH_BYTES // max(batch.nbytes, _BATCH_BYTES))
            for start in range(0, len(batch), rows):
                writer.write_batch(batch.slice(start, rows))
                yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """A file from which what was written is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._written.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        found = b"".join(self._written)
        self._written.clear()
        return found
