"""Which tier a test belongs to: it follows from its folder, from the services it needs, and else from a marker.

`make test` runs tier `test`, `make test-system` tier `system`, `make test-full` tier `full`; see `pytest --help`.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from pathlib import PurePath


class Tier(StrEnum):
    """A set of tests that is run together, each in exactly one of them."""

    TEST = "test"
    """No service as a process of its own, but for one smoke module."""
    SYSTEM = "system"
    """Real processes, PostgreSQL, S3, Envoy, clients in other languages."""
    FULL = "full"
    """What takes hours: run manually where a change touches its subject."""
    BENCHMARK = "benchmark"
    """Measures, and prints a table."""


FOLDERS: Mapping[str, Tier] = {
    "alerts": Tier.TEST,
    "architecture": Tier.TEST,
    "conformance": Tier.TEST,
    "durability": Tier.TEST,
    "golden": Tier.TEST,
    "hostile": Tier.TEST,
    "integration": Tier.TEST,
    "smoke": Tier.TEST,
    "unit": Tier.TEST,
    "acceptance": Tier.SYSTEM,
    "clients": Tier.SYSTEM,
    "crash": Tier.SYSTEM,
    "faults": Tier.SYSTEM,
    "observability": Tier.SYSTEM,
    "proxied": Tier.SYSTEM,
    "benchmarks": Tier.BENCHMARK,
}
"""The tier of each folder of tests."""
SERVERS = frozenset({"postgres", "swift"})
"""Fixtures that start a server."""
SERVER_PARAMETERS = frozenset({"postgresql"})
"""Parameters of a fixture that needs such a server only then."""
DEFAULT = (Tier.TEST, Tier.SYSTEM)
"""What `pytest` runs where no tier is named."""


def tier_of(path: PurePath, markers: Iterable[str], fixtures: Collection[str], parameters: Iterable[object]) -> Tier:
    """Return a test's tier.

    Args:
        path: Its file, relative to the folder `tests`.
        markers: Names of its markers.
        fixtures: Names of all fixtures that it needs.
        parameters: Values that it and its fixtures are parametrised with.

    Raises:
        KeyError: The folder has no tier.
    """
    folder = FOLDERS[path.parts[0]]
    names = set(markers)
    if Tier.FULL in names:
        return Tier.FULL
    if {Tier.SYSTEM, "debian"} & names:
        return Tier.SYSTEM
    needs_server = not SERVERS.isdisjoint(fixtures) or any(
        value in SERVER_PARAMETERS for value in parameters if isinstance(value, str)
    )
    return Tier.SYSTEM if needs_server and folder is Tier.TEST else folder
