"""Where each column stands in the networks, a batch of codes as the tensors they take, and what outputs mean.

Inside the networks the columns do not stand in schema order: the scalars come first, then the one-hot blocks, those of
equal size side by side. So all blocks of a size are one view of shape (b, count, size), and activations and losses need
no loop over columns. `order` leads back to schema order, once, at export.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rowmint.codecs import CategoryCodec, NumericCodec
from trainer_service.fitting.encoding.encoded_table import EncodedTable


@dataclass(frozen=True)
class BlockGroup:
    """Blocks of one size, side by side.

    Attributes:
        start: First position.
        count: Blocks.
        size: Choices of each.
    """

    start: int
    count: int
    size: int

    @property
    def stop(self) -> int:
        """The position after the last."""
        return self.start + self.count * self.size


@dataclass(frozen=True)
class Layout:
    """Positions inside the networks of c columns, s of which have a scalar; w positions in all.

    Attributes:
        scalars: Number of scalars, s; they stand at 0 to s - 1, in schema order.
        groups: The blocks behind them, by size.
        starts: Position of the first choice of each column, shape (c,).
        sizes: Choices of each column, shape (c,).
        order: Position of each output in schema order, scalar before choices; shape (w,).
        modal: 1 where a position is a mode of a scalar's column, shape (w, s).
    """

    scalars: int
    groups: tuple[BlockGroup, ...]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    order: NDArray[np.int64]
    modal: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Positions in all, w."""
        return len(self.order)

    def softmax(self, logits: Tensor, into: Tensor) -> None:
        """Write the softmax of every block of `logits` into `into`, both shape (b, w); scalars are left alone."""
        for group in self.groups:
            span = slice(group.start, group.stop)
            shape = (len(logits), group.count, group.size)
            into[:, span].view(shape).copy_(torch.softmax(logits[:, span].view(shape), dim=2))

    def block_sums(self, device: torch.device) -> Tensor:
        """Return the matrix that gives every position the sum of its block, shape (w - s, w - s)."""
        size = self.width - self.scalars
        sums = torch.zeros(size, size)
        for group in self.groups:
            for block in range(group.count):
                start = group.start - self.scalars + block * group.size
                sums[start : start + group.size, start : start + group.size] = 1
        return sums.to(device)


def make_layout(codecs: Sequence[CategoryCodec | NumericCodec]) -> Layout:
    """Lay out the columns of these codecs, given in schema order."""
    scalars = sum(codec.scalar for codec in codecs)
    by_size = sorted(range(len(codecs)), key=lambda column: codecs[column].choices)
    starts = np.zeros(len(codecs), np.int64)
    groups: list[BlockGroup] = []
    position = scalars
    for column in by_size:
        size = codecs[column].choices
        starts[column] = position
        if groups and groups[-1].size == size:
            groups[-1] = BlockGroup(groups[-1].start, groups[-1].count + 1, size)
        else:
            groups.append(BlockGroup(position, 1, size))
        position += size
    order: list[int] = []
    modal = np.zeros((position, scalars), np.float32)
    scalar = 0
    for start, codec in zip(starts.tolist(), codecs, strict=True):
        if isinstance(codec, NumericCodec) and codec.scalar:
            modal[start : start + len(codec.centers), scalar] = 1
            order.append(scalar)
            scalar += 1
        order.extend(range(start, start + codec.choices))
    sizes = np.array([codec.choices for codec in codecs], np.int64)
    return Layout(scalars, tuple(groups), starts, sizes, np.array(order, np.int64), modal)


class Batches:
    """Makes tensors of codes.

    On a processor rows are gathered from the mapped files; on an accelerator all codes lie there from the start.

    Args:
        table: The training rows.
        layout: Where the columns stand.
        device: Where the tensors are wanted.
    """

    def __init__(self, table: EncodedTable, layout: Layout, device: torch.device) -> None:
        self._layout = layout
        self._device = device
        self._starts = torch.from_numpy(layout.starts).to(device)
        self._choices, self._alpha = table.choices, table.alpha
        self._resident: tuple[Tensor, Tensor] | None = None
        if device.type != "cpu":
            kind = np.uint8 if table.choices.dtype == np.uint8 else np.int32
            choices = torch.from_numpy(np.asarray(table.choices).astype(kind)).to(device)
            self._resident = (choices, torch.from_numpy(np.array(table.alpha)).to(device))

    def codes(self, rows: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Return the position of each column's choice, int64, shape (b, c), and the scalars, float32, shape (b, s)."""
        if self._resident is not None:
            index = torch.from_numpy(rows.astype(np.int64)).to(self._device)
            return self._resident[0][index].long() + self._starts, self._resident[1][index]
        choices = torch.from_numpy(self._choices[rows].astype(np.int64))
        return choices.add_(self._starts), torch.from_numpy(self._alpha[rows])

    def write(self, rows: NDArray[np.integer], into: Tensor) -> tuple[Tensor, Tensor]:
        """Write rows as the networks take them into `into`, zero before, shape (b, w or more); return their codes."""
        hot, scalars = self.codes(rows)
        into[:, : self._layout.scalars] = scalars
        into.scatter_(1, hot, 1.0)
        return hot, scalars
