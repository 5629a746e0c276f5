"""The state of Adam over one vector of weights, as arrays."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

_MOMENTS = ("exp_avg", "exp_avg_sq")


def to_arrays(optimizer: Adam, name: str) -> dict[str, NDArray[np.float32]]:
    """Return steps taken and both moments, by names that begin with `name`; copies.

    Args:
        optimizer: Over one vector of weights, shape (n,).
        name: What it is called.
    """
    (weights,) = optimizer.param_groups[0]["params"]
    state = optimizer.state.get(weights)
    if not state:  # no step is taken yet
        return {f"{name}.step": np.zeros(1, np.float32)}
    moments = {f"{name}.{moment}": state[moment].cpu().numpy().copy() for moment in _MOMENTS}
    return {f"{name}.step": np.array([float(state["step"])], np.float32), **moments}


def from_arrays(optimizer: Adam, name: str, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Bring `optimizer` to what `to_arrays` gave.

    Raises:
        KeyError: An array is missing.
        ValueError: An array does not have the shape of the weights.
    """
    (weights,) = optimizer.param_groups[0]["params"]
    steps = float(arrays[f"{name}.step"][0])
    if not steps:
        optimizer.state.pop(weights, None)
        return
    optimizer.state[weights] = {
        # Where fused steps look for it: beside the weights.
        "step": torch.tensor(steps, dtype=torch.float32, device=weights.device),
        **{moment: _like(weights, arrays[f"{name}.{moment}"]) for moment in _MOMENTS},
    }


def _like(weights: Tensor, array: NDArray[np.float32]) -> Tensor:
    moment = torch.empty_like(weights)
    load(moment, array)
    return moment


def load(vector: Tensor, array: NDArray[np.float32]) -> None:
    """Copy an array into a vector of weights, both shape (n,).

    Raises:
        ValueError: The shapes or types differ.
    """
    if array.shape != tuple(vector.shape) or array.dtype != np.float32:
        raise ValueError(
            f"an array of shape {array.shape} and type {array.dtype} is not a vector of {len(vector)} weights"
        )
    vector.copy_(torch.from_numpy(array))
