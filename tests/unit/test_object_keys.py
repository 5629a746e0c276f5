"""Keys of stored objects: each names the attempt that made it."""

from datetime import UTC, datetime

from rowmint.names import ModelName
from rowmint.registry import AttemptRef, Maker
from trainer_service.object_keys import (
    aside_key,
    attempt_of,
    checkpoint_key,
    kept_aside,
    segment_key,
    table_key,
    version_keys,
)

SINCE = datetime(2026, 11, 30, 17, 35, 9, 700_000, UTC)


def test_object_keys_name_their_maker_and_foreign_keys_none():
    uid = "0123456789abcdef" * 2
    assert attempt_of(segment_key(uid, 12, 3)) == AttemptRef(Maker.WRITER, uid, 12)
    assert attempt_of(table_key(uid, 4)) == AttemptRef(Maker.INGEST, uid, 4)
    assert attempt_of(checkpoint_key(uid, 5, 700)) == AttemptRef(Maker.JOB, uid, 5)
    of_version = {attempt_of(key) for key in version_keys(ModelName("p", "m"), uid, 6)}
    assert of_version == {AttemptRef(Maker.VERSION, uid, 6)}
    for key in (
        "",
        "a",
        f"datasets/{uid}",
        f"checkpoints/{uid}/1",
        f"p/m/{uid}-1/other.json",
        f"p/{uid}-1/manifest.json",
        f"_rowmint/data/{uid}/000000000001",
        aside_key(table_key(uid, 4), SINCE),
    ):
        assert attempt_of(key) is None


def test_a_key_kept_aside_says_which_it_was_and_since_when():
    key = "datasets/x/table-1.parquet"
    aside = aside_key(key, SINCE)
    assert aside == "_rowmint/aside/20261130T173509Z/datasets/x/table-1.parquet"
    assert kept_aside(aside) == (key, SINCE.replace(microsecond=0))
    for other in (key, "_rowmint/aside/notes.txt", "_rowmint/aside/20261399T173509Z/k"):
        assert kept_aside(other) is None
