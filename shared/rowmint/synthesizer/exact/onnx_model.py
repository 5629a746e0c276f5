"""ONNX models of layers in exact integers, written field by field (onnx.proto, IR version 8).

Writing the few bytes around the weights ourselves saves the sampler the `onnx` package. `QGemm` (onnxruntime's own
domain) multiplies uint8 by int8, adds an int32 bias, multiplies by a scale a channel, rounds half to even and
saturates, in one pass over the product.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.exact.layers import ACTIVATION_MAX, Layer

_FLOAT, _UINT8, _INT8, _INT16, _INT32, _INT64 = 1, 2, 3, 5, 6, 7
_ELEMENTS = {
    np.dtype(np.float32): _FLOAT,
    np.dtype(np.uint8): _UINT8,
    np.dtype(np.int8): _INT8,
    np.dtype(np.int32): _INT32,
    np.dtype(np.int64): _INT64,
}
_CONTRIB = "com.microsoft"

INPUT, OUTPUT = "x", "y"
"""Names of a model's input and output."""


class _Graph:
    """A graph being written."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        """Add an initializer and return its name."""
        dims = b"".join(_number(1, size) for size in array.shape)
        kind = _number(2, _ELEMENTS[array.dtype])
        self._tensors.append(dims + kind + _field(8, name.encode()) + _field(9, np.ascontiguousarray(array).tobytes()))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, attributes: bytes = b"", domain: str = "") -> str:
        """Add a node and return the name of its output."""
        body = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode())
        body += _field(4, operator.encode()) + attributes
        self._nodes.append(body + (_field(7, domain.encode()) if domain else b""))
        return output

    def product(self, name: str, x: str, layer: Layer, *, quantised: bool) -> str:
        """Add a layer: uint8 where `quantised`, else float32, neither rounded nor clipped."""
        inputs = [
            x,
            self.constant(f"{name}.one", np.array(1, np.float32)),
            self.constant(f"{name}.zero", np.array(0, np.uint8)),
            self.constant(f"{name}.weight", layer.weight),
            self.constant(f"{name}.scale", layer.scale),
            self.constant(f"{name}.zeros", np.zeros(len(layer.scale), np.int8)),
            self.constant(f"{name}.bias", layer.bias),
        ]
        if quantised:
            inputs += [f"{name}.one", f"{name}.zero"]
        return self.node("QGemm", inputs, f"{name}.y", domain=_CONTRIB)

    def model(self, inputs: int, element: int, shape: Sequence[int | str]) -> bytes:
        """Return the model of `INPUT`, uint8 of shape (n, inputs), and `OUTPUT`."""
        graph = b"".join(_field(1, node) for node in self._nodes) + _field(2, b"g")
        graph += b"".join(_field(5, tensor) for tensor in self._tensors)
        graph += _field(11, _value_info(INPUT, _UINT8, ("n", inputs)))
        graph += _field(12, _value_info(OUTPUT, element, shape))
        opsets = _field(8, _number(2, 13)) + _field(8, _field(1, _CONTRIB.encode()) + _number(2, 1))
        return _number(1, 8) + _field(7, graph) + opsets


def hidden_model(layers: Sequence[Layer], *, concatenate: bool) -> bytes:
    """Return the model from uint8 (n, k) to the last layer's input, uint8 (n, k'); at least one layer."""
    graph = _Graph()
    greatest = graph.constant("greatest", np.array(ACTIVATION_MAX, np.uint8))
    x = INPUT
    width = layers[0].weight.shape[0]
    for index, layer in enumerate(layers):
        name = OUTPUT if index == len(layers) - 1 else f"x{index}"
        product = graph.product(f"l{index}", x, layer, quantised=True)
        made = graph.node("Clip", [product, "", greatest], f"h{index}" if concatenate else name)
        if concatenate:
            axis = _field(5, _field(1, b"axis") + _number(3, 1) + _number(20, 2))
            made = graph.node("Concat", [made, x], name, axis)
        width = layer.weight.shape[1] + (width if concatenate else 0)
        x = made
    return graph.model(layers[0].weight.shape[0], _UINT8, ("n", width))


def output_model(layer: Layer) -> bytes:
    """Return the model from uint8 (n, k) to outputs, int16 (m, n)."""
    graph = _Graph()
    turned = graph.node("Transpose", [graph.product("l", INPUT, layer, quantised=False)], "turned")
    whole = graph.node("Round", [turned], "whole")
    least = graph.constant("least", np.array(-32768, np.float32))
    greatest = graph.constant("greatest", np.array(32767, np.float32))
    clipped = graph.node("Clip", [whole, least, greatest], "clipped")
    to = _field(5, _field(1, b"to") + _number(3, _INT16) + _number(20, 2))
    graph.node("Cast", [clipped], OUTPUT, to)
    return graph.model(layer.weight.shape[0], _INT16, (layer.weight.shape[1], "n"))


def _value_info(name: str, element: int, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(
        _field(1, _field(2, size.encode()) if isinstance(size, str) else _number(1, size)) for size in shape
    )
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, element) + _field(2, dims)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body
