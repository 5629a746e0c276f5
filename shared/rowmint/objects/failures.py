"""Errors of object stores, and the checks that raise them."""

import os

from rowmint.errors import DataLossError, InvalidFieldError, ResourceExistsError, UnavailableError


def missing(key: str) -> DataLossError:
    """Return the error of a missing object."""
    return DataLossError(f"object {key!r} is missing", metadata={"key": key})


def short(key: str) -> DataLossError:
    """Return the error of a truncated object."""
    return DataLossError(f"object {key!r} is shorter than expected", metadata={"key": key})


def exists(key: str) -> ResourceExistsError:
    """Return the error of a key that exists with different bytes."""
    return ResourceExistsError(f"object {key!r} exists with different bytes; keys are immutable", metadata={"key": key})


def unavailable(verb: str, key: str, error: Exception) -> UnavailableError:
    """Return the error of a failed operation; `verb` is its participle, such as ``read``."""
    # Neither the path nor the service's message is included: they may contain host names or credentials.
    kind = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
    return UnavailableError(f"object {key!r} cannot be {verb} now: {kind}", metadata={"key": key}, retry_after=1.0)


def validate_range(offset: int, length: int) -> None:
    """Check a range, both in bytes.

    Raises:
        InvalidFieldError: One of them is negative.
    """
    if offset < 0 or length < 0:
        raise InvalidFieldError("range", f"offset {offset} and length {length} must be 0 or more")


def require_length(key: str, data: bytes, length: int) -> bytes:
    """Return `data`, which was read from the object.

    Raises:
        DataLossError: Its length is not `length`.
    """
    if len(data) != length:
        raise short(key)
    return data
