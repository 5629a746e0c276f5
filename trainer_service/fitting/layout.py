"""Where each column stands in the networks, and a batch of codes as the tensors they take and give.

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
from torch.nn import functional

from rowmint.codecs import CategoryCodec, NumericCodec
from trainer_service.fitting.encode import EncodedTable


@dataclass(frozen=True)
class Group:
    """Blocks of one size, side by side.

    Attributes:
        start: First position.
        count: Blocks.
        size: Slots of each.
    """

    start: int
    count: int
    size: int

    @property
    def span(self) -> slice:
        """All positions of the group."""
        return slice(self.start, self.start + self.count * self.size)


@dataclass(frozen=True)
class Layout:
    """Positions inside the networks of c columns, s of which have a scalar; w positions in all.

    Attributes:
        scalars: Number of scalars, s; they stand at 0 to s - 1, in schema order.
        groups: The blocks behind them, by size.
        starts: Position of the first slot of each column, shape (c,).
        ranks: Place of each column's block among all blocks as they stand, shape (c,).
        order: Position of each output in schema order, scalar before slots; shape (w,).
        modal: 1 where a position is a mode of a scalar's column, shape (w, s).
    """

    scalars: int
    groups: tuple[Group, ...]
    starts: NDArray[np.int64]
    ranks: NDArray[np.int64]
    order: NDArray[np.int64]
    modal: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Positions in all, w."""
        return len(self.order)


def make_layout(codecs: Sequence[CategoryCodec | NumericCodec]) -> Layout:
    """Lay out the columns of these codecs, given in schema order."""
    scalars = sum(codec.scalar for codec in codecs)
    by_size = sorted(range(len(codecs)), key=lambda column: codecs[column].slots)
    starts = np.zeros(len(codecs), np.int64)
    ranks = np.zeros(len(codecs), np.int64)
    groups: list[Group] = []
    position = scalars
    for rank, column in enumerate(by_size):
        size = codecs[column].slots
        starts[column], ranks[column] = position, rank
        if groups and groups[-1].size == size:
            groups[-1] = Group(groups[-1].start, groups[-1].count + 1, size)
        else:
            groups.append(Group(position, 1, size))
        position += size
    order: list[int] = []
    modal = np.zeros((position, scalars), np.float32)
    scalar = 0
    for start, codec in zip(starts.tolist(), codecs, strict=True):
        if isinstance(codec, NumericCodec) and codec.scalar:
            modal[start : start + len(codec.centers), scalar] = 1
            order.append(scalar)
            scalar += 1
        order.extend(range(start, start + codec.slots))
    return Layout(scalars, tuple(groups), starts, ranks, np.array(order, np.int64), modal)


class Batches:
    """Makes tensors of codes.

    Args:
        table: The training rows.
        layout: Where the columns stand.
        device: Where the tensors are wanted.
    """

    def __init__(self, table: EncodedTable, layout: Layout, device: torch.device) -> None:
        self._table = table
        self._layout = layout
        self._device = device
        self._starts = torch.from_numpy(layout.starts).to(device)

    def hot(self, rows: NDArray[np.integer]) -> Tensor:
        """Return the position of each column's slot, int64, shape (b, c)."""
        slots = torch.from_numpy(self._table.slots[rows].astype(np.int64)).to(self._device)
        return slots + self._starts

    def scalars(self, rows: NDArray[np.integer]) -> Tensor:
        """Return the scalars, float32, shape (b, s)."""
        return torch.from_numpy(np.array(self._table.alpha[rows])).to(self._device)

    def encoded(self, rows: NDArray[np.integer]) -> Tensor:
        """Return rows as the networks take them, scalars and one-hot blocks: float32, shape (b, w)."""
        made = torch.zeros(len(rows), self._layout.width, device=self._device)
        made[:, : self._layout.scalars] = self.scalars(rows)
        return made.scatter_(1, self.hot(rows), 1.0)


def gumbel_softmax(layout: Layout, outputs: Tensor, tau: float) -> list[Tensor]:
    """Return a relaxed one-hot draw of every block (arXiv:1907.00503, section 4.4; Jang et al., ICLR 2017).

    Args:
        layout: Where the columns stand.
        outputs: The network's outputs, shape (b, w).
        tau: Temperature.

    Returns:
        One tensor a group, shape (b, count * size).
    """
    logits = outputs[:, layout.scalars :]
    # -log(-log(U)) is a standard Gumbel variable; twice a logarithm is a fifth of the cost of `exponential_`.
    noise = torch.rand_like(logits).clamp_min_(1e-20).log_().neg_().clamp_min_(1e-20).log_()
    noisy = (logits - noise) / tau
    return [functional.softmax(_blocks(noisy, group, layout.scalars), dim=2).flatten(1) for group in layout.groups]


def normalisers(layout: Layout, outputs: Tensor) -> Tensor:
    """Return log sum exp of every block, as the blocks stand; shape (b, c)."""
    return torch.cat([torch.logsumexp(_blocks(outputs, group, 0), dim=2) for group in layout.groups], dim=1)


def _blocks(outputs: Tensor, group: Group, before: int) -> Tensor:
    """Return the group's part of `outputs`, whose first `before` positions are left out, shape (b, count, size)."""
    part = outputs[:, group.start - before : group.span.stop - before]
    return part.view(len(outputs), group.count, group.size)
