"""From a network's outputs to slots and scalars: where columns stand in the output layer, and the categorical draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, IdentityCodec, NumericCodec
from rowmint.conditions import ColumnCondition
from rowmint.rng import TileKey
from rowmint.schema import ColumnSpec
from rowmint.schema.arrays import ColumnArray
from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.exact.workspace import Scratch


@dataclass(frozen=True)
class ColumnHead:
    """Where a modelled column stands in the output layer, and how it is decoded.

    Attributes:
        index: Position of the column in the schema; part of its random words' purpose.
        column: The column.
        codec: Its codec.
        start: First output of the column: the scalar's, where it has one, then one a slot.
    """

    index: int
    column: ColumnSpec
    codec: CategoryCodec | NumericCodec
    start: int

    @property
    def stop(self) -> int:
        """The output after the column's last."""
        return self.start + self.codec.scalar + self.codec.slots

    def extra_words(self, key: TileKey, count: int) -> NDArray[np.uint64] | None:
        """Return the words that decode rare categories, shape (count,), or None where none are needed."""
        return key.words32(f"tail:{self.index}", count).astype(np.uint64) if self.codec.uses_words else None

    def slot_words(self, key: TileKey, count: int) -> NDArray[np.uint32]:
        """Return the words that draw the slots, shape (count,)."""
        return key.words32(f"slot:{self.index}", count)

    def decode(
        self, slots: NDArray[np.integer], alpha: NDArray[np.int64] | None, words: NDArray[np.uint64] | None
    ) -> ColumnArray:
        """Return the cells of `slots`, shape (n,); see the codecs for `alpha` and `words`."""
        if isinstance(self.codec, NumericCodec):
            return self.codec.decode(slots, alpha)
        return self.codec.decode(slots, np.zeros(len(slots), np.uint64) if words is None else words)

    def reachable(self, condition: ColumnCondition) -> NDArray[np.bool_]:
        """Return which slots can decode to a cell that satisfies `condition`, shape (slots,)."""
        if isinstance(self.codec, NumericCodec):
            spans = [(float(span.lower), float(span.upper)) for span in condition.intervals or ()]
            return self.codec.reachable_slots(spans, condition.null)
        return self.codec.compatible_slots(condition.codes or (), condition.null)


def column_heads(
    columns: Sequence[ColumnSpec], codecs: Sequence[CategoryCodec | NumericCodec | IdentityCodec]
) -> dict[str, ColumnHead]:
    """Lay the modelled columns side by side in schema order; ids have no place in the network."""
    heads: dict[str, ColumnHead] = {}
    start = 0
    for index, (column, codec) in enumerate(zip(columns, codecs, strict=True)):
        if isinstance(codec, IdentityCodec):
            continue
        head = ColumnHead(index, column, codec, start)
        heads[column.name] = head
        start = head.stop
    return heads


