"""Fixtures: samplers of the golden models, behind Envoy as it is deployed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.proxied.deployment import Deployment
from tests.proxied.stage import Stage


@pytest.fixture(scope="session")
def two(golden_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two samplers behind Envoy that no test may disturb."""
    found = Deployment(golden_home, tmp_path_factory.mktemp("two"))
    try:
        found.sampler()
        found.sampler()
        found.start_envoy()
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def stage(golden_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Envoy before two samplers and a trainer that answer as a test says; no test may end them."""
    found = Stage(Deployment(golden_home, tmp_path_factory.mktemp("stage")), tmp_path_factory.mktemp("behaviours"))
    try:
        found.start()
        yield found
    finally:
        found.deployment.close()


@pytest.fixture
def deployment(golden_home: Path, tmp_path: Path) -> Iterator[Deployment]:
    """A place for samplers and Envoy that a test may disturb; nothing is started."""
    found = Deployment(golden_home, tmp_path)
    yield found
    found.close()


@pytest.fixture
def fakes(deployment: Deployment) -> Callable[..., list[Path]]:
    """Starts Envoy before replicas that behave as configured; returns the files in which they note their calls."""

    def start(*behaviours: str) -> list[Path]:
        noted = [deployment.fake_sampler(behaviour) for behaviour in behaviours]
        deployment.start_envoy()
        return noted

    return start
