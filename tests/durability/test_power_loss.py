"""Power is lost at every point of a story: whatever the disk then holds, nothing that was told is lost."""

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
from tests.durability.recorder import DATABASES, Committed, Told
from tests.durability.story import House, Lived, go_on, left_over, live, losses

LUCK = {"nothing": lambda _: nothing, "everything": lambda _: everything, "chance": chance}


class Ruin:
    """One state in which a machine may start again.

    Attributes:
        point: Events that had happened.
        stored: Files of the stores.
        databases: The registry's files.
        told: What had been told.
    """

    def __init__(self, point: int, stored: dict[Path, bytes], databases: dict[str, Path], told: list[Told]) -> None:
        self.point = point
        self.stored = stored
        self.databases = databases
        self.told = told

    def enter(self, folder: Path) -> House:
        """Lay this state out in a new folder and open it, as a trainer that starts does."""
        home = folder / f"{self.point}"
        shutil.rmtree(home, ignore_errors=True)
        (home / "registry").mkdir(parents=True)
        for schema, database in self.databases.items():
            shutil.copyfile(database, home / "registry" / DATABASES[schema])
        write_files(self.stored, home)
        return House.open(home)


def ruins(lived: Lived, luck: str) -> Iterator[Ruin]:
    """Yield every state that differs from the one before it."""
    disk = Disk()
    told: list[Told] = []
    last = lived.start
    seen = None
    for point, event in enumerate([None, *lived.trace]):
        if isinstance(event, Told):
            told.append(event)
        elif isinstance(event, Committed):
            # Of the registry's two files the models' is committed first: power may be lost in between.
            torn = {MODELS: event.snapshot / DATABASES[MODELS], DATA: last / DATABASES[DATA]}
            yield Ruin(point, disk.after_power_loss(LUCK[luck](point)), torn, list(told))
            last = event.snapshot
        elif event is not None:
            disk.apply(event)
        files_left = disk.after_power_loss(LUCK[luck](point))
        if (files_left, last, len(told)) != seen:
            yield Ruin(point, files_left, {schema: last / name for schema, name in DATABASES.items()}, list(told))
        seen = (files_left, last, len(told))


@pytest.mark.parametrize("luck", LUCK)
def test_power_loss_at_any_point_loses_nothing_that_was_told(lived, tmp_path, luck):
    found, count = {}, 0
    for ruin in ruins(lived, luck):
        house = ruin.enter(tmp_path)
        lost = losses(house, ruin.told)
        house.registry.close()
        if lost:
            found[ruin.point] = lost
        count += 1
    assert found == {}
    assert count > len(lived.trace) // 3


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
    lived = live(tmp_path)
    ruined = tmp_path / "ruins"
    ruined.mkdir()
    found: set[str] = set()
    for ruin in ruins(lived, "nothing"):
        house = ruin.enter(ruined)
        found.update(losses(house, ruin.told))
        house.registry.close()
    assert any("datasets/" in lost for lost in found)
    assert any("weights" in lost or "manifest" in lost for lost in found)


def test_whoever_starts_again_brings_it_to_its_end(lived, tmp_path):
    found, count = {}, 0
    for ruin in itertools.islice(ruins(lived, "chance"), 0, None, 4):
        house = ruin.enter(tmp_path)
        scratch = tmp_path / f"scratch-{ruin.point}"
        scratch.mkdir()
        go_on(house, scratch)
        lost = [*losses(house, ruin.told), *(f"{path} is left over" for path in left_over(house))]
        house.registry.close()
        if lost:
            found[ruin.point] = lost
        count += 1
    assert found == {}
    assert count > 15
