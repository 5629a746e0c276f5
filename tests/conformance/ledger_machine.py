"""What the machines of both ledgers share: a fresh registry, uids that can be foretold, the list of garbage."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import update

from rowmint.errors import RowmintError
from rowmint.registry import Registry
from rowmint.registry.engine import writing
from rowmint.registry.tables import jobs
from tests.conformance.job_rows_model import ModelJob

Opener = Callable[[Callable[[], str]], Registry]
"""Gives an empty, migrated registry that takes its uids from a function."""


class LedgerMachine(RuleBasedStateMachine):
    """A registry beside the model of it.

    Args:
        opener: Gives the registry.
    """

    def __init__(self, opener: Opener) -> None:
        super().__init__()
        self.last_uid = ""
        self.registry = opener(self.new_uid)
        self.jobs: dict[str, ModelJob] = {}
        self.data_garbage: set[str] = set()
        self.serial = count(1)

    def new_uid(self) -> str:
        # Digits that count stand in front: names are made of the first of them.
        self.last_uid = f"{next(self.serial):012x}".ljust(32, "0")
        return self.last_uid

    def teardown(self) -> None:
        for job in self.jobs.values():
            job.check(self.registry.jobs.get_by_uid(job.uid))
            job.check_events(self.registry)
        self.registry.close()

    def refused(self, error: type[RowmintError], call: Callable[[], Any]) -> None:
        """Check that a call is refused; that nothing has changed, the invariants check."""
        with pytest.raises(error) as caught:
            call()
        assert caught.type is error

    def new_key(self, kind: str) -> str:
        """Return an object's key, never the same twice."""
        return f"{kind}/{next(self.serial)}"

    def let_expire(self, job: ModelJob) -> None:
        """Let a lease run out, as time would."""
        with writing(self.registry.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.uid == job.uid).values(lease_until=1))
        job.expired = True

    def check_data_garbage(self) -> None:
        found = self.registry.datasets.garbage()
        assert sorted(found) == sorted(self.data_garbage)


def pick(options: Any, number: int) -> Any:
    """Return one of some things, any number being good for a choice."""
    found = list(options)
    return found[number % len(found)]
