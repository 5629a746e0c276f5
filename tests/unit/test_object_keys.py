"""Keys of stored objects: each names the attempt that made it."""

from rowmint.names import ModelName
from rowmint.registry import AttemptRef, Maker
from trainer_service.object_keys import attempt_of, checkpoint_key, segment_key, table_key, version_keys


def test_object_keys_name_their_maker_and_foreign_keys_none():
    uid = "0123456789abcdef" * 2
    assert attempt_of(segment_key(uid, 12, 3)) == AttemptRef(Maker.WRITER, uid, 12)
    assert attempt_of(table_key(uid, 4)) == AttemptRef(Maker.INGEST, uid, 4)
    assert attempt_of(checkpoint_key(uid, 5, 700)) == AttemptRef(Maker.JOB, uid, 5)
    assert {attempt_of(key) for key in version_keys(ModelName("p", "m"), uid, 6)} == {AttemptRef(Maker.JOB, uid, 6)}
    for key in (
        "",
        "a",
        f"datasets/{uid}",
        f"checkpoints/{uid}/1",
        f"p/m/{uid}-1/other.json",
        f"p/{uid}-1/manifest.json",
    ):
        assert attempt_of(key) is None
