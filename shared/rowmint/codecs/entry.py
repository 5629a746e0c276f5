"""Reading what a codec wrote of itself: fields of its manifest entry and its arrays, each of exactly its own type."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_WHOLE = re.compile(r"-?[0-9]{1,20}")


def flag(body: Mapping[str, Any], name: str) -> bool:
    """Return a boolean; `ValueError` where it is not one, `KeyError` where it is missing."""
    value = body[name]
    if not isinstance(value, bool):
        raise ValueError(f"{name} is not a boolean")
    return value


def whole(body: Mapping[str, Any], name: str) -> int:
    """Return an integer; `ValueError` where it is not one, `KeyError` where it is missing."""
    value = body[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is not an integer")
    return value


def long_whole(body: Mapping[str, Any], name: str) -> int:
    """Return an integer written as text, as it may pass 2**53; `ValueError` where it is not one."""
    value = body[name]
    if not isinstance(value, str) or _WHOLE.fullmatch(value) is None:
        raise ValueError(f"{name} is not an integer in digits")
    return int(value)


def text(body: Mapping[str, Any], name: str) -> str:
    """Return a text; `ValueError` where it is not one, `KeyError` where it is missing."""
    value = body[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return value


def array(arrays: Mapping[str, NDArray[np.generic]], name: str, *dtypes: DTypeLike) -> NDArray[Any]:
    """Return an array of one dimension and one of some types.

    Raises:
        KeyError: It is missing.
        ValueError: It has more dimensions or another type.
    """
    found = arrays[name]
    allowed = [np.dtype(dtype) for dtype in dtypes]
    if found.dtype not in allowed or found.ndim != 1:
        types = " or ".join(map(str, allowed))
        raise ValueError(
            f"array {name!r} has type {found.dtype} and {found.ndim} dimensions; it must have {types} and 1"
        )
    return found.copy()  # a copy lies as NumPy likes it, wherever in a file it came from
