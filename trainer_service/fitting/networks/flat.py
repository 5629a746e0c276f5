"""All parameters of some modules as one vector: one optimizer step, one average, one copy instead of one a tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module


class FlatParameters:
    """The parameters of modules as views of one vector, their gradients as views of another.

    Args:
        modules: Their parameters are moved into the vector, in order, to `device`.
        device: Where the vector lives.

    Attributes:
        weights: All parameters, float32, shape (n,).
        gradient: Their gradients, shape (n,); written by the passes that compute them, zero at first.
    """

    def __init__(self, modules: Sequence[Module], device: torch.device) -> None:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        size = sum(parameter.numel() for parameter in parameters)
        self.weights = torch.empty(size, device=device)
        self.gradient = torch.zeros(size, device=device)
        self.weights.grad = self.gradient
        self._gradients: dict[int, Tensor] = {}
        start = 0
        for parameter in parameters:
            span = slice(start, start + parameter.numel())
            self.weights[span] = parameter.detach().to(device).flatten()
            parameter.data = self.weights[span].view(parameter.shape)
            parameter.requires_grad = False  # every gradient is computed by hand
            self._gradients[id(parameter)] = self.gradient[span].view(parameter.shape)
            start = span.stop

    def gradient_of(self, parameter: Tensor) -> Tensor:
        """Return the view that takes the gradient of `parameter`."""
        return self._gradients[id(parameter)]
