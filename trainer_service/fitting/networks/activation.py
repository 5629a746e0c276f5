"""From the generator's outputs to rows as the critic sees them, and back (arXiv:1907.00503, section 4.4).

tanh for scalars, a relaxed one-hot draw (Gumbel softmax; Jang et al., ICLR 2017) for every block. Shapes: b rows a
batch, w width of an encoded row, s scalars.

NOTE[DIFF]: outside its modes (a point mass, a missing cell) a column's scalar means nothing. It is 0 in the data, and
the generator's is set to 0 where its own draw is not of a mode, so that the critic cannot distinguish rows by it.
"""

import torch
from torch import Tensor

from trainer_service.fitting.networks.layout import Layout

TAU = 0.2
"""Temperature of the relaxed categorical draws."""


class Activation:
    """The activation of one batch at a time.

    Args:
        layout: Where the columns stand.
        device: Where the tensors live.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self._layout = layout
        self._modal = torch.from_numpy(layout.modal[layout.scalars :]).to(device)
        self._sums = layout.block_sums(device)
        self._saved: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, outputs: Tensor, gumbel: Tensor, into: Tensor) -> None:
        """Write rows into `into`.

        Args:
            outputs: Before activation, shape (b, w); left as they are.
            gumbel: Standard Gumbel deviates, shape (b, w).
            into: Shape (b, w).
        """
        scalars = self._layout.scalars
        self._layout.softmax((outputs + gumbel).mul_(1 / TAU), into)
        blocks = into[:, scalars:]
        tanh = torch.tanh(outputs[:, :scalars])
        # 0 or 1 forward, the share's gradient backward.
        gate = (blocks @ self._modal > 0.5).float()
        torch.mul(tanh, gate, out=into[:, :scalars])
        self._saved = (tanh, gate, blocks)

    def backward(self, slope: Tensor) -> Tensor:
        """Return the derivative by the last `outputs`, given that by the rows made of them, both shape (b, w)."""
        if self._saved is None:
            raise RuntimeError("there was no forward pass")
        tanh, gate, blocks = self._saved
        scalars = self._layout.scalars
        result = torch.empty_like(slope)
        by_scalar = slope[:, :scalars]
        result[:, :scalars] = by_scalar * gate * (1 - tanh * tanh)
        by_block = torch.addmm(slope[:, scalars:], by_scalar * tanh, self._modal.t())
        weighted = by_block.mul_(blocks)
        # Softmax: p * (slope - sum of p * slope over the block).
        torch.addcmul(weighted, blocks, weighted @ self._sums, value=-1, out=result[:, scalars:])
        result[:, scalars:].mul_(1 / TAU)
        return result
