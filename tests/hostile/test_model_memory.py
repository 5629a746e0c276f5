"""A loaded model is counted with the memory that it takes, whatever it is large in."""

import pytest

from tests.hostile import large_models
from tests.hostile.confined import Confined


@pytest.fixture
def confined(tmp_path):
    # One child a case: what others have freed would blur what is measured.
    child = Confined(large_models.__name__, tmp_path / "child")
    yield child
    child.close()


@pytest.mark.parametrize("name", large_models.CASES)
def test_a_loaded_model_takes_what_is_counted(confined, name):
    assert confined.run(name).failure == ""
