"""`python -m rowmint.migrations`: forth, back, and what it refuses."""

import subprocess
import sys

import pytest
from alembic.runtime.migration import MigrationContext

from rowmint.registry import open_registry
from rowmint.registry.engine import reading
from rowmint.registry.tables import DATA, MODELS


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "rowmint.migrations", *arguments], capture_output=True, text=True, check=False
    )


def revisions(url):
    registry = open_registry(url)
    with reading(registry.engine) as connection:
        found = [
            MigrationContext.configure(connection, opts={"version_table_schema": schema}).get_current_revision()
            for schema in (DATA, MODELS)
        ]
    registry.close()
    return found


def test_it_brings_a_registry_forth_and_back(tmp_path):
    url = f"sqlite:///{tmp_path}/registry"
    assert run(url).returncode == 0
    newest = revisions(url)
    assert run(url, "rowmint_data=data_0001", "rowmint_models=models_0001").returncode == 0
    assert revisions(url) == ["data_0001", "models_0001"]
    assert run(url, "rowmint_models=head").returncode == 0
    assert revisions(url) == ["data_0001", newest[1]]
    assert run(url).returncode == 0
    assert revisions(url) == newest


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["rowmint_data=data_9999"],
            1,
            "rowmint_data has no revision 'data_9999'; known: base, data_0005, data_0004, data_0003,",
        ),
        (["nothing=head"], 2, "'nothing' is not a schema; schemas are rowmint_data, rowmint_models"),
    ],
)
def test_a_refusal_is_one_line(tmp_path, arguments, code, words):
    done = run(f"sqlite:///{tmp_path}/registry", *arguments)
    assert (done.returncode, words in done.stderr.splitlines()[-1]) == (code, True)
    assert "Traceback" not in done.stderr
