"""A fully connected network in exact integers, and the condition vector that is part of its input.

The network takes input codes of Gaussian noise and, behind them, the row's one-hot condition vector, where there
are any: 127 at its place, else 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.errors import DataLossError
from rowmint.synthesizer.exact.kernels import Kernel, Output
from rowmint.synthesizer.exact.layers import ACTIVATION_MAX, Layer


class ExactNetwork:
    """Runs the hidden layers, and any columns of the output layer. Thread-safe.

    Args:
        hidden: The hidden layers, first to last.
        output: The output layer.
        concatenate: Whether each hidden layer's result is put before its input, or replaces it.
        conditions: Places of the one-hot condition vector; 0 where there is none.
        kernel: What runs them.

    Raises:
        DataLossError: The layers do not fit each other.
    """

    def __init__(
        self, hidden: Sequence[Layer], output: Layer, *, concatenate: bool, conditions: int, kernel: Kernel
    ) -> None:
        width = hidden[0].weight.shape[0] if hidden else output.weight.shape[0]
        self.noise_width = width - conditions
        self.conditions = conditions
        if self.noise_width < 1:
            raise DataLossError(f"the model's network takes {width} inputs, too few for {conditions} condition vectors")
        for layer in (*hidden, output):
            if layer.weight.shape[0] != width:
                raise DataLossError(f"a layer of the model takes {layer.weight.shape[0]} inputs where {width} arrive")
            width = layer.weight.shape[1] + (width if concatenate else 0)
        if not all(len(layer.bias) for layer in hidden):
            raise DataLossError("a hidden layer of the model gives nothing")
        self._hidden = kernel.hidden(hidden, concatenate=concatenate) if hidden else None
        self._output = output
        self._kernel = kernel
        self._hidden_bytes = kernel.prepared_bytes(sum(layer.size_bytes for layer in hidden), 1) if hidden else 0
        self.workspace = kernel.workspace

    @property
    def output_inputs(self) -> int:
        """Activations that the output layer takes, k."""
        return int(self._output.weight.shape[0])

    @property
    def output_width(self) -> int:
        """Columns of the output layer."""
        return int(self._output.weight.shape[1])

    def hidden(self, codes: NDArray[np.uint8], condition: NDArray[np.intp] | None) -> NDArray[np.uint8]:
        """Return what the output layer takes.

        Args:
            codes: Input codes, shape (n, noise_width).
            condition: Condition vector of each row, shape (n,); None where there are none.

        Returns:
            Shape (n, k), values 0..127.
        """
        x: NDArray[Any] = codes
        if condition is not None:
            x = self.workspace.array("input", (len(codes), self.noise_width + self.conditions), np.uint8)
            x[:, : self.noise_width] = codes
            x[:, self.noise_width :] = 0
            x[np.arange(len(codes)), condition + self.noise_width] = ACTIVATION_MAX
        return x if self._hidden is None else self._hidden(x)

    def memory_bytes(self, heads: int, copies: int) -> int:
        """Return about how much memory the network takes with some heads, which make each output so often together."""
        output = self._output.size_bytes
        return self._hidden_bytes + output + self._kernel.prepared_bytes(copies * output, heads)

    def head(self, outputs: NDArray[np.intp]) -> Output:
        """Return what makes these outputs, in this order, from what `hidden` gives."""
        return self._kernel.output(self._output.select(outputs))


def load_network(
    body: Mapping[str, Any],
    arrays: Mapping[str, NDArray[np.generic]],
    *,
    concatenate: bool,
    conditions: int,
    kernel: Kernel,
) -> ExactNetwork:
    """Return the network whose layers are ``layer.0`` and so on and ``output``.

    Raises:
        DataLossError: The number of layers or an array is wrong.
    """
    count = body.get("hidden_layers")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 8:
        raise DataLossError(f"the model says it has {count!r} hidden layers; it must be 1 to 8")
    hidden = [Layer.from_arrays(arrays, f"layer.{index}") for index in range(count)]
    output = Layer.from_arrays(arrays, "output")
    return ExactNetwork(hidden, output, concatenate=concatenate, conditions=conditions, kernel=kernel)
