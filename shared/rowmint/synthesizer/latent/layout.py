"""From a network's outputs to the choice of each column: the order of the output layer, and the categorical draw."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.exact.workspace import Workspace
from rowmint.synthesizer.heads import ColumnHead


class ChoiceLayout:
    """Outputs of some columns in the order in which draws are vectorised over columns as well as rows.

    First the scalars, in the columns' order; then the first choice of every column, the second choice of every column
    that has two, and so on, the columns by falling number of choices. So step s of a draw works on whole slices.

    Args:
        heads: The columns.

    Attributes:
        heads: The columns, by falling number of choices; this order is that of `draw`'s rows.
        outputs: Position of each output in the network's output layer, shape (m,).
        scalars: How many of the outputs are scalars; they are those of `scalar_of`'s columns, in its order.
        scalar_of: Row among the scalars by column name.
    """

    def __init__(self, heads: Sequence[ColumnHead]) -> None:
        self.heads = tuple(sorted(heads, key=lambda head: -head.codec.choices))
        with_scalar = [head for head in self.heads if head.codec.scalar]
        self.scalar_of = {head.column.name: row for row, head in enumerate(with_scalar)}
        self.scalars = len(with_scalar)
        outputs = [head.start for head in with_scalar]
        self._steps: list[tuple[int, int]] = []
        for choice in range(self.heads[0].codec.choices if self.heads else 0):
            having = [head for head in self.heads if head.codec.choices > choice]
            self._steps.append((len(outputs) - self.scalars, len(having)))
            outputs += [head.start + int(head.codec.scalar) + choice for head in having]
        self.outputs: NDArray[np.intp] = np.array(outputs, np.intp)

    def masses(self, outputs: NDArray[np.int16], workspace: Workspace) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return integer masses proportional to exp(logit), and their sum a column.

        Args:
            outputs: As a network makes them for `outputs`, logits in units of 1 / LOGIT_UNIT; shape (m, n).
            workspace: Holds what is returned, until the thread asks for masses again.

        Returns:
            Masses, shape (m - scalars, n), the largest of a column EXP_ONE; and sums, shape (columns, n).
        """
        logits = outputs[self.scalars :]
        shape = (len(self.heads), logits.shape[1])
        top: NDArray[Any] = workspace.array("top", shape, np.int16)
        np.copyto(top, logits[: shape[0]])
        for start, count in self._steps[1:]:
            np.maximum(top[:count], logits[start : start + count], out=top[:count])
        distance: NDArray[Any] = workspace.array("distance", logits.shape, np.int16)
        for start, count in self._steps:
            # A difference of two int16 may wrap; as uint16 it is right.
            np.subtract(top[:count], logits[start : start + count], out=distance[start : start + count])
        masses: NDArray[Any] = workspace.array("masses", logits.shape, np.int32)
        tables.falling_exponentials(distance.view(np.uint16), masses)
        total: NDArray[Any] = workspace.array("total", shape, np.int32)
        np.copyto(total, masses[: shape[0]])
        for start, count in self._steps[1:]:
            np.add(total[:count], masses[start : start + count], out=total[:count])
        return masses, total

    def draw(
        self, outputs: NDArray[np.int16], words: NDArray[np.uint32], workspace: Workspace
    ) -> NDArray[np.unsignedinteger]:
        """Draw a choice of each column from softmax(logits), by the inverse of its distribution function, in integers.

        Args:
            outputs: See `masses`; shape (m, n).
            words: 32-bit words, shape (columns, n).
            workspace: Holds what is returned, until the thread draws again.

        Returns:
            Choices, shape (columns, n), in the order of `heads`.
        """
        masses, total = self.masses(outputs, workspace)
        kind = np.uint8 if len(self._steps) <= 256 else np.uint16
        choices: NDArray[Any] = workspace.array("choices", total.shape, kind)
        choices.fill(0)
        share: NDArray[Any] = workspace.array("share", total.shape, np.uint64)
        np.multiply(words, total, out=share, casting="unsafe", dtype=np.uint64)
        np.right_shift(share, np.uint64(32), out=share)
        rest: NDArray[Any] = workspace.array("rest", total.shape, np.int32)
        np.copyto(rest, share, casting="unsafe")
        passed: NDArray[Any] = workspace.array("passed", total.shape, np.bool_)
        # What is left of the drawn share when a choice's mass is taken away is negative from the drawn one on.
        for start, count in self._steps[:-1]:
            left = rest[:count]
            np.subtract(left, masses[start : start + count], out=left)
            np.greater_equal(left, 0, out=passed[:count])
            np.add(choices[:count], passed[:count], out=choices[:count], casting="unsafe")
        return choices

    def column_masses(
        self, outputs: NDArray[np.int16], workspace: Workspace
    ) -> dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Return each column's masses, shape (choices, n), and their sum, shape (n,), by name; see `masses`."""
        masses, total = self.masses(outputs, workspace)
        rows: dict[str, list[int]] = {head.column.name: [] for head in self.heads}
        for start, count in self._steps:
            for offset, head in enumerate(self.heads[:count]):
                rows[head.column.name].append(start + offset)
        return {
            head.column.name: (masses[rows[head.column.name]], total[index].copy())
            for index, head in enumerate(self.heads)
        }
