"""Fixtures: the story, lived through once."""

import pytest

from tests.durability.story import Lived, live


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return live(tmp_path_factory.mktemp("story"))
