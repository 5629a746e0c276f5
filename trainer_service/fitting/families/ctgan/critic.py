"""CTGAN's critic: scores, their gradient, and the loss with its penalty, by hand (arXiv:1907.00503, algorithm 1).

Between its kinks the critic, leaky ReLU and dropout included, is linear in each layer's slopes. So its gradient by the
input is a product of weights and slopes, and neither that gradient nor the penalty on it needs second derivatives.
Shapes: p packs of d inputs each, m units of a layer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, LeakyReLU, Linear

from trainer_service.fitting.networks.flat import FlatParameters

PENALTY = 10.0
"""Weight of the gradient penalty (Gulrajani et al., NeurIPS 2017)."""

Masks = Callable[[int, Sequence[int]], list[Tensor]]
"""Draws dropout's masks for n rows, one a layer, each of shape (n, m), scaled so that their mean is 1."""


class CriticPass:
    """Runs a `ctgan` critic in training mode.

    Args:
        critic: `ctgan.synthesizers.ctgan.Discriminator`, its parameters in `parameters`.
        parameters: Takes the gradients.
        masks: Draws the masks of dropout.
    """

    def __init__(self, critic: Any, parameters: FlatParameters, masks: Masks) -> None:
        *self._layers, self._final = (module for module in critic.seq if isinstance(module, Linear))
        (self._leak,) = {module.negative_slope for module in critic.seq if isinstance(module, LeakyReLU)}
        self._widths = [layer.out_features for layer in self._layers]
        self._parameters = parameters
        self._masks = masks

    @staticmethod
    def dropout(critic: Any) -> float:
        """Return the share of units that the critic drops."""
        (share,) = {float(module.p) for module in critic.seq if isinstance(module, Dropout)}
        return share

    def forward(self, packs: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return scores, shape (p, 1), each layer's input, and each layer's slopes, shape (p, m)."""
        inputs, slopes = [packs], []
        for layer, mask in zip(self._layers, self._masks(len(packs), self._widths), strict=True):
            reached = torch.addmm(layer.bias, inputs[-1], layer.weight.t())
            slope = reached.sign().clamp_min_(self._leak).mul_(mask)
            slopes.append(slope)
            inputs.append(reached.mul_(slope))
        return torch.addmm(self._final.bias, inputs[-1], self._final.weight.t()), inputs, slopes

    def gradient(self, slopes: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the gradient of each score by its pack, shape (p, d), and by what each layer reached, (p, m)."""
        by_layer: list[Tensor] = []
        gradient: Tensor = self._final.weight
        for layer, slope in zip(reversed(self._layers), reversed(slopes), strict=True):
            by_layer.append(gradient * slope)
            gradient = by_layer[-1] @ layer.weight
        return gradient, by_layer[::-1]

    def loss(self, packs: Tensor) -> Tensor:
        """Write the gradients of mean C(fake) - mean C(real) + 10 mean (|grad C(between)| - 1)^2; return the loss.

        Args:
            packs: Real packs, fake ones, and ones between them: shape (3 p, d). The last third is overwritten.
        """
        of = self._parameters.gradient_of
        third = len(packs) // 3
        scores, inputs, slopes = self.forward(packs)
        real, fake = scores[:third].mean(), scores[third : 2 * third].mean()
        gradient, by_layer = self.gradient([slope[2 * third :] for slope in slopes])
        norm = gradient.norm(2, dim=1, keepdim=True).clamp_min_(1e-12)
        excess = norm - 1
        # Through the scores, downwards: by_score[i] is the loss' derivative by what layer i reached.
        sign = torch.full((2 * third, 1), 1 / third, device=packs.device)
        sign[:third] = -1 / third
        by_score: list[Tensor] = []
        down: Tensor = sign * self._final.weight
        for index in range(len(self._layers) - 1, -1, -1):
            by_score.append(down * slopes[index][: 2 * third])
            if index:
                down = by_score[-1] @ self._layers[index].weight
        by_score.reverse()
        # Through the penalty, upwards; both parts of a weight's gradient in one product.
        up = gradient * (2 * PENALTY / third * excess / norm)
        for index, layer in enumerate(self._layers):
            below = inputs[index]
            below[2 * third :] = up
            torch.mm(torch.cat([by_score[index], by_layer[index]]).t(), below, out=of(layer.weight))
            torch.sum(by_score[index], dim=0, out=of(layer.bias))
            up = (up @ layer.weight.t()).mul_(slopes[index][2 * third :])
        torch.mm(sign.t(), inputs[-1][: 2 * third], out=of(self._final.weight))
        of(self._final.weight).add_(up.sum(dim=0))
        of(self._final.bias).zero_()
        loss: Tensor = fake - real + PENALTY * excess.square().mean()
        return loss
