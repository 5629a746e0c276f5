"""Seeds of statistical tests: the first in the tier of their folder, the others in `make test-full` only."""

from collections.abc import Sequence
from typing import Any

import pytest


def seeded(first: Any, *others: Any) -> Sequence[Any]:
    """Return parameters for a test or a fixture: the first one as it stands, and others that are marked `full`.

    A parameter is one seed, or all seeds of one run of a test; its bounds are the same for each.
    """
    marked = [
        pytest.param(other, marks=pytest.mark.full, id=f"seed-{number}") for number, other in enumerate(others, 2)
    ]
    return [pytest.param(first, id="seed-1"), *marked]
