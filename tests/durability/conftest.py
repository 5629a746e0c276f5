"""Fixtures: the scenario, run once."""

import pytest

from tests.durability.scenario import Outcome, run_scenario


@pytest.fixture(scope="session")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_scenario(tmp_path_factory.mktemp("scenario"))
