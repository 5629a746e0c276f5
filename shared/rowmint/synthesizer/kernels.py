"""Integer matrix products: uint8 activations (0..127) times int8 weights, summed in int32, exactly.

Every kernel gives the same integers, so which one runs is a matter of speed alone. Activations keep to 7 bits because
x86 kernels without VNNI add pairs of uint8 x int8 products in int16, which saturates at 8 bits.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_EXACT_TERMS = 1024  # 1024 * 127 * 127 < 2**24: a float32 sum of so many products is exact in any order


class Linear(Protocol):
    """Multiplies by one weight matrix. Thread-safe."""

    def __call__(self, x: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return `x @ weight`.

        Args:
            x: Shape (n, k), values 0..127.

        Returns:
            Shape (n, m), exact.
        """
        ...


LinearFactory = Callable[[NDArray[np.int8]], Linear]
"""Makes a `Linear` from a weight of shape (k, m), values -127..127."""


class NumpyLinear:
    """The kernel that needs nothing but NumPy: float32 products of at most 1,024 terms, each sum below 2**24."""

    def __init__(self, weight: NDArray[np.int8]) -> None:
        self._width = weight.shape[1]
        self._chunks = [
            (start, np.ascontiguousarray(weight[start : start + _EXACT_TERMS], np.float32))
            for start in range(0, weight.shape[0], _EXACT_TERMS)
        ]

    def __call__(self, x: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return `x @ weight`, shape (n, m)."""
        total = np.zeros((len(x), self._width), np.int32)
        for start, weight in self._chunks:
            part = x[:, start : start + len(weight)].astype(np.float32)
            total += (part @ weight).astype(np.int32)
        return total


class OnnxLinear:
    """onnxruntime's `MatMulInteger`, about ten times as fast as float32 on processors with VNNI."""

    def __init__(self, weight: NDArray[np.int8], threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 - optional: the NumPy kernel gives the same bytes without it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning thread pool would take the processor from every other stream of this process.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            _matmul_integer_model(weight), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, x: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return `x @ weight`, shape (n, m)."""
        (product,) = self._session.run(None, {"x": np.ascontiguousarray(x)})
        result: NDArray[np.int32] = product
        return result


def choose_linear(kernel: str = "auto", threads: int = 1) -> LinearFactory:
    """Return the factory of the kernel to run with.

    Args:
        kernel: ``onnxruntime``, ``numpy``, or ``auto``: onnxruntime where it is installed.
        threads: Threads of one onnxruntime product.

    Raises:
        ValueError: `kernel` is none of these.
        ImportError: onnxruntime was asked for and is not installed.
    """
    if kernel not in ("auto", "onnxruntime", "numpy"):
        raise ValueError(f"kernel is {kernel!r}; it must be auto, onnxruntime or numpy")
    if kernel != "numpy":
        try:
            import onnxruntime  # noqa: F401, PLC0415 - is it there?
        except ImportError:
            if kernel == "onnxruntime":
                raise
        else:
            return lambda weight: OnnxLinear(weight, threads)
    return NumpyLinear


def _matmul_integer_model(weight: NDArray[np.int8]) -> bytes:
    """Return an ONNX model, y = MatMulInteger(x, weight), written field by field (onnx.proto, IR version 8).

    Writing the sixty bytes around the weight ourselves saves the sampler the `onnx` package.
    """
    rows, columns = weight.shape
    uint8, int8, int32 = 2, 3, 6

    def value_info(name: str, element: int, width: int) -> bytes:
        shape = _field(1, _field(2, b"n")) + _field(1, _number(1, width))
        return _field(1, name.encode()) + _field(2, _field(1, _number(1, element) + _field(2, shape)))

    tensor = b"".join(
        (
            _number(1, rows),
            _number(1, columns),
            _number(2, int8),
            _field(8, b"w"),
            _field(9, np.ascontiguousarray(weight).tobytes()),
        )
    )
    node = _field(1, b"x") + _field(1, b"w") + _field(2, b"y") + _field(4, b"MatMulInteger")
    graph = b"".join(
        (
            _field(1, node),
            _field(2, b"g"),
            _field(5, tensor),
            _field(11, value_info("x", uint8, rows)),
            _field(12, value_info("y", int32, columns)),
        )
    )
    return _number(1, 8) + _field(7, graph) + _field(8, _number(2, 13))


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
