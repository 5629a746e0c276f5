"""A fully connected network in exact integers.

Layer l takes activations x in 0..127 and gives

    hidden:  clip(rint(float32(x @ weight + bias[k]) * scale), 0, 127)
    output:  rint(float32(x @ weight + bias[k]) * scale)

where k is the row's condition. The condition's one-hot input needs no product: its rows of the weight matrix, the
layer's bias and the zero point of the input are summed beforehand into `bias`, one row a condition, at full precision.
int32 to float32, the product and `rint` are correctly rounded on every processor, and each is a separate operation, so
that no compiler fuses them: the result is the same everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rowmint.errors import DataLossError
from rowmint.synthesizer.kernels import Linear, LinearFactory

_OUTPUT_LIMIT = np.float32(1 << 20)


@dataclass(frozen=True)
class Layer:
    """One layer's numbers.

    Attributes:
        weight: int8, shape (k, m), values -127..127.
        bias: int32, shape (c, m), a row for each condition; one row where there are none.
        scale: float32, shape (m,), what a sum is multiplied by.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    scale: NDArray[np.float32]

    def to_arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """Return the arrays under ``{name}.weight`` and so on."""
        return {f"{name}.weight": self.weight, f"{name}.bias": self.bias, f"{name}.scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], name: str) -> Self:
        """Return the layer that `to_arrays` wrote.

        Raises:
            DataLossError: An array is missing or has another type or shape than it must.
        """
        try:
            weight, bias, scale = (arrays[f"{name}.{part}"] for part in ("weight", "bias", "scale"))
        except KeyError as error:
            raise DataLossError(f"the model's weights lack {error.args[0]!r}") from error
        width = weight.shape[-1] if weight.ndim == 2 else -1
        fits = (
            [weight.dtype, bias.dtype, scale.dtype] == [np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.float32)]
            and bias.ndim == 2
            and bias.shape[0] > 0
            and bias.shape[1] == width
            and scale.shape == (width,)
            and bool(np.isfinite(scale).all())
        )
        if not fits:
            raise DataLossError(f"layer {name!r} of the model's weights has wrong types or shapes")
        return cls(weight.astype(np.int8), bias.astype(np.int32), scale.astype(np.float32))


class ExactNetwork:
    """Runs the hidden layers, and any columns of the output layer. Thread-safe.

    Args:
        hidden: The hidden layers, first to last.
        output: The output layer.
        concatenate: Whether each hidden layer's result is put before its input, as in CTGAN's residual layers
            (arXiv:1907.00503, section 4.4), or replaces it.
        linear: Makes the kernel of a weight.
    """

    def __init__(self, hidden: Sequence[Layer], output: Layer, *, concatenate: bool, linear: LinearFactory) -> None:
        self._hidden = [(layer, linear(layer.weight)) for layer in hidden]
        self._output = output
        self._concatenate = concatenate
        self._linear = linear
        width = hidden[0].weight.shape[0] if hidden else output.weight.shape[0]
        self.input_width = width
        for layer in (*hidden, output):
            if layer.weight.shape[0] != width:
                raise DataLossError(f"a layer of the model takes {layer.weight.shape[0]} inputs where {width} arrive")
            if len(layer.bias) != len(output.bias):
                raise DataLossError("the layers of the model are made for different numbers of conditions")
            width = layer.weight.shape[1] + (width if concatenate else 0)

    @property
    def output_width(self) -> int:
        """Columns of the output layer."""
        return int(self._output.weight.shape[1])

    @property
    def conditions(self) -> int:
        """Conditions it is made for; 1 where there are none."""
        return len(self._output.bias)

    def hidden(self, x: NDArray[np.uint8], condition: NDArray[np.intp] | None) -> NDArray[np.uint8]:
        """Return what the output layer takes.

        Args:
            x: Input codes, shape (n, input_width).
            condition: Condition of each row, shape (n,); None where there are none.

        Returns:
            Shape (n, k), values 0..127.
        """
        for layer, linear in self._hidden:
            total = linear(x)
            total += layer.bias[0] if condition is None else layer.bias[condition]
            real = total.astype(np.float32)
            real *= layer.scale
            np.rint(real, out=real)
            np.clip(real, 0, 127, out=real)
            result = real.astype(np.uint8)
            x = np.concatenate([result, x], axis=1) if self._concatenate else result
        return x

    def head(self, spans: Sequence[slice]) -> "Head":
        """Return the part of the output layer that makes the columns in `spans`, side by side."""
        index = np.concatenate([np.arange(span.start, span.stop) for span in spans])
        layer = self._output
        part = Layer(
            np.ascontiguousarray(layer.weight[:, index]), np.ascontiguousarray(layer.bias[:, index]), layer.scale[index]
        )
        return Head(part, self._linear(part.weight))


class Head:
    """Some columns of an output layer. Thread-safe."""

    def __init__(self, layer: Layer, linear: Linear) -> None:
        self._layer = layer
        self._linear = linear

    def __call__(self, x: NDArray[np.uint8], condition: NDArray[np.intp] | None) -> NDArray[np.int32]:
        """Return the outputs, transposed: shape (m, n), in the units the layer's scale gives."""
        total = self._linear(x)
        total += self._layer.bias[0] if condition is None else self._layer.bias[condition]
        real = total.T.astype(np.float32)
        real *= self._layer.scale[:, None]
        np.rint(real, out=real)
        np.clip(real, -_OUTPUT_LIMIT, _OUTPUT_LIMIT, out=real)
        return real.astype(np.int32)


def load_network(
    body: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]], *, concatenate: bool, linear: LinearFactory
) -> ExactNetwork:
    """Return the network whose layers are ``layer.0`` and so on and ``output``.

    Raises:
        DataLossError: The number of layers or an array is wrong.
    """
    count = body.get("hidden_layers")
    if not isinstance(count, int) or not 1 <= count <= 8:
        raise DataLossError(f"the model says it has {count!r} hidden layers; it must be 1 to 8")
    hidden = [Layer.from_arrays(arrays, f"layer.{index}") for index in range(count)]
    return ExactNetwork(hidden, Layer.from_arrays(arrays, "output"), concatenate=concatenate, linear=linear)
