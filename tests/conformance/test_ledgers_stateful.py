"""Both ledgers beside models in memory: any calls in any order, by attempts in charge and by those that were."""

import shutil
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from rowmint.registry import Registry, migrate, open_registry
from rowmint.registry.engine import writing
from rowmint.registry.tables import metadata
from tests.conformance.job_machine import JobMachine
from tests.conformance.upload_machine import UploadMachine

pytestmark = pytest.mark.hypothesis

MACHINES = [UploadMachine, JobMachine]


def run(machine, opener, examples):
    run_state_machine_as_test(
        lambda: machine(opener),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],
            # The fixtures are the server and a folder; what an example needs is made again by the opener.
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_the_ledgers_on_sqlite_do_as_their_models(machine, tmp_path):
    template = open_registry(f"sqlite:///{tmp_path}/template")
    migrate(template.engine)
    template.close()
    number = count()

    def opener(new_uid):
        folder = tmp_path / f"{next(number)}"
        shutil.copytree(tmp_path / "template", folder)
        return Registry(open_registry(f"sqlite:///{folder}").engine, new_uid)

    run(machine, opener, 30)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_ledgers_on_postgresql_do_as_their_models(machine, migrated_postgres_url):
    def opener(new_uid):
        registry = Registry(open_registry(migrated_postgres_url).engine, new_uid)
        with writing(registry.engine) as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        return registry

    run(machine, opener, 10)
