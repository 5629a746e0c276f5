"""Forward and backward pass of CTGAN's generator, by hand (arXiv:1907.00503, section 4.4).

The package's `Generator` holds the weights; autograd would visit some forty nodes a step and copy every concatenation.
Here h2 + h1 + x0 lie side by side in one buffer from the start, and unused gradients are not computed. Shapes: b
rows a batch, i inputs, m units of a layer, w outputs.
"""

from typing import Any

import torch
from torch import Tensor

from trainer_service.fitting.networks.flat import FlatParameters


class GeneratorPass:
    """Runs a `ctgan` generator in training mode on batches of one size.

    NOTE[DIFF]: the bias in front of a batch normalisation has no effect and no gradient; it stays as it was drawn.

    Args:
        generator: `ctgan.synthesizers.ctgan.Generator`, its parameters in `parameters`.
        parameters: Takes the gradients.
        inputs: Width of the input, i.
        batch: Rows, b.
    """

    def __init__(self, generator: Any, parameters: FlatParameters, inputs: int, batch: int) -> None:
        *residuals, self._final = generator.seq
        self._layers = [(residual.fc, residual.bn) for residual in residuals]
        self._parameters = parameters
        self._hidden = sum(fc.out_features for fc, _ in self._layers)
        self._x = torch.zeros(batch, self._hidden + inputs, device=parameters.weights.device)
        self._saved: list[tuple[Tensor, Tensor, Tensor]] = []
        self.input = self._x[:, self._hidden :]
        """Written by the caller before `forward`: noise and condition vector, shape (b, i)."""

    def forward(self) -> Tensor:
        """Return the outputs before activation, shape (b, w)."""
        self._saved = []
        left = self._hidden
        for fc, bn in self._layers:
            reached = self._x[:, left:] @ fc.weight.t()
            normal = reached.sub_(reached.mean(dim=0))
            inverse = (normal * normal).mean(dim=0).add_(bn.eps).rsqrt_()
            normal.mul_(inverse)
            made = torch.addcmul(bn.bias, normal, bn.weight).clamp_min_(0)
            self._saved.append((normal, inverse, made))
            right, left = left, left - fc.out_features
            self._x[:, left:right] = made
        return torch.addmm(self._final.bias, self._x, self._final.weight.t())

    def backward(self, slope: Tensor) -> None:
        """Write the gradients of the loss whose derivative by the last outputs is `slope`, shape (b, w)."""
        of = self._parameters.gradient_of
        torch.mm(slope.t(), self._x, out=of(self._final.weight))
        torch.sum(slope, dim=0, out=of(self._final.bias))
        hidden = slope @ self._final.weight[:, : self._hidden]
        left = 0
        for (fc, bn), (normal, inverse, made) in zip(reversed(self._layers), reversed(self._saved), strict=True):
            right = left + fc.out_features
            # ReLU, then batch normalisation (Ioffe and Szegedy, ICML 2015, section 3).
            own = made.sign_().mul_(hidden[:, left:right])
            shift = torch.sum(own, dim=0, out=of(bn.bias))
            gain = torch.sum(own * normal, dim=0, out=of(bn.weight))
            own.sub_(shift / len(own)).addcmul_(normal, gain / len(own), value=-1).mul_(inverse * bn.weight)
            torch.mm(own.t(), self._x[:, right:], out=of(fc.weight))
            if right < self._hidden:
                hidden[:, right:].addmm_(own, fc.weight[:, : self._hidden - right])
            left = right
