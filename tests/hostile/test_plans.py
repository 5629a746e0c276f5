"""A plan of many parts of a large request takes memory for one, not for each."""

import pytest

from tests.hostile import plan_requests
from tests.hostile.confined import Confined


@pytest.fixture(scope="module")
def confined(tmp_path_factory):
    child = Confined(plan_requests.__name__, tmp_path_factory.mktemp("plans") / "child")
    yield child
    child.close()


@pytest.mark.parametrize("name", plan_requests.CASES)
def test_a_plan_of_many_parts_takes_little_memory(confined, name):
    report = confined.run(name)
    assert report.failure == ""
    assert report.growth < plan_requests.GROWN[float(name.split()[0])]
