"""Reading of the few fields of a flatbuffer that are needed to validate it (https://flatbuffers.dev/internals)."""

import struct


class Table:
    """A table of a flatbuffer; `struct` raises on reads outside the buffer.

    Args:
        data: The buffer.
        at: Where the table begins.

    Raises:
        struct.error: An offset lies outside the buffer; also of the methods.
        IndexError: It does so before its beginning.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        if at < 0:
            raise IndexError(at)
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        if self._fields < 0:
            raise IndexError(at)
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    @classmethod
    def root(cls, data: bytes) -> "Table":
        """Return the root table of a buffer."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _offset(self, field: int) -> int:
        entry = 4 + 2 * field
        return struct.unpack_from("<H", self._data, self._fields + entry)[0] if entry + 2 <= self._size else 0

    def scalar(self, field: int, kind: str) -> int:
        """Return a number in the given format of `struct`; 0 if it is absent."""
        offset = self._offset(field)
        return int(struct.unpack_from(kind, self._data, self._at + offset)[0]) if offset else 0

    def table(self, field: int) -> "Table | None":
        """Return a table, None if it is absent."""
        at = self._target(field)
        return None if at is None else Table(self._data, at)

    def structs(self, field: int, kind: str) -> list[tuple[int, ...]]:
        """Return a vector of structs of the given format of `struct`; empty if it is absent."""
        at = self._target(field)
        if at is None:
            return []
        count, size = struct.unpack_from("<I", self._data, at)[0], struct.calcsize(kind)
        if at + 4 + count * size > len(self._data):
            raise struct.error("a vector lies outside the buffer")
        return list(struct.iter_unpack(kind, self._data[at + 4 : at + 4 + count * size]))

    def _target(self, field: int) -> int | None:
        offset = self._offset(field)
        if not offset:
            return None
        at = self._at + offset
        return int(at + struct.unpack_from("<I", self._data, at)[0])
