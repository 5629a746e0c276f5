"""Look-up tables that stand in for exp, tanh and the Gaussian quantile.

A library's exp or tanh differs in the last bit between processors; rounded to the integers below it does not, because
no entry lies near a rounding tie (tests hold both the margin and the tables' digests). Fixed-point units are stated
with each.
"""

import functools
import math
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

LOGIT_UNIT = 256
"""Units of a quantised logit: 1 / 256 nat."""
EXP_ONE = 1 << 19
"""exp(0) in the table of exponentials; a sum over 4,096 categories stays below 2**31."""
ALPHA_UNIT = 4096
"""Units of a quantised tanh argument: 1 / 4096."""
ALPHA_ONE = 1 << 23
"""1.0 in the table of tanh, and the unit of every normalised scalar."""
NORMAL_ONE = 1 << 16
"""1.0 in the table of normal deviates."""
CODES_PER_SIGMA = 15.875
"""Input codes 0..127 of a standard normal cover -4 to 4: z = (code - 63.5) / 15.875."""
CODE_ZERO = 63.5
"""The input code that stands for 0."""

_ALPHA_HALF = 32768
_Scalar = TypeVar("_Scalar", bound=np.generic)


def _frozen(table: NDArray[_Scalar]) -> NDArray[_Scalar]:
    table.setflags(write=False)  # every thread shares it
    return table


@functools.cache
def exponentials() -> NDArray[np.uint32]:
    """Return exp(-i / LOGIT_UNIT) * EXP_ONE for i in 0..4095, shape (4096,), decreasing to 0."""
    return _frozen(np.array([round(EXP_ONE * math.exp(-i / LOGIT_UNIT)) for i in range(4096)], np.uint32))


@functools.cache
def tangents() -> NDArray[np.int32]:
    """Return tanh((i - 32768) / ALPHA_UNIT) * ALPHA_ONE for i in 0..65535, shape (65536,)."""
    argument = (np.arange(2 * _ALPHA_HALF) - _ALPHA_HALF) / ALPHA_UNIT
    return _frozen(np.rint(np.tanh(argument) * ALPHA_ONE).astype(np.int32))


def tanh(argument: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return tanh in units of 1 / ALPHA_ONE of arguments in units of 1 / ALPHA_UNIT, any shape."""
    return tangents()[np.clip(argument, -_ALPHA_HALF, _ALPHA_HALF - 1) + _ALPHA_HALF]


@functools.cache
def input_codes() -> NDArray[np.uint8]:
    """Return the input code of the normal quantile (w + 1/2) / 65536 for each 16-bit word w, shape (65536,)."""
    normal = NormalDist()
    bounds = [math.ceil(65536 * normal.cdf((code - CODE_ZERO - 0.5) / CODES_PER_SIGMA) - 0.5) for code in range(1, 128)]
    return _frozen(np.searchsorted(np.array(bounds), np.arange(65536), side="right").astype(np.uint8))


@functools.cache
def normals() -> NDArray[np.int32]:
    """Return the normal quantile (w + 1/2) / 65536 in units of 1 / NORMAL_ONE for each word w, shape (65536,)."""
    normal = NormalDist()
    upper = [round(NORMAL_ONE * normal.inv_cdf((w + 0.5) / 65536)) for w in range(32768, 65536)]
    half = np.array(upper, np.int32)
    return _frozen(np.concatenate([-half[::-1], half]))
