"""A completion takes the memory that it is admitted with, and keeps none of it."""

import pytest

from tests.hostile import completions
from tests.hostile.confined import Confined


@pytest.fixture(scope="module")
def confined(tmp_path_factory):
    child = Confined(completions.__name__, tmp_path_factory.mktemp("completions") / "child")
    yield child
    child.close()


@pytest.mark.parametrize("kernel", completions.CASES)
def test_the_most_candidates_take_what_is_counted(confined, kernel):
    report = confined.run(kernel)
    assert report.failure == ""
    assert report.growth < 120 << 20
