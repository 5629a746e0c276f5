"""How an object store fails: the errors, and the checks that raise them."""

import os

from rowmint.errors import DataLossError, InvalidFieldError, ResourceExistsError, UnavailableError


def missing(key: str) -> DataLossError:
    """Return the error of an object that is not there."""
    return DataLossError(f"object missing: {key!r}", metadata={"key": key})


def short(key: str) -> DataLossError:
    """Return the error of an object that ends too early."""
    return DataLossError(f"object {key!r} is shorter than it should be", metadata={"key": key})


def exists(key: str) -> ResourceExistsError:
    """Return the error of a key that holds other bytes."""
    return ResourceExistsError(f"object {key!r} exists with other bytes; keys are immutable", metadata={"key": key})


def unavailable(verb: str, key: str, error: Exception) -> UnavailableError:
    """Return the error of a storage that failed; `verb` says what could not be done, such as ``read``."""
    # Neither the path nor the service's own words are passed on: they may name hosts or keys.
    kind = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
    return UnavailableError(f"object {key!r} cannot be {verb} now: {kind}", metadata={"key": key}, retry_after=1.0)


def validate_range(offset: int, length: int) -> None:
    """Check a range, both in bytes.

    Raises:
        InvalidFieldError: One of them is below 0.
    """
    if offset < 0 or length < 0:
        raise InvalidFieldError("range", f"offset {offset} and length {length} must be 0 or more")


def whole(key: str, data: bytes, length: int) -> bytes:
    """Return `data`, what was read of the object.

    Raises:
        DataLossError: It is not `length` bytes.
    """
    if len(data) != length:
        raise short(key)
    return data
