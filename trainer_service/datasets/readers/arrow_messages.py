"""The messages of an Arrow IPC stream, validated before they are passed to Arrow.

A message may declare any length, and a compressed body any decompressed size, so both are bounded here
(https://arrow.apache.org/docs/format/Columnar.html, "Encapsulated message format"). The few fields needed for this are
read directly from the message's flatbuffer.
"""

import io
import struct
import sys

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.readers.flatbuffer import Table

_MAX_METADATA = 16 << 20
_MAX_BODY = 256 << 20
_MAX_EMPTY_ROWS = 1 << 20
_CONTINUATION = b"\xff\xff\xff\xff"
# Numbers of union members and table fields in Message.fbs of the Arrow format.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_MESSAGE_TYPE, _MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = 1, 2, 3
_RECORD_BATCH_LENGTH, _RECORD_BATCH_BUFFERS, _RECORD_BATCH_COMPRESSION = 0, 2, 3
_DICTIONARY_ID, _DICTIONARY_DATA, _DICTIONARY_IS_DELTA = range(3)
_BUFFER = "<qq"  # offset and length
_EARLY_COMPRESSION = b"ARROW:experimental_compression"
"""Key in the metadata of messages of Arrow 0.17, by which Arrow still decompresses them."""
_PLAIN = -1  # instead of a buffer's decompressed length: it is not compressed


class CheckedStream(io.RawIOBase):
    """The same bytes; each message is validated before its first byte is returned.

    Args:
        source: An Arrow IPC stream.
    """

    def __init__(self, source: io.RawIOBase) -> None:
        super().__init__()
        self._source = source
        self._header: bytes = b""
        self._at = 0
        self._body = 0  # bytes of the message's body that are still to be returned
        self._held = b""  # a compressed body, which has been read to be validated
        self._dictionaries: dict[int, int] = {}  # bytes of each dictionary in use
        self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill as much of `buffer` as one piece allows.

        Raises:
            InvalidDataError: A message is too large or inconsistent.
        """
        piece = self._piece(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, fewer only at the end; see `readinto`."""
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
            return self._body_piece(min(size, self._body))
        piece = self._header[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def _body_piece(self, size: int) -> bytes:
        if not self._held:
            piece = self._exactly(size)
        elif size == len(self._held):
            piece, self._held = self._held, b""
        else:
            start = len(self._held) - self._body
            piece = self._held[start : start + size]
        self._body -= len(piece)
        if not self._body:
            self._held = b""
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
            raise _stream_error(f"has a message header of {length} bytes; is it an Arrow stream or file?")
        metadata = self._exactly(length)
        try:
            self._body = self._checked_body(metadata)
        except (struct.error, IndexError) as error:
            raise _stream_error("has an inconsistent message header") from error
        return prefix + metadata

    def _checked_body(self, metadata: bytes) -> int:
        """Return the length of a message's body, in bytes.

        Raises:
            InvalidDataError: The body is too large, also once decompressed, has more rows than its bytes can contain,
                or exceeds the memory of dictionaries.
            struct.error: The flatbuffer has an offset outside itself.
        """
        message = Table.root(metadata)
        kind = message.scalar(_MESSAGE_TYPE, "<B")
        header = message.table(_MESSAGE_HEADER)
        body = message.scalar(_MESSAGE_BODY_LENGTH, "<q")
        if not 0 <= body <= _MAX_BODY:
            raise _stream_error(f"has a batch of {body} bytes; write batches of at most {_MAX_BODY >> 20} MiB")
        if header is None or kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
            return body
        batch = header.table(_DICTIONARY_DATA) if kind == _DICTIONARY_BATCH else header
        size = body
        if batch is not None and (batch.table(_RECORD_BATCH_COMPRESSION) is not None or _EARLY_COMPRESSION in metadata):
            self._held = self._exactly(body)
            size = _decompressed(self._held, batch.structs(_RECORD_BATCH_BUFFERS, _BUFFER))
        rows = 0 if batch is None else batch.scalar(_RECORD_BATCH_LENGTH, "<q")
        # A row has at least one bit, except in columns of type null.
        if not 0 <= rows <= 8 * size + _MAX_EMPTY_ROWS:
            raise _stream_error(f"has a batch of {rows} rows in {size} bytes")
        if kind == _DICTIONARY_BATCH:
            number = header.scalar(_DICTIONARY_ID, "<q")
            before = self._dictionaries.get(number, 0) if header.scalar(_DICTIONARY_IS_DELTA, "<B") else 0
            self._dictionaries[number] = before + size
            # A dictionary stays in memory until the end of the stream, or until it is replaced.
            if sum(self._dictionaries.values()) > _MAX_BODY:
                raise _stream_error(f"has dictionaries of more than {_MAX_BODY >> 20} MiB; write plain columns")
        return body

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size) or b""
        if len(data) != size:
            raise _stream_error("ends within a message")
        return data


def _decompressed(body: bytes, buffers: list[tuple[int, ...]]) -> int:
    """Return the size of a body once its buffers are decompressed.

    Raises:
        InvalidDataError: It is too large, or a buffer lies outside the body.
    """
    total = 0
    for offset, length in buffers:
        if not 0 <= offset <= offset + length <= len(body) or length < 0:
            raise _stream_error("has a buffer outside its batch")
        if not length:
            continue
        size = struct.unpack_from("<q", body, offset)[0]
        if size < _PLAIN:
            raise _stream_error("has a compressed buffer of negative length")
        total += max(size, length)
        if total > _MAX_BODY:
            raise _stream_error(
                f"has a batch of more than {_MAX_BODY >> 20} MiB once decompressed; write smaller batches"
            )
    return total


def _stream_error(what: str) -> InvalidDataError:
    return InvalidDataError([DataProblem(f"the Arrow data {what}")])
