"""Which rows have which category, as files: what training-by-sampling draws its rows from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.encoding.mapped_array import mapped_array


@dataclass(frozen=True)
class RowLists:
    """The rows of each choice of some columns, for training-by-sampling.

    Attributes:
        rows: Row numbers, grouped by column and choice, in a file; shape (columns * n,).
        offsets: Where each (column, choice) begins in `rows`, by column: shape (choices + 1,) each.
    """

    rows: NDArray[np.integer]
    offsets: Mapping[int, NDArray[np.int64]]


def row_lists(table: EncodedTable, columns: Sequence[int], scratch: Path) -> RowLists:
    """List the rows of each choice.

    Args:
        table: The encoded table.
        columns: Positions among the modelled columns, at least one.
        scratch: Folder of the file; exists.
    """
    kind = np.int32 if table.rows < 1 << 31 else np.int64
    lists = mapped_array(scratch / "rows", kind, (len(columns) * table.rows,))
    offsets = {}
    for number, column in enumerate(columns):
        base = number * table.rows
        lists[base : base + table.rows] = np.argsort(table.choices[:, column], kind="stable")
        offsets[column] = base + np.concatenate([[0], np.cumsum(table.counts[column])])
    return RowLists(lists, offsets)
