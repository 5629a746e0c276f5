"""Shapes: texts with a 0 for each digit. A column of numbers or dates has few, so each is looked at once.

All texts of one shape have their digits in the same bytes, so these are read as arrays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rowmint.lazy import lazy

_ZERO, _NINE = ord("0"), ord("9")
_DIGITS_AS_ZERO = np.arange(256, dtype=np.uint8)
_DIGITS_AS_ZERO[_ZERO : _NINE + 1] = _ZERO


@dataclass(frozen=True)
class ShapeGroup:
    """The texts of one shape.

    Attributes:
        shape: The shape.
        places: Positions of these texts in the array, ascending, shape (n,).
        data: Bytes of all texts of the array.
        starts: Where each of these texts begins in `data`, shape (n,).
    """

    shape: str
    places: NDArray[np.intp]
    data: NDArray[np.uint8]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    @lazy
    def _offsets(self) -> list[int]:
        """Byte offset of each character of the shape."""
        if self.shape.isascii():
            return list(range(len(self.shape)))
        lengths = [len(letter.encode()) for letter in self.shape]
        return [sum(lengths[:index]) for index in range(len(lengths))]

    def digit(self, position: int) -> NDArray[np.uint8]:
        """Return the digit at a position of the shape, shape (n,), values 0 to 9."""
        found: NDArray[np.uint8] = self.data[self.starts + self._offsets[position]] - np.uint8(_ZERO)
        return found

    def number(self, positions: tuple[int, ...] | range) -> NDArray[np.int64]:
        """Return the number that the digits at some positions write, at most 18 of them, shape (n,)."""
        total = np.zeros(len(self), np.int64)
        for position in positions:
            total = total * 10 + self.digit(position)
        return total

    def zeros(self, positions: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return which texts have only zeros at these positions, shape (n,); all if there are none."""
        found = np.ones(len(self), np.bool_)
        for position in positions:
            if not found.any():
                break
            found &= self.digit(position) == 0
        return found

    def spelled(self, pieces: list[int | str]) -> pa.Array:
        """Return texts of one length each: characters of ASCII, and digits at positions of the shape, in order."""
        letters = np.empty((len(self), len(pieces)), np.uint8)
        for column, piece in enumerate(pieces):
            if isinstance(piece, str):
                letters[:, column] = ord(piece)
            else:
                letters[:, column] = self.data[self.starts + self._offsets[piece]]
        offsets = np.arange(len(self) + 1, dtype=np.int32) * np.int32(len(pieces))
        return pa.Array.from_buffers(pa.string(), len(self), [None, pa.py_buffer(offsets), pa.py_buffer(letters)])


def shapes(texts: pa.Array) -> pa.Array:
    """Return the shape of each text.

    Args:
        texts: Strings, none missing.
    """
    offsets, data = bytes_of(texts)
    return pa.Array.from_buffers(
        pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(_DIGITS_AS_ZERO[data])]
    )


def groups(texts: pa.Array, longest: int) -> Iterator[ShapeGroup]:
    """Yield the texts by shape, in the order in which shapes appear first.

    Args:
        texts: Strings, none missing.
        longest: Shapes of more bytes are one group, of the empty shape.
    """
    if not len(texts):
        return
    offsets, data = bytes_of(texts)
    starts = offsets[:-1].astype(np.int64)
    encoded = shapes(texts).dictionary_encode()
    known: list[str] = encoded.dictionary.to_pylist()
    kinds = encoded.indices.to_numpy()
    if len(known) == 1:
        yield ShapeGroup(_kept(known[0], longest), np.arange(len(texts)), data, starts)
        return
    order = np.argsort(kinds.astype(np.uint16) if len(known) < 1 << 16 else kinds, kind="stable")
    ends = np.cumsum(np.bincount(kinds, minlength=len(known)))
    long: list[NDArray[np.intp]] = []
    for shape, begin, end in zip(known, [0, *ends], ends, strict=False):
        places = order[begin:end]
        if len(shape) > longest:
            long.append(places)
        else:
            yield ShapeGroup(shape, places, data, starts[places])
    if long:
        places = np.concatenate(long)
        yield ShapeGroup("", places, data, starts[places])


def _kept(shape: str, longest: int) -> str:
    return shape if len(shape) <= longest else ""


def bytes_of(texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return where texts begin, from 0, and the end of the last, shape (n + 1,); and their bytes."""
    if not len(texts):
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    _, offsets_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    begin, end = int(offsets[0]), int(offsets[-1])
    data = np.frombuffer(data_buffer, np.uint8)[begin:end] if end > begin else np.zeros(0, np.uint8)
    return offsets - np.int32(begin), data
