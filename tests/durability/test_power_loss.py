"""Power is lost at every point of a scenario: whatever the disk then holds, nothing acknowledged is lost."""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rowmint.objects import files, local
from rowmint.registry.tables import DATA, MODELS
from tests.durability.disk import Disk, chance, everything, nothing, write_files
from tests.durability.recorder import DATABASES, Committed, Reported
from tests.durability.scenario import Outcome, Storage, go_on, left_over, losses, run_scenario

LUCK = {"nothing": lambda _: nothing, "everything": lambda _: everything, "chance": chance}


class Ruin:
    """One state in which a machine may start again.

    Attributes:
        point: Events that had happened.
        stored: Files of the stores.
        databases: The registry's files.
        reported: What had been acknowledged.
    """

    def __init__(
        self, point: int, stored: dict[Path, bytes], databases: dict[str, Path], reported: list[Reported]
    ) -> None:
        self.point = point
        self.stored = stored
        self.databases = databases
        self.reported = reported

    def enter(self, folder: Path) -> Storage:
        """Lay this state out in a new folder and open it, as a trainer that starts does."""
        home = folder / f"{self.point}"
        shutil.rmtree(home, ignore_errors=True)
        (home / "registry").mkdir(parents=True)
        for schema, database in self.databases.items():
            shutil.copyfile(database, home / "registry" / DATABASES[schema])
        write_files(self.stored, home)
        storage = Storage.open(home)
        storage.claim()  # however power was lost, stores and registry belong together
        return storage


def ruins(outcome: Outcome, luck: str) -> Iterator[Ruin]:
    """Yield every state that differs from the one before it."""
    disk = Disk()
    reported: list[Reported] = []
    last = outcome.start
    seen = None
    for point, event in enumerate([None, *outcome.trace]):
        if isinstance(event, Reported):
            reported.append(event)
        elif isinstance(event, Committed):
            # Of the registry's two files the models' is committed first: power may be lost in between.
            torn = {MODELS: event.snapshot / DATABASES[MODELS], DATA: last / DATABASES[DATA]}
            yield Ruin(point, disk.after_power_loss(LUCK[luck](point)), torn, list(reported))
            last = event.snapshot
        elif event is not None:
            disk.apply(event)
        files_left = disk.after_power_loss(LUCK[luck](point))
        if (files_left, last, len(reported)) != seen:
            yield Ruin(point, files_left, {schema: last / name for schema, name in DATABASES.items()}, list(reported))
        seen = (files_left, last, len(reported))


@pytest.mark.parametrize("luck", LUCK)
def test_power_loss_at_any_point_loses_nothing_acknowledged(outcome, tmp_path, luck):
    found, count = {}, 0
    for ruin in ruins(outcome, luck):
        storage = ruin.enter(tmp_path)
        lost = losses(storage, ruin.reported)
        storage.registry.close()
        if lost:
            found[ruin.point] = lost
        count += 1
    assert found == {}
    assert count > len(outcome.trace) // 3


class _Unsynced:
    """The module `os`, whose `fsync` does nothing."""

    def __getattr__(self, name: str) -> Any:
        return (lambda _: None) if name == "fsync" else getattr(os, name)


@pytest.mark.parametrize("left_out", ["of a file", "of a directory"])
def test_a_sync_that_is_left_out_is_found(tmp_path, monkeypatch, left_out):
    if left_out == "of a file":
        monkeypatch.setattr(files, "os", _Unsynced())
    else:
        for module in (files, local):
            monkeypatch.setattr(module, "sync_directory", lambda _: None)
    outcome = run_scenario(tmp_path)
    ruined = tmp_path / "ruins"
    ruined.mkdir()
    found: set[str] = set()
    for ruin in ruins(outcome, "nothing"):
        storage = ruin.enter(ruined)
        found.update(losses(storage, ruin.reported))
        storage.registry.close()
    assert any("datasets/" in lost for lost in found)
    assert any("weights" in lost or "manifest" in lost for lost in found)


def test_a_restart_completes_what_was_interrupted(outcome, tmp_path):
    found, count = {}, 0
    for ruin in itertools.islice(ruins(outcome, "chance"), 0, None, 4):
        storage = ruin.enter(tmp_path)
        scratch = tmp_path / f"scratch-{ruin.point}"
        scratch.mkdir()
        go_on(storage, scratch)
        lost = [*losses(storage, ruin.reported), *(f"{path} is left over" for path in left_over(storage))]
        storage.registry.close()
        if lost:
            found[ruin.point] = lost
        count += 1
    assert found == {}
    assert count > 15
