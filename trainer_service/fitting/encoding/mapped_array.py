"""Arrays in files, for tables larger than memory."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def mapped_array(path: Path, kind: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Make an array of zeros that lies in a file.

    The file's blocks are allocated here: a disk that filled up later would end the process, by SIGBUS, in whichever
    assignment needs the first block that is not there.

    Args:
        path: The file; one that is there is replaced.
        kind: Type of the elements.
        shape: Shape of the array. An array without elements lies in memory, as an empty file cannot be mapped.

    Raises:
        OSError: The file cannot be made; `ENOSPC` where the disk has no room for it.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    if not size:
        return np.zeros(shape, kind)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, kind, "r+", shape=shape)  # noqa: TID251 - its blocks are there
