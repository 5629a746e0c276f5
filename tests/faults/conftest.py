"""Fixtures: services over a home folder of their own, and one in which the golden models are published."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowmint.client import datasets
from tests.acceptance.processes import Services
from tests.faults.raw_streams import Undisturbed


@pytest.fixture
def small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload messages of 16 KiB: a table of modest size has many."""
    monkeypatch.setattr(datasets, "MESSAGE_BYTES", 16_384)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Services that a test may disturb; their home is empty."""
    found = Services(tmp_path)
    yield found
    found.close()


@pytest.fixture
def replicas(golden_home: Path) -> Iterator[Services]:
    """Samplers of the golden models that a test may disturb."""
    found = Services(golden_home)
    yield found
    found.close()


@pytest.fixture(scope="session")
def undisturbed(golden_home: Path) -> Iterator[Undisturbed]:
    """A sampler of the golden models that no test disturbs."""
    found = Services(golden_home)
    yield Undisturbed(found.sampler().address)
    found.close()
