"""How many digits after the point a double has."""

import numpy as np
import numpy.typing as npt


def holds_decimals(numbers: npt.NDArray[np.float64], decimals: int) -> npt.NDArray[np.bool_]:
    """Return which numbers are the doubles nearest to some decimal number of that many fraction digits.

    With k = rint(x 10^d) below 2^53 and d at most 22, both k and 10^d are exact and k / 10^d is correctly rounded: the
    double that parsing the decimal text gives. Larger numbers are held if they are whole.

    Args:
        numbers: Finite, shape (n,).
        decimals: d, 0 to 15.
    """
    scale = 10.0**decimals
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(numbers * scale)
        held: npt.NDArray[np.bool_] = (scaled / scale == numbers) & (np.abs(scaled) < 2**53)
    whole: npt.NDArray[np.bool_] = np.rint(numbers) == numbers
    return np.logical_or(held, whole)


def learned_decimals(numbers: npt.NDArray[np.float64], at_least: int) -> int | None:
    """Return the smallest number of digits, from `at_least` to 15, that every number has, or None.

    Args:
        numbers: Finite, shape (n,).
        at_least: Digits known to be needed.
    """
    left = numbers
    for decimals in range(at_least, 16):
        left = left[~holds_decimals(left, decimals)]
        if not len(left):
            return decimals
    return None
