"""Hostile uploads: each ends in an error that names its place, or in the right table, in little memory."""

import pytest

from tests.hostile import arrow_uploads, csv_uploads, foreign_uploads, json_uploads, parquet_uploads
from tests.hostile.confined import MEMORY, Confined

MODULES = (csv_uploads, json_uploads, parquet_uploads, arrow_uploads, foreign_uploads)


@pytest.fixture(scope="module")
def confined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    children = {module.__name__: Confined(module.__name__, folder / module.__name__) for module in MODULES}
    yield children
    for child in children.values():
        child.close()


@pytest.mark.parametrize(
    ("module", "name"),
    [(module.__name__, name) for module in MODULES for name in module.CASES],
    ids=lambda text: text.removeprefix("tests.hostile."),
)
def test_a_hostile_upload_ends_in_a_typed_error_or_the_right_table(confined, module, name):
    report = confined[module].run(name)
    assert report.failure == ""
    assert report.growth < MEMORY
