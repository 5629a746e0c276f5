"""Every object is safe before the registry refers to it, and the registry's row before anybody is told."""

from itertools import pairwise
from pathlib import Path

import pytest

from rowmint.registry.engine import reading, writing
from rowmint.registry.tables import DATA, MODELS
from tests.durability.disk import Disk, nothing, read_files
from tests.durability.order import garbage, missing_after, missing_before, referred, rows
from tests.durability.recorder import (
    Committed,
    Created,
    Linked,
    MadeDirectory,
    SyncedDirectory,
    SyncedFile,
    Told,
    Unlinked,
    Wrote,
)
from tests.durability.story import CSV, SEGMENT, VERSIONS, House

OBJECT = Path("data/raw/1")
# A folder made, a file written, and named: all that a first object takes, each step in its place.
STEPS = (
    MadeDirectory(Path("data")),
    SyncedDirectory(Path()),
    MadeDirectory(Path("data/raw")),
    SyncedDirectory(Path("data")),
    Created(1, Path("data/raw/.part")),
    Wrote(1, b"12"),
    Wrote(1, b"345"),
    SyncedFile(1),
    Linked(Path("data/raw/.part"), OBJECT),
    SyncedDirectory(Path("data/raw")),
)


def snapshots(lived):
    """Where each commit is in the trace, and the state after it; the state at the start first."""
    commits = [(index, event.snapshot) for index, event in enumerate(lived.trace) if isinstance(event, Committed)]
    return [(-1, lived.start), *commits]


def test_the_trace_tells_all_that_is_in_the_stores(lived):
    really = {path: data for path, data in read_files(lived.home).items() if path.parts[0] != "registry"}
    assert Disk(lived.trace).without_loss() == really
    assert {path.parts[0] for path in really} == {"models"}


def test_an_object_is_safe_before_the_registry_refers_to_it(lived):
    kinds, missing = [], []
    for (_, before), (commit, after) in pairwise(snapshots(lived)):
        known, told = referred(before), referred(after)
        for path in sorted(told.keys() - known.keys()):
            kinds.append(told[path])
            missing += missing_before(lived.trace[:commit], path)
    assert missing == []
    segments = kinds.count("segment")
    # A version's two files are told of by one commit.
    fitted = ["checkpoint", "checkpoint", "manifest", "weights"]
    assert kinds == ["segment"] * segments + ["table"] + fitted * len(VERSIONS)
    assert segments > len(CSV) // (2 * SEGMENT)


def test_what_is_told_is_committed_before(lived):
    """Each answer holds in the registry as it was when it was given, and not only later."""
    shown = []
    snapshot = lived.start
    for event in lived.trace:
        if isinstance(event, Committed):
            snapshot = event.snapshot
        elif isinstance(event, Told):
            shown.append((event.what, event.value, state(snapshot)))
    for what, value, (committed, dataset, versions) in shown:
        if what == "appended":
            assert committed >= value
        elif what in ("finished", "ready"):
            assert dataset == {"finished": "INGESTING", "ready": "READY"}[what]
        elif what == "published":
            assert versions[-1] == value
        elif what == "deleted version":
            assert value not in versions
        elif what == "deleted dataset":
            assert dataset is None
    assert [what for what, *_ in shown if what != "appended"] == [
        "created",
        "finished",
        "ready",
        "published",
        "published",
        "deleting version",
        "deleted version",
        "deleting dataset",
        "deleted dataset",
    ]


def state(snapshot):
    """Bytes committed, the dataset's state and the versions there are, in a state of the registry."""
    found = rows(snapshot, DATA, "SELECT committed_size, state FROM datasets")
    versions = rows(snapshot, MODELS, "SELECT version FROM model_versions ORDER BY version")
    committed, dataset = found[0] if found else (0, None)
    return committed, dataset, [number for (number,) in versions]


