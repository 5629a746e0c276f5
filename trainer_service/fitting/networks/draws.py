"""The random tensors of a training step: raw Philox words through tables, a pure function of (seed, step).

Noise is drawn from the very distribution that the sampler draws it from (`rowmint.synthesizer.exact.tables`), and no
generator's state is carried or shared. Looking deviates up is also several times as fast as computing them.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rowmint.synthesizer.exact import tables
from trainer_service.fitting.keys import key, philox


class Draws:
    """Random tensors, in the order they are requested. For one thread.

    Args:
        seed: Seed of the fit.
        purpose: What they are for.
        step: Which of its draws.
        device: Where the tensors are wanted.
    """

    def __init__(self, seed: int, purpose: str, step: int, device: torch.device) -> None:
        self._words = philox(key(seed, purpose, step))
        self._device = device
        self.numbers = np.random.Generator(self._words)
        """NumPy's generator over the same words."""

    def noise(self, rows: int, width: int) -> Tensor:
        """Return standard normal deviates as input codes stand for them, float32, shape (rows, width)."""
        pairs = _deviates().take(self._words16((rows * width + 1) // 2))
        return self._tensor(pairs.view(np.float32)[: rows * width], rows, width)

    def normal(self, rows: int, width: int) -> Tensor:
        """Return standard normal deviates, float32, shape (rows, width)."""
        return self._tensor(_normals().take(self._words16(rows * width)), rows, width)

    def gumbel(self, rows: int, width: int) -> Tensor:
        """Return standard Gumbel deviates, float32, shape (rows, width)."""
        return self._tensor(_gumbels().take(self._words16(rows * width)), rows, width)

    def uniform(self, rows: int) -> Tensor:
        """Return numbers of [0, 1), float32, shape (rows, 1)."""
        return self._tensor((self._words16(rows) / 65536).astype(np.float32), rows, 1)

    def masks(self, rows: int, widths: Sequence[int], dropped: float) -> list[Tensor]:
        """Return dropout's masks, float32, shape (rows, width) each: 0 for the share `dropped`, mean 1."""
        count = rows * sum(widths)
        if dropped == 0.5:  # a bit each
            words = self._words.random_raw(-(-count // 64)).astype("<u8", copy=False)
            kept = np.unpackbits(words.view(np.uint8), count=count)
        else:
            kept = (self._words16(count) >= dropped * 65536).view(np.uint8)
        flat = self._tensor(kept.astype(np.float32) * np.float32(1 / (1 - dropped)), 1, count)[0]
        parts = torch.split(flat, [rows * width for width in widths])
        return [part.view(rows, width) for part, width in zip(parts, widths, strict=True)]

    def _words16(self, count: int) -> NDArray[np.uint16]:
        words: NDArray[np.uint64] = self._words.random_raw(-(-count // 4)).astype("<u8", copy=False)
        return words.view("<u2")[:count]

    def _tensor(self, values: NDArray[np.float32], rows: int, width: int) -> Tensor:
        return torch.from_numpy(values).view(rows, width).to(self._device)


@functools.cache
def _deviates() -> NDArray[np.complex64]:
    """Return the deviates of both bytes of a 16-bit word, as one item, shape (65536,)."""
    return deviates_of(tables.input_codes(np.arange(65536, dtype=np.uint16))).view(np.complex64)


def deviates_of(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the normal deviates that input codes stand for, same shape."""
    return ((codes - np.float32(tables.CODE_ZERO)) / np.float32(tables.CODES_PER_SIGMA)).astype(np.float32)


@functools.cache
def _normals() -> NDArray[np.float32]:
    return (tables.normals() / tables.NORMAL_ONE).astype(np.float32)


@functools.cache
def _gumbels() -> NDArray[np.float32]:
    return (-np.log(-np.log((np.arange(65536) + 0.5) / 65536))).astype(np.float32)
