"""Tests whether all values of a column are distinct, in bounded memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Keys = npt.NDArray[np.uint64]

_AT_ONCE = 1 << 22
"""Hashes sorted at once: 32 MiB."""
_MAX_REPEATED = 10_000
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64.
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
_SPREAD = np.random.Generator(np.random.Philox(key=0)).integers(1 << 64, size=257, dtype=np.uint64) | np.uint64(1)


class DistinctnessTest:
    """Collects 64-bit hashes of a column's values in a file, and finds hashes that occur once or more often.

    Distinct hashes prove distinct values; equal hashes may be collisions, which `repeated_rows` resolves.

    Args:
        path: A file for the hashes, eight bytes for each integer and each different text of a batch, sixteen for one
            that the batch repeats; an existing file is overwritten.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.write_bytes(b"")
        self._count = 0

    def add(self, array: pa.Array) -> None:
        """Add a batch of int64 values or text; missing cells are ignored."""
        present = array.drop_null()
        if pa.types.is_string(present.type):
            # A text that a batch repeats counts twice, however often it is there: few columns have that many texts.
            counted = pc.value_counts(present)
            keys = keys_of(counted.field("values"))
            keys = np.concatenate([keys, keys[counted.field("counts").to_numpy() > 1]])
        else:
            keys = keys_of(present)
        with self._path.open("ab") as file:
            file.write(keys.tobytes())
        self._count += len(keys)

    def repeated_keys(self) -> Keys:
        """Return up to 10,000 hashes that occur more than once, sorted; none proves that the values are distinct."""
        found: list[Keys] = []
        for keys in self._sorted():
            found.append(np.unique(keys[1:][keys[1:] == keys[:-1]]))
            if sum(map(len, found)) >= _MAX_REPEATED:
                break
        return np.concatenate(found)[:_MAX_REPEATED]

    def counts(self) -> tuple[int, int]:
        """Return the number of distinct values, and of those that occur once."""
        distinct = single = 0
        for keys in self._sorted():
            first = np.ones(len(keys), np.bool_)
            first[1:] = keys[1:] != keys[:-1]
            last = np.ones(len(keys), np.bool_)
            last[:-1] = first[1:]
            distinct += int(first.sum())
            single += int((first & last).sum())
        return distinct, single

    def _sorted(self) -> Iterator[Keys]:
        """Yield all keys in ascending order, in parts that do not share any."""
        passes = max(1, -(-self._count // _AT_ONCE))
        width = (1 << 64) // passes + 1
        for number in range(passes):
            yield np.sort(self._between(number * width, (number + 1) * width))

    def _between(self, low: int, high: int) -> Keys:
        """Return the keys in [low, high)."""
        parts = []
        with self._path.open("rb") as file:
            while block := file.read(8 << 20):
                keys = np.frombuffer(block, dtype=np.uint64)
                inside = keys >= np.uint64(low)
                if high < 1 << 64:
                    inside &= keys < np.uint64(high)
                parts.append(keys[inside])
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)

    def close(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def repeated_rows(arrays: Iterable[pa.Array], repeated: Keys, limit: int) -> list[tuple[int, int]]:
    """Return up to `limit` pairs (row, earlier row), from 1, of equal values among those with repeated hashes.

    Args:
        arrays: The column's batches in order.
        repeated: Sorted hashes, from `DistinctnessTest.repeated_keys`.
        limit: Maximum number of pairs, at least 1.
    """
    first: dict[Any, int] = {}
    pairs: list[tuple[int, int]] = []
    row = 1
    for array in arrays:
        places = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        present = array.drop_null()
        hits = np.flatnonzero(np.isin(keys_of(present), repeated))
        for place, value in zip(places[hits], present.take(pa.array(hits)).to_pylist(), strict=True):
            earlier = first.setdefault(value, row + int(place))
            if earlier != row + int(place):
                pairs.append((row + int(place), earlier))
                if len(pairs) == limit:
                    return pairs
        row += len(array)
    return pairs


def keys_of(array: pa.Array) -> Keys:
    """Return a 64-bit hash of each value, shape (n,); injective for int64 values.

    Args:
        array: int64 values or text, none missing.
    """
    if pa.types.is_int64(array.type):
        return _mixed(array.to_numpy().view(np.uint64))
    if not len(array):
        return np.zeros(0, dtype=np.uint64)
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[array.offset : array.offset + len(array) + 1].astype(
        np.int64
    )
    begin, end = int(offsets[0]), int(offsets[-1])
    data = np.frombuffer(data_buffer, dtype=np.uint8)[begin:end] if end > begin else np.zeros(0, dtype=np.uint8)
    starts, ends = offsets[:-1] - begin, offsets[1:] - begin
    # The polynomial hash of every text at once: prefix sums of byte x base^position, then each text's part of them
    # divided by base^start; all modulo 2**64, where NumPy's uint64 wraps.
    powers = _powers(_BASE, len(data) + 1)
    prefix = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(_SPREAD[data.astype(np.intp) + 1] * powers[:-1], out=prefix[1:])
    texts = (prefix[ends] - prefix[starts]) * _powers(_BASE_INVERSE, len(data) + 1)[starts]
    return _mixed(texts + (ends - starts).astype(np.uint64) * _SPREAD[0])


def _powers(base: int, count: int) -> Keys:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _mixed(keys: Keys) -> Keys:
    """Mix hashes with a bijection (splitmix64's finaliser), so that they are uniform over 64 bits."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