def test_an_object_goes_only_after_the_registry_has_let_go_of_it(lived):
    snapshot, gone = lived.start, []
    for event in lived.trace:
        if isinstance(event, Committed):
            snapshot = event.snapshot
        elif isinstance(event, Unlinked) and not event.path.name.startswith("."):
            gone.append(event.path)
            assert event.path not in referred(snapshot)
            assert event.path in garbage(snapshot)
    assert len(gone) == len(set(gone)) > 0


def test_garbage_is_struck_off_only_once_it_is_gone_for_certain(lived):
    missing, struck = [], []
    for (_, before), (commit, after) in pairwise(snapshots(lived)):
        for path in sorted(garbage(before) - garbage(after)):
            struck.append(path)
            missing += missing_after(lived.trace[:commit], path)
    assert missing == []
    assert struck != []
    assert garbage(snapshots(lived)[-1][1]) == set()


def test_the_order_as_it_should_be_lacks_nothing():
    assert missing_before(STEPS, OBJECT) == []
    assert Disk(STEPS).after_power_loss(nothing) == {OBJECT: b"12345"}


def without(*steps):
    return [step for step in STEPS if step not in steps]


def moved(step, before):
    """The steps with one of them done earlier or later: just before another, or at the end."""
    rest = without(step)
    place = len(rest) if before is None else rest.index(before)
    return [*rest[:place], step, *rest[place:]]


@pytest.mark.parametrize(
    ("trace", "missing"),
    [
        (without(Wrote(1, b"12"), Wrote(1, b"345")), "data/raw/1 was not written"),
        (without(SyncedFile(1)), "data/raw/1 was not synced after it was written"),
        (moved(SyncedFile(1), Wrote(1, b"345")), "data/raw/1 was not synced after it was written"),
        (moved(SyncedFile(1), None), "data/raw/1 was named before it was synced"),
        (without(STEPS[-2]), "data/raw/1 was not given its name by a link or rename"),
        (without(STEPS[-1]), "data/raw was not synced after data/raw/1 was named"),
        (moved(STEPS[-1], STEPS[-2]), "data/raw was not synced after data/raw/1 was named"),
        (without(STEPS[1]), ". was not synced after data was made"),
        (moved(STEPS[1], STEPS[0]), ". was not synced after data was made"),
        (without(STEPS[3]), "data was not synced after data/raw was made"),
        (moved(STEPS[3], STEPS[2]), "data was not synced after data/raw was made"),
    ],
)
def test_a_step_left_out_or_out_of_place_is_told(trace, missing):
    assert missing_before(trace, OBJECT) == [missing]


@pytest.mark.parametrize(
    ("trace", "missing"),
    [
        ([Unlinked(OBJECT), SyncedDirectory(Path("data/raw"))], []),
        ([SyncedDirectory(Path("data/raw"))], ["data/raw/1 was not removed"]),
        (
            [SyncedDirectory(Path("data/raw")), Unlinked(OBJECT)],
            ["data/raw was not synced after data/raw/1 was removed"],
        ),
    ],
)
def test_a_removal_that_may_come_undone_is_told(trace, missing):
    assert missing_after(trace, OBJECT) == missing


def test_every_connection_of_the_registry_syncs_each_commit(tmp_path):
    house = House.open(tmp_path)
    with reading(house.registry.engine) as one, reading(house.registry.engine) as two:
        connections = [one, two]
        found = {
            (schema, pragma): [
                connection.exec_driver_sql(f"PRAGMA {schema}.{pragma}").scalar() for connection in connections
            ]
            for schema in (DATA, MODELS)
            for pragma in ("synchronous", "journal_mode")
        }
    with writing(house.registry.engine) as connection:
        for (schema, pragma), values in found.items():
            values.append(connection.exec_driver_sql(f"PRAGMA {schema}.{pragma}").scalar())
    house.registry.close()
    assert found == {
        (DATA, "synchronous"): [2, 2, 2],
        (DATA, "journal_mode"): ["wal", "wal", "wal"],
        (MODELS, "synchronous"): [2, 2, 2],
        (MODELS, "journal_mode"): ["wal", "wal", "wal"],
    }
