"""Every object is safe before the registry refers to it, and the registry's row before any answer is sent."""

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
    Reported,
    SyncedDirectory,
    SyncedFile,
    Unlinked,
    Wrote,
)
from tests.durability.scenario import CSV, SEGMENT, VERSIONS, Storage

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


def snapshots(outcome):
    """Where each commit is in the trace, and the state after it; the state at the start first."""
    commits = [(index, event.snapshot) for index, event in enumerate(outcome.trace) if isinstance(event, Committed)]
    return [(-1, outcome.start), *commits]


def test_the_trace_accounts_for_all_that_is_in_the_stores(outcome):
    really = {path: data for path, data in read_files(outcome.home).items() if path.parts[0] != "registry"}
    assert Disk(outcome.trace).without_loss() == really
    assert {path.parts[0] for path in really if not is_mark(path)} == {"models"}


def test_an_object_is_safe_before_the_registry_refers_to_it(outcome):
    kinds, missing = [], []
    for (_, before), (commit, after) in pairwise(snapshots(outcome)):
        known, reported = referred(before), referred(after)
        for path in sorted(reported.keys() - known.keys()):
            kinds.append(reported[path])
            missing += missing_before(outcome.trace[:commit], path)
    assert missing == []
    segments = kinds.count("segment")
    # A version's two files are recorded by one commit.
    fitted = ["checkpoint", "checkpoint", "manifest", "weights"]
    assert kinds == ["segment"] * segments + ["table"] + fitted * len(VERSIONS)
    assert segments > len(CSV) // (2 * SEGMENT)


def test_every_answer_is_committed_before_it_is_sent(outcome):
    """Each answer holds in the registry as it was when it was given, and not only later."""
    shown = []
    snapshot = outcome.start
    for event in outcome.trace:
        if isinstance(event, Committed):
            snapshot = event.snapshot
        elif isinstance(event, Reported):
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


def is_mark(path: Path) -> bool:
    ours = path.parts[1:3] in {("_rowmint", "data"), ("_rowmint", "models")}
    return ours and not path.name.startswith(".")


def test_a_mark_is_deleted_only_after_a_newer_one_is_safe(outcome):
    newest, gone = {}, []
    for index, event in enumerate(outcome.trace):
        if isinstance(event, Linked) and is_mark(event.path):
            newest[event.path.parent] = event.path
        elif isinstance(event, Unlinked) and is_mark(event.path):
            gone.append(event.path)
            assert event.path < newest[event.path.parent]
            assert missing_before(outcome.trace[:index], newest[event.path.parent]) == []
    assert gone != []


def test_a_store_is_marked_only_with_what_the_registry_has_committed(outcome):
    snapshot = outcome.start
    for event in outcome.trace:
        if isinstance(event, Committed):
            snapshot = event.snapshot
        elif isinstance(event, Linked) and is_mark(event.path):
            schema = {"data": DATA, "models": MODELS}[event.path.parts[2]]
            ((uid, generation),) = rows(snapshot, schema, "SELECT registry_uid, generation FROM registry_identity")
            assert event.path.parts[3:] == (uid, f"{generation:012d}")


def test_an_object_is_deleted_only_after_the_registry_no_longer_refers_to_it(outcome):
    snapshot, gone = outcome.start, []
    for event in outcome.trace:
        if isinstance(event, Committed):
            snapshot = event.snapshot
        elif isinstance(event, Unlinked) and not event.path.name.startswith("."):
            if is_mark(event.path):
                continue
            gone.append(event.path)
            assert event.path not in referred(snapshot)
            assert event.path in garbage(snapshot)
    assert len(gone) == len(set(gone)) > 0


def test_garbage_leaves_the_registry_only_after_a_durable_deletion(outcome):
    missing, struck = [], []
    for (_, before), (commit, after) in pairwise(snapshots(outcome)):
        for path in sorted(garbage(before) - garbage(after)):
            struck.append(path)
            missing += missing_after(outcome.trace[:commit], path)
    assert missing == []
    assert struck != []
    assert garbage(snapshots(outcome)[-1][1]) == set()


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
def test_a_missing_or_misplaced_step_is_reported(trace, missing):
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
def test_a_removal_that_a_crash_may_undo_is_reported(trace, missing):
    assert missing_after(trace, OBJECT) == missing


def test_every_connection_of_the_registry_syncs_each_commit(tmp_path):
    storage = Storage.open(tmp_path)
    with reading(storage.registry.engine) as one, reading(storage.registry.engine) as two:
        connections = [one, two]
        found = {
            (schema, pragma): [
                connection.exec_driver_sql(f"PRAGMA {schema}.{pragma}").scalar() for connection in connections
            ]
            for schema in (DATA, MODELS)
            for pragma in ("synchronous", "journal_mode")
        }
    with writing(storage.registry.engine) as connection:
        for (schema, pragma), values in found.items():
            values.append(connection.exec_driver_sql(f"PRAGMA {schema}.{pragma}").scalar())
    storage.registry.close()
    assert found == {
        (DATA, "synchronous"): [2, 2, 2],
        (DATA, "journal_mode"): ["wal", "wal", "wal"],
        (MODELS, "synchronous"): [2, 2, 2],
        (MODELS, "journal_mode"): ["wal", "wal", "wal"],
    }
