"""Power is lost at every point of a story: whatever the disk then holds, nothing that was told is lost."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowmint.registry.tables import DATA, MODELS
from tests.durability.disk import Disk, chance, everything, nothing, write_files
from tests.durability.recorder import DATABASES, Committed, Told
from tests.durability.story import House, Lived, losses

LUCK = {"nothing": lambda _: nothing, "everything": lambda _: everything, "chance": chance}


class Ruin:
    """One state in which a machine may start again.

    Attributes:
        point: Events that had happened.
        files: Files of the stores.
        databases: The registry's files.
        told: What had been told.
    """

    def __init__(self, point: int, files: dict[Path, bytes], databases: dict[str, Path], told: list[Told]) -> None:
        self.point = point
        self.files = files
        self.databases = databases
        self.told = told

    def enter(self, folder: Path) -> House:
        """Lay this state out in a new folder and open it, as a trainer that starts does."""
        home = folder / f"{self.point}"
        shutil.rmtree(home, ignore_errors=True)
        (home / "registry").mkdir(parents=True)
        for schema, database in self.databases.items():
            shutil.copyfile(database, home / "registry" / DATABASES[schema])
        write_files(self.files, home)
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
