"""Collection of the problems found in uploaded data."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rowmint.errors import DataProblem, InvalidDataError
from rowmint.schema import shown_cell

MAX_PROBLEMS = 100
_SHOWN = 40
"""Characters of a text that a message shows."""


class Problems:
    """Collects up to 100 problems, so that many can be fixed at once."""

    def __init__(self) -> None:
        self._found: list[DataProblem] = []

    def __len__(self) -> int:
        return len(self._found)

    @property
    def full(self) -> bool:
        """Whether the maximum is reached and further problems would not be reported."""
        return len(self._found) >= MAX_PROBLEMS

    @property
    def found(self) -> tuple[DataProblem, ...]:
        """The problems in the order they were found."""
        return tuple(self._found)

    def add(self, message: str, *, line: int = 0, row: int = 0, column: str = "") -> None:
        """Add a problem; see `DataProblem`."""
        if not self.full:
            self._found.append(DataProblem(message, line, row, column))

    def extend(self, problems: Iterable[DataProblem]) -> None:
        """Add problems found elsewhere."""
        for problem in problems:
            self.add(problem.message, line=problem.line, row=problem.row, column=problem.column)

    def add_rows(self, message: str, bad: npt.NDArray[np.bool_], first_row: int, column: str) -> None:
        """Add the same problem for every row of a batch that is `bad`.

        Args:
            message: The problem.
            bad: Mask of the rows, shape (rows of the batch,).
            first_row: Number of the batch's first row, from 1.
            column: The column.
        """
        if bad.any():
            for index in np.flatnonzero(bad)[: MAX_PROBLEMS - len(self._found)]:
                self.add(message, row=first_row + int(index), column=column)

    def add_cells(self, message: str, bad: npt.NDArray[np.bool_], first_row: int, column: str, cells: pa.Array) -> None:
        """Add the same problem for every cell of a batch that is `bad`, which the message begins with.

        Args:
            message: The problem.
            bad: Mask of the rows, shape (rows of the batch,).
            first_row: Number of the batch's first row, from 1.
            column: The column.
            cells: Its cells in the batch, as they came.
        """
        for index in np.flatnonzero(bad)[: MAX_PROBLEMS - len(self._found)].tolist():
            cell = cells[index].as_py()
            shown = "" if cell is None else f"{shown_cell(cell[:_SHOWN] if isinstance(cell, str) else cell)} "
            self.add(f"{shown}{message}", row=first_row + index, column=column)

    def raise_any(self) -> None:
        """Raise the problems, ordered by line and row, if there are any.

        Raises:
            InvalidDataError: There is a problem.
        """
        if self._found:
            raise InvalidDataError(sorted(self._found, key=lambda problem: (problem.line, problem.row)))
