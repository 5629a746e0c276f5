"""Waiting for a condition, with a bound. Tests wait so or for an event, and never for time to pass."""

import time
from collections.abc import Callable

import pytest

PATIENCE = 120.0
"""Seconds after which a condition is taken for one that never comes true; no test says how soon it does."""
_PAUSE_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition, with a bound.

    Args:
        condition: Called again and again, on the caller's thread.
        what: What is waited for, for the failure.
        seconds: The bound.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen within {seconds:g} s")
        time.sleep(_PAUSE_SECONDS)
