"""Kernels: what runs the layers of an exact network.

Every kernel gives the same integers, so which one runs is a matter of speed alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.exact.layers import ACTIVATION_MAX, Layer
from rowmint.synthesizer.exact.onnx_model import INPUT, OUTPUT, hidden_model, output_model
from rowmint.synthesizer.exact.workspace import Workspace

_EXACT_TERMS = 1024  # 1024 * 127 * 127 < 2**24: a float32 sum of so many products is exact in any order

_SESSION_BYTES = 104 << 10  # measured, of a session of the smallest layer
_HIDDEN_ROWS = 512  # what a layer makes of so many stays in a core's own cache

Hidden = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""From activations of shape (n, k) to those of the last layer, (n, k'). Thread-safe."""
Output = Callable[[NDArray[np.uint8]], NDArray[np.int16]]
"""From activations of shape (n, k) to outputs, transposed: shape (m, n). Thread-safe."""


class Kernel(Protocol):
    """Prepares the layers of a network; see `rowmint.synthesizer.exact.layers` for what they compute. Thread-safe.

    Attributes:
        workspace: What the threads compute in, whichever network it is.
    """

    workspace: Workspace

    def hidden(self, layers: Sequence[Layer], *, concatenate: bool) -> Hidden:
        """Make ready hidden layers.

        Args:
            layers: First to last, at least one.
            concatenate: Whether each layer's result is put before its input, as in CTGAN's residual layers
                (arXiv:1907.00503, section 4.4), or replaces it.
        """
        ...

    def output(self, layer: Layer) -> Output:
        """Make ready an output layer."""
        ...

    def prepared_bytes(self, size: int, parts: int) -> int:
        """Return about how much memory layers of `size` bytes together take, made ready in so many parts."""
        ...


class NumpyKernel:
    """The kernel that needs nothing but NumPy: float32 products of at most 1,024 terms, each sum below 2**24."""

    def __init__(self) -> None:
        self.workspace = Workspace()

    def hidden(self, layers: Sequence[Layer], *, concatenate: bool) -> Hidden:
        """See `Kernel.hidden`."""
        sums = [_NumpySums(layer) for layer in layers]

        def forward(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
            for layer in sums:
                real = layer(x)
                np.clip(real, 0, ACTIVATION_MAX, out=real)
                result = real.astype(np.uint8)
                x = np.concatenate([result, x], axis=1) if concatenate else result
            return x

        return forward

    def output(self, layer: Layer) -> Output:
        """See `Kernel.output`."""
        sums = _NumpySums(layer)

        def forward(x: NDArray[np.uint8]) -> NDArray[np.int16]:
            real = sums(x)
            np.clip(real, -32768, 32767, out=real)
            return np.ascontiguousarray(real.T.astype(np.int16))

        return forward

    def prepared_bytes(self, size: int, parts: int) -> int:
        """See `Kernel.prepared_bytes`: float32 for int8."""
        return 4 * size


class _NumpySums:
    """rint(float32(x @ weight + bias) * scale), float32, shape (n, m)."""

    def __init__(self, layer: Layer) -> None:
        self._bias, self._scale = layer.bias, layer.scale
        self._chunks = [
            (start, np.ascontiguousarray(layer.weight[start : start + _EXACT_TERMS], np.float32))
            for start in range(0, layer.weight.shape[0], _EXACT_TERMS)
        ]

    def __call__(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        total = np.repeat(self._bias[None], len(x), axis=0)
        for start, weight in self._chunks:
            part = x[:, start : start + len(weight)].astype(np.float32)
            total += (part @ weight).astype(np.int32)
        real: NDArray[np.float32] = total.astype(np.float32)
        real *= self._scale
        return np.rint(real, out=real)


class OnnxKernel:
    """onnxruntime: the product, its scale and its rounding in one pass, on integer instructions where there are any.

    Args:
        threads: Threads of one product.
    """

    def __init__(self, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 - optional: the NumPy kernel gives the same bytes without it

        self.workspace = Workspace()
        self._runtime: Any = onnxruntime
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        # A spinning thread pool would take the processor from every other stream of this process.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    def hidden(self, layers: Sequence[Layer], *, concatenate: bool) -> Hidden:
        """See `Kernel.hidden`."""
        width = layers[0].weight.shape[0] if concatenate else 0
        width += sum(layer.weight.shape[1] for layer in layers) if concatenate else layers[-1].weight.shape[1]
        run = self._session(hidden_model(layers, concatenate=concatenate))

        def forward(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
            made = np.empty((len(x), width), np.uint8)
            for start in range(0, len(x), _HIDDEN_ROWS):
                run(x[start : start + _HIDDEN_ROWS], made[start : start + _HIDDEN_ROWS])
            return made

        return forward

    def output(self, layer: Layer) -> Output:
        """See `Kernel.output`."""
        run = self._session(output_model(layer))
        width = len(layer.bias)  # of the layer itself the session has a copy of its own

        def forward(x: NDArray[np.uint8]) -> NDArray[np.int16]:
            made = np.empty((width, len(x)), np.int16)
            if len(x):
                run(x, made)
            return made

        return forward

    def prepared_bytes(self, size: int, parts: int) -> int:
        """See `Kernel.prepared_bytes`: a session's copy, and the one that is packed for its instructions; measured."""
        return size * 9 // 4 + parts * _SESSION_BYTES

    def _session(self, model: bytes) -> Callable[[NDArray[np.uint8], NDArray[Any]], None]:
        session = self._runtime.InferenceSession(model, self._options, providers=["CPUExecutionProvider"])

        def run(x: NDArray[np.uint8], into: NDArray[Any]) -> None:
            x = np.ascontiguousarray(x)
            binding = session.io_binding()
            binding.bind_input(INPUT, "cpu", 0, np.uint8, x.shape, x.ctypes.data)
            binding.bind_output(OUTPUT, "cpu", 0, into.dtype, into.shape, into.ctypes.data)
            session.run_with_iobinding(binding)

        return run


def choose_kernel(name: str = "auto", threads: int = 1) -> Kernel:
    """Return the kernel to run with.

    Args:
        name: ``onnxruntime``, ``numpy``, or ``auto``: onnxruntime where it is installed.
        threads: Threads of one onnxruntime product.

    Raises:
        ValueError: `name` is none of these.
        ImportError: onnxruntime was requested and is not installed.
    """
    if name not in ("auto", "onnxruntime", "numpy"):
        raise ValueError(f"kernel is {name!r}; it must be auto, onnxruntime or numpy")
    if name != "numpy":
        try:
            return OnnxKernel(threads)
        except ImportError:
            if name == "onnxruntime":
                raise
    return NumpyKernel()
