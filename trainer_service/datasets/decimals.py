"""Number of digits after the point of doubles."""

import numpy as np
import numpy.typing as npt


def holds_decimals(numbers: npt.NDArray[np.float64], decimals: int) -> npt.NDArray[np.bool_]:
    """Return the mask of numbers that are the doubles nearest to a decimal number with that many fraction digits.

    With k = rint(x 10^d) below 2^53 and d at most 22, both k and 10^d are exact and k / 10^d is correctly rounded: the
    double that parsing the decimal text gives. Larger numbers count if they are integers.

    Args:
        numbers: Finite, shape (n,).
        decimals: d, 0 to 15.
    """
    scale = 10.0**decimals
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(numbers * scale)
        exact: npt.NDArray[np.bool_] = (scaled / scale == numbers) & (np.abs(scaled) < 2**53)
    integers: npt.NDArray[np.bool_] = np.rint(numbers) == numbers
    return np.logical_or(exact, integers)


def learned_decimals(numbers: npt.NDArray[np.float64], at_least: int) -> int | None:
    """Return the smallest number of digits, from `at_least` to 15, that represents every number, or None.

    Args:
        numbers: Finite, shape (n,).
        at_least: Lower bound of the result.
    """
    left = numbers
    for decimals in range(at_least, 16):
        left = left[~holds_decimals(left, decimals)]
        if not len(left):
            return decimals
    return None
