"""Thrift's compact protocol: the subset used by Parquet's metadata.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterator

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = range(1, 14)
_INTEGERS = (I16, I32, I64)
_WIDTHS = {BYTE: 1, DOUBLE: 8, UUID: 16}
_MAX_DEPTH = 16
_MAX_VARINT = 10

# Memory of a list element once parsed: about the size of Arrow's structures; that of a column chunk includes its nested
# structures. Lists of column chunks are the lists within elements of other lists.
_CHUNK_COST, _STRUCT_COST, _VALUE_COST = 1500, 300, 64
_CHUNKS = 2

Struct = dict[int, "int | Struct"]
"""Fields by number: integers and structures."""


class MalformedError(Exception):
    """The bytes violate the protocol."""


class CostError(Exception):
    """The declared structures exceed the memory budget."""


class CompactReader:
    """Reads values from bytes, with bounds checks.

    Each method raises MalformedError if the bytes end too early or are invalid, and CostError if lists exceed the
    budget.

    Args:
        data: The bytes.
        budget: Memory budget of lists, bytes.
        at: Position of the first value.

    Attributes:
        at: Position of the next value.
    """

    def __init__(self, data: bytes, budget: int, at: int = 0) -> None:
        self._data = data
        self._left = budget
        self.at = at

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field of the next structure; the caller must read or skip its value.

        The value of a boolean is encoded in its type: there is nothing to read.
        """
        field = 0
        while kind := (head := self._byte()) & 0x0F:
            field = field + (head >> 4) if head >> 4 else self.integer()
            yield field, kind

    def struct(self, depth: int = 0) -> Struct:
        """Return the next structure; fields of other types are skipped."""
        if depth > _MAX_DEPTH:
            raise MalformedError("is nested too deeply")
        found: Struct = {}
        for field, kind in self.fields():
            if kind in _INTEGERS:
                found[field] = self.integer()
            elif kind == STRUCT:
                found[field] = self.struct(depth + 1)
            elif kind not in (TRUE, FALSE):
                self.skip(kind, depth + 1)
        return found

    def integer(self) -> int:
        """Return the next integer."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def binary(self) -> bytes:
        """Return the next byte string."""
        length = self._varint()
        self._advance(length)
        return self._data[self.at - length : self.at]

    def elements(self, lists: int = 0) -> tuple[int, int]:
        """Return type and number of the elements of the next list, which is nested in so many `lists`."""
        head = self._byte()
        size = head >> 4
        size = self._varint() if size == 0x0F else size
        self._charge([head & 0x0F], size, lists)
        return head & 0x0F, size

    def skip(self, kind: int, depth: int = 0, lists: int = 0) -> None:
        """Skip a value of this type."""
        if depth > _MAX_DEPTH:
            raise MalformedError("is nested too deeply")
        if kind in _INTEGERS:
            self._varint()
        elif kind in _WIDTHS:
            self._advance(_WIDTHS[kind])
        elif kind == BINARY:
            self._advance(self._varint())
        elif kind in (LIST, SET):
            element, size = self.elements(lists)
            self._skip_elements([element], size, depth, lists)
        elif kind == MAP:
            size = self._varint()
            if size:
                head = self._byte()
                kinds = [head >> 4, head & 0x0F]
                self._charge(kinds, size, lists)
                self._skip_elements(kinds, size, depth, lists)
        elif kind == STRUCT:
            for _, inner in self.fields():
                if inner not in (TRUE, FALSE):
                    self.skip(inner, depth + 1, lists)
        else:
            raise MalformedError(f"contains a value of the unknown type {kind}")

    def _charge(self, kinds: list[int], size: int, lists: int) -> None:
        if size > len(self._data) - self.at:
            raise MalformedError(f"has a list of {size} elements, more than its bytes can contain")
        cost = (_CHUNK_COST if lists + 1 == _CHUNKS else _STRUCT_COST) if STRUCT in kinds else _VALUE_COST
        self._left -= size * cost
        if self._left < 0:
            raise CostError

    def _skip_elements(self, kinds: list[int], size: int, depth: int, lists: int) -> None:
        for _ in range(size):
            for kind in kinds:
                if kind in (TRUE, FALSE):
                    self._advance(1)
                else:
                    self.skip(kind, depth + 1, lists + 1)

    def _byte(self) -> int:
        if self.at >= len(self._data):
            raise MalformedError("is truncated")
        self.at += 1
        return self._data[self.at - 1]

    def _advance(self, count: int) -> None:
        if count > len(self._data) - self.at:
            raise MalformedError("is truncated")
        self.at += count

    def _varint(self) -> int:
        value = 0
        for shift in range(_MAX_VARINT):
            byte = self._byte()
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return value
        raise MalformedError("has a number of too many bytes")
