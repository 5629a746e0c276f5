"""Keyed randomness: every draw of a fit is a pure function of (seed, purpose, step), so there is no state to save."""

import hashlib
import struct

import numpy as np


def key(seed: int, purpose: str, step: int = 0) -> bytes:
    """Return 32 bytes for `purpose` at `step`.

    Args:
        seed: Seed of the fit, 0 to 2**64 - 1.
        purpose: What the draws are for.
        step: Which of its draws, from 0.
    """
    return hashlib.sha256(b"rowmint/fit/1\0" + struct.pack(">QQ", seed, step) + purpose.encode()).digest()


def torch_seed(seed: int, purpose: str, step: int = 0) -> int:
    """Return a seed for torch's generator, 0 to 2**63 - 1."""
    return int.from_bytes(key(seed, purpose, step)[:8], "big") >> 1


def random(seed: int, purpose: str, step: int = 0) -> np.random.Generator:
    """Return a NumPy generator."""
    return np.random.Generator(philox(key(seed, purpose, step)))


def philox(material: bytes) -> np.random.Philox:
    """Return the generator of raw words keyed by the first 16 bytes of `material`."""
    return np.random.Philox(key=np.frombuffer(material[:16], "<u8").astype(np.uint64))