class SlotLayout:
    """Outputs of some columns in the order in which draws are vectorised over columns as well as rows.

    First the scalars, in the columns' order; then the first slot of every column, the second slot of every column that
    has two, and so on, the columns by falling number of slots. So step s of a draw works on whole slices.

    Args:
        heads: The columns.

    Attributes:
        heads: The columns, by falling number of slots; this order is that of `draw`'s rows.
        outputs: Position of each output in the network's output layer, shape (m,).
        scalars: How many of the outputs are scalars; they are those of `scalar_of`'s columns, in its order.
        scalar_of: Row among the scalars by column name.
    """

    def __init__(self, heads: Sequence[ColumnHead]) -> None:
        self.heads = tuple(sorted(heads, key=lambda head: -head.codec.slots))
        with_scalar = [head for head in self.heads if head.codec.scalar]
        self.scalar_of = {head.column.name: row for row, head in enumerate(with_scalar)}
        self.scalars = len(with_scalar)
        outputs = [head.start for head in with_scalar]
        self._steps: list[tuple[int, int]] = []
        for slot in range(self.heads[0].codec.slots if self.heads else 0):
            having = [head for head in self.heads if head.codec.slots > slot]
            self._steps.append((len(outputs) - self.scalars, len(having)))
            outputs += [head.start + int(head.codec.scalar) + slot for head in having]
        self.outputs: NDArray[np.intp] = np.array(outputs, np.intp)

    def masses(self, outputs: NDArray[np.int16], scratch: Scratch) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return integer masses proportional to exp(logit), and their sum a column.

        Args:
            outputs: As a network makes them for `outputs`, logits in units of 1 / LOGIT_UNIT; shape (m, n).
            scratch: Holds what is returned, until the thread asks for masses again.

        Returns:
            Masses, shape (m - scalars, n), the largest of a column EXP_ONE; and sums, shape (columns, n).
        """
        logits = outputs[self.scalars :]
        shape = (len(self.heads), logits.shape[1])
        top: NDArray[Any] = scratch.array("top", shape, np.int16)
        np.copyto(top, logits[: shape[0]])
        for start, count in self._steps[1:]:
            np.maximum(top[:count], logits[start : start + count], out=top[:count])
        distance: NDArray[Any] = scratch.array("distance", logits.shape, np.int16)
        for start, count in self._steps:
            # A difference of two int16 may wrap; as uint16 it is right.
            np.subtract(top[:count], logits[start : start + count], out=distance[start : start + count])
        masses: NDArray[Any] = scratch.array("masses", logits.shape, np.int32)
        tables.falling_exponentials(distance.view(np.uint16), masses)
        total: NDArray[Any] = scratch.array("total", shape, np.int32)
        np.copyto(total, masses[: shape[0]])
        for start, count in self._steps[1:]:
            np.add(total[:count], masses[start : start + count], out=total[:count])
        return masses, total

    def draw(
        self, outputs: NDArray[np.int16], words: NDArray[np.uint32], scratch: Scratch
    ) -> NDArray[np.unsignedinteger]:
        """Draw a slot of each column from softmax(logits), by the inverse of its distribution function, in integers.

        Args:
            outputs: See `masses`; shape (m, n).
            words: 32-bit words, shape (columns, n).
            scratch: Holds what is returned, until the thread draws again.

        Returns:
            Slots, shape (columns, n), in the order of `heads`.
        """
        masses, total = self.masses(outputs, scratch)
        slots: NDArray[Any] = scratch.array("slots", total.shape, np.uint8 if len(self._steps) <= 256 else np.uint16)
        slots.fill(0)
        share: NDArray[Any] = scratch.array("share", total.shape, np.uint64)
        np.multiply(words, total, out=share, casting="unsafe", dtype=np.uint64)
        np.right_shift(share, np.uint64(32), out=share)
        rest: NDArray[Any] = scratch.array("rest", total.shape, np.int32)
        np.copyto(rest, share, casting="unsafe")
        passed: NDArray[Any] = scratch.array("passed", total.shape, np.bool_)
        # What is left of the drawn share when a slot's mass is taken away is negative from the drawn slot on.
        for start, count in self._steps[:-1]:
            left = rest[:count]
            np.subtract(left, masses[start : start + count], out=left)
            np.greater_equal(left, 0, out=passed[:count])
            np.add(slots[:count], passed[:count], out=slots[:count], casting="unsafe")
        return slots

    def column_masses(
        self, outputs: NDArray[np.int16], scratch: Scratch
    ) -> dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Return each column's masses, shape (slots, n), and their sum, shape (n,), by name; see `masses`."""
        masses, total = self.masses(outputs, scratch)
        rows: dict[str, list[int]] = {head.column.name: [] for head in self.heads}
        for start, count in self._steps:
            for offset, head in enumerate(self.heads[:count]):
                rows[head.column.name].append(start + offset)
        return {
            head.column.name: (masses[rows[head.column.name]], total[index].copy())
            for index, head in enumerate(self.heads)
        }
