"""Fixtures: services over a home folder of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    found = Services(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="session")
def shared_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One trainer and two samplers for tests that harm neither: `started` holds them in that order."""
    found = Services(tmp_path_factory.mktemp("home"))
    found.trainer()
    found.sampler()
    found.sampler()
    yield found
    found.close()
