"""Arrow IPC streams with flat columns, uncompressed.

The bytes are validated before they are passed to Arrow (https://arrow.apache.org/docs/format/Columnar.html,
"Encapsulated message format"): a message may declare any length, and a compressed body any decompressed size, so
lengths are bounded and compression is refused. The few fields needed for this are read directly from the message's
flatbuffer.
"""

import io
import struct
import sys
from collections.abc import Collection, Iterator

import pyarrow as pa

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_types import Expansion, check_types, normalised

_MAX_METADATA = 16 << 20
_MAX_BODY = 256 << 20
_MAX_EMPTY_ROWS = 1 << 20
_CONTINUATION = b"\xff\xff\xff\xff"
# Numbers of union members and table fields in Message.fbs of the Arrow format.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_MESSAGE_TYPE, _MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = 1, 2, 3
_RECORD_BATCH_LENGTH, _RECORD_BATCH_COMPRESSION = 0, 3
_DICTIONARY_ID, _DICTIONARY_DATA, _DICTIONARY_IS_DELTA = range(3)


class ArrowStreamReader:
    """Reads an Arrow IPC stream batch by batch; see `TableReader`.

    Args:
        source: The bytes, seekable.
        limits: Limits of the table.

    Raises:
        InvalidDataError: They are not an Arrow IPC stream, or have columns of unsupported types.
    """

    inference = Inference.NONE

    def __init__(self, source: io.RawIOBase, limits: IngestLimits) -> None:
        self._source = source
        self._limits = limits
        check_types(self._open().schema, limits)

    def _open(self) -> pa.RecordBatchStreamReader:
        self._source.seek(0)
        try:
            return pa.ipc.open_stream(_CheckedStream(self._source))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InvalidDataError([DataProblem("the bytes are not an Arrow IPC stream")]) from error

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """See `TableReader.batches`."""
        reader, row, expansion = self._open(), 1, Expansion(self._limits)
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except (pa.ArrowException, OSError, ValueError) as error:
                message = "the batch that starts with this row is corrupt; write the stream again"
                raise InvalidDataError([*problems.found, DataProblem(message, row=row)]) from error
            for piece in normalised(batch, row, problems, self._limits):
                expansion.add(piece, row)
                yield piece
            row += len(batch)

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """Return nothing: an Arrow stream has no lines."""
        return {}


class _CheckedStream(io.RawIOBase):
    """The same bytes; each message is validated before its first byte is returned."""

    def __init__(self, source: io.RawIOBase) -> None:
        super().__init__()
        self._source = source
        self._header: bytes = b""
        self._at = 0
        self._body = 0  # bytes of the message's body that are still in the source
        self._dictionaries: dict[int, int] = {}  # bytes of each dictionary in use
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        piece = self._piece(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, size: int | None = -1) -> bytes:
        parts = []
        left = sys.maxsize if size is None or size < 0 else size
        while left and (piece := self._piece(left)):
            parts.append(piece)
            left -= len(piece)
        # A body is read as one piece: joining would copy it.
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, size: int) -> bytes:
        """Return the next bytes of the current message, at most `size`; empty at the end of the stream."""
        if self._at == len(self._header) and not self._body and not self._ended:
            self._header, self._at = self._next_message(), 0
            self._ended = not self._header
        if self._at == len(self._header) and self._body:
            piece = self._exactly(min(size, self._body))
            self._body -= len(piece)
            return piece
        piece = self._header[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def _next_message(self) -> bytes:
        """Return the framing and header of the next message; empty at the end of the stream."""
        prefix = self._source.read(4) or b""
        if prefix == _CONTINUATION:
            prefix += self._exactly(4)
        if len(prefix) < 4 and prefix:
            raise _stream_error("ends within a message")
        length = int.from_bytes(prefix[-4:], "little", signed=True)
        if length == 0:
            return prefix
        if not 0 < length <= _MAX_METADATA:
            raise _stream_error(f"has a message header of {length} bytes")
        metadata = self._exactly(length)
        try:
            body = self._checked_body_length(metadata)
        except (struct.error, IndexError) as error:
            raise _stream_error("has an inconsistent message header") from error
        if not 0 <= body <= _MAX_BODY:
            raise _stream_error(f"has a batch of {body} bytes; write batches of at most {_MAX_BODY >> 20} MiB")
        self._body = body
        return prefix + metadata

    def _checked_body_length(self, metadata: bytes) -> int:
        """Return the length of a message's body, in bytes.

        Raises:
            InvalidDataError: The body is compressed, has more rows than its bytes can contain, or exceeds the memory
                of dictionaries.
            struct.error: The flatbuffer has an offset outside itself.
        """
        message = _Table(metadata, struct.unpack_from("<I", metadata, 0)[0])
        kind = message.scalar(_MESSAGE_TYPE, "<B")
        header = message.table(_MESSAGE_HEADER)
        body = message.scalar(_MESSAGE_BODY_LENGTH, "<q")
        if header is None or kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
            return body
        batch = header.table(_DICTIONARY_DATA) if kind == _DICTIONARY_BATCH else header
        if batch is not None and batch.table(_RECORD_BATCH_COMPRESSION) is not None:
            raise _stream_error("is compressed; write it without compression")
        rows = 0 if batch is None else batch.scalar(_RECORD_BATCH_LENGTH, "<q")
        # A row has at least one bit, except in columns of type null.
        if not 0 <= rows <= 8 * max(body, 0) + _MAX_EMPTY_ROWS:
            raise _stream_error(f"has a batch of {rows} rows in {body} bytes")
        if kind == _DICTIONARY_BATCH:
            number = header.scalar(_DICTIONARY_ID, "<q")
            before = self._dictionaries.get(number, 0) if header.scalar(_DICTIONARY_IS_DELTA, "<B") else 0
            self._dictionaries[number] = before + max(body, 0)
            # A dictionary stays in memory until the end of the stream, or until it is replaced.
            if sum(self._dictionaries.values()) > _MAX_BODY:
                raise _stream_error(f"has dictionaries of more than {_MAX_BODY >> 20} MiB; write plain columns")
        return body

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size) or b""
        if len(data) != size:
            raise _stream_error("ends within a message")
        return data


def _stream_error(what: str) -> InvalidDataError:
    return InvalidDataError([DataProblem(f"the Arrow stream {what}")])


class _Table:
    """A table of a flatbuffer; `struct` raises on reads outside the buffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        if at < 0 or self._fields < 0:
            raise IndexError(at)
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    def _offset(self, field: int) -> int:
        entry = 4 + 2 * field
        return struct.unpack_from("<H", self._data, self._fields + entry)[0] if entry + 2 <= self._size else 0

    def scalar(self, field: int, kind: str) -> int:
        offset = self._offset(field)
        return int(struct.unpack_from(kind, self._data, self._at + offset)[0]) if offset else 0

    def table(self, field: int) -> "_Table | None":
        offset = self._offset(field)
        if not offset:
            return None
        at = self._at + offset
        return _Table(self._data, at + struct.unpack_from("<I", self._data, at)[0])
