"""Arrays that are used again, so that a thread does not request memory from the system with every tile.

Fresh pages cost a fault each, and two threads that map and unmap them wait for each other: measured on two cores, a
look-up into a fresh array of a megabyte took 13 times as long as into one that was there. Larger ones than
`KEPT_BYTES` are not kept: no request makes a thread hold memory for good.
"""

import math
import threading

import numpy as np
from numpy.typing import DTypeLike, NDArray

KEPT_BYTES = 8 << 20
"""The largest array that is kept; what is computed a thousand rows at a time stays far below."""


class Workspace(threading.local):
    """A thread's workspace. Any thread may use it; each has its own."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """Return an array with whatever is in it; it is the caller's until the thread requests `name` again."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if size > KEPT_BYTES:
            return np.empty(shape, kind)
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = np.empty(size, np.uint8)
        return held[:size].view(kind).reshape(shape)
