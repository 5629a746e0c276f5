"""Look-up tables that stand in for exp, tanh and the Gaussian quantile.

A library's exp or tanh differs in the last bit between processors; rounded to the integers below it does not, because
no entry lies near a rounding tie (tests hold both the margin and the tables' digests). Fixed-point units are stated
with each. `take` looks up two to three times as fast as indexing does.
"""

import functools
import math
import sys
from decimal import Decimal, localcontext
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.numeric import ALPHA_ONE

LOGIT_UNIT = 256
"""Units of a quantised logit: 1 / 256 nat."""
EXP_ONE = 1 << 18
"""exp(0) in the table of exponentials; a sum over 4,098 choices stays below 2**31."""
ALPHA_UNIT = 4096
"""Units of a quantised tanh argument: 1 / 4096."""
NORMAL_BITS = 16
NORMAL_ONE = 1 << NORMAL_BITS
"""1.0 in the table of normal deviates."""
CODES_PER_SIGMA = 15.875
"""Input codes 0..127 of a standard normal cover -4 to 4: z = (code - 63.5) / 15.875."""
CODE_ZERO = 63.5
"""The input code that stands for 0."""
UNREACHABLE = 65535
"""The 16-bit distance of a choice that is impossible, in `deep_exponentials`."""

_CODES_SPREAD = 15.85
_EXP_ENTRIES = 4096
_ALPHA_HALF = 32768
_Scalar = TypeVar("_Scalar", bound=np.generic)


def _frozen(table: NDArray[_Scalar]) -> NDArray[_Scalar]:
    table.setflags(write=False)  # every thread shares it
    return table


@functools.cache
def exponentials() -> NDArray[np.int32]:
    """Return exp(-i / LOGIT_UNIT) * EXP_ONE for i in 0..4095, shape (4096,), decreasing to 0."""
    return _frozen(np.array([round(EXP_ONE * math.exp(-i / LOGIT_UNIT)) for i in range(_EXP_ENTRIES)], np.int32))


def falling_exponentials(distance: NDArray[np.uint16], out: NDArray[np.int32]) -> None:
    """Write exp(-distance), units of 1 / EXP_ONE, of distances in units of 1 / LOGIT_UNIT; same shape."""
    _every_exponential().take(distance, out=out, mode="clip")  # every index is valid; other modes copy first


@functools.cache
def _every_exponential() -> NDArray[np.int32]:
    """Return the table of exponentials, zeros behind it, for any 16-bit distance: shape (65536,)."""
    every = np.zeros(1 << 16, np.int32)
    every[:_EXP_ENTRIES] = exponentials()
    return _frozen(every)


@functools.cache
def deep_exponentials() -> NDArray[np.float64]:
    """Return exp(-i / LOGIT_UNIT) for i in 0..65534 and 0 for `UNREACHABLE`, shape (65536,).

    Each is the product of two numbers that are rounded from decimal arithmetic.
    """
    with localcontext() as context:
        context.prec = 40
        fine = [float((Decimal(-i) / LOGIT_UNIT).exp()) for i in range(LOGIT_UNIT)]
        whole = [float(Decimal(-nats).exp()) for nats in range(UNREACHABLE // LOGIT_UNIT + 1)]
    every = np.multiply.outer(np.array(whole), np.array(fine)).ravel()
    every[UNREACHABLE] = 0.0
    return _frozen(every)


@functools.cache
def tangents() -> NDArray[np.int32]:
    """Return tanh((i - 32768) / ALPHA_UNIT) * ALPHA_ONE for i in 0..65535, shape (65536,)."""
    argument = (np.arange(2 * _ALPHA_HALF) - _ALPHA_HALF) / ALPHA_UNIT
    return _frozen(np.rint(np.tanh(argument) * ALPHA_ONE).astype(np.int32))


def tanh(argument: NDArray[np.int16]) -> NDArray[np.int32]:
    """Return tanh in units of 1 / ALPHA_ONE of arguments in units of 1 / ALPHA_UNIT, any shape."""
    return _wrapped_tangents().take(argument.view(np.uint16))


@functools.cache
def _wrapped_tangents() -> NDArray[np.int32]:
    """Return the table of tanh in the order of a 16-bit argument's two's complement, shape (65536,)."""
    return _frozen(np.roll(tangents(), _ALPHA_HALF))


@functools.cache
def byte_codes() -> NDArray[np.uint8]:
    """Return the input code of each byte, shape (256,): the mean of the normal's 256 equally probable parts.

    Part b lies between the quantiles b / 256 and (b + 1) / 256; the mean of a standard normal over it is 256 times the
    difference of the densities there, less a little for what rounding to whole codes adds. Drawn by bytes, codes have
    mean 63.5 and, within 0.1 %, a standard deviation of `CODES_PER_SIGMA`; the trainer draws from this same table.
    """
    normal = NormalDist()
    density = [0.0, *(normal.pdf(normal.inv_cdf(part / 256)) for part in range(1, 256)), 0.0]
    means = [256 * (density[part] - density[part + 1]) for part in range(256)]
    return _frozen(np.array([round(CODE_ZERO + _CODES_SPREAD * mean) for mean in means], np.uint8))


@functools.cache
def _code_pairs() -> NDArray[np.uint16]:
    """Return the codes of both bytes of a 16-bit word, the low byte's first in memory; shape (65536,)."""
    words = np.arange(65536)
    low, high = byte_codes()[words & 255].astype(np.uint16), byte_codes()[words >> 8].astype(np.uint16)
    return _frozen(low | high << np.uint16(8) if sys.byteorder == "little" else high | low << np.uint16(8))


def input_codes(words: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return two input codes a 16-bit word, low byte's first, shape (2 n,)."""
    return _code_pairs().take(words, mode="clip").view(np.uint8)


@functools.cache
def normals() -> NDArray[np.int32]:
    """Return the normal quantile (w + 1/2) / 65536 in units of 1 / NORMAL_ONE for each word w, shape (65536,)."""
    normal = NormalDist()
    upper = [round(NORMAL_ONE * normal.inv_cdf((w + 0.5) / 65536)) for w in range(32768, 65536)]
    half = np.array(upper, np.int32)
    return _frozen(np.concatenate([-half[::-1], half]))
