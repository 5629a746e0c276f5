"""A model with modified files is refused with `DataLossError`, or all that it makes is sound."""

import pytest

from tests.hostile import models
from tests.hostile.confined import MEMORY, Confined


@pytest.fixture(scope="module")
def confined(tmp_path_factory):
    child = Confined(models.__name__, tmp_path_factory.mktemp("models") / "child")
    yield child
    child.close()


@pytest.mark.parametrize("name", models.CASES)
def test_a_hostile_model_is_refused_or_sound(confined, name):
    report = confined.run(name)
    assert report.failure == ""
    assert report.growth < MEMORY
