"""A worker's folder of temporary files: gone with its worker, however that ends."""

import os

import pytest

from trainer_service.jobs.scratch import ScratchFolder, remove_abandoned


def left(root) -> list[str]:
    """Return what is there but the root's lock."""
    return sorted(path.name for path in root.iterdir() if path.name != ".lock")


def test_a_folder_is_gone_afterwards(tmp_path):
    with ScratchFolder(tmp_path / "made" / "where it is missing") as folder:
        (folder.path / "table.parquet").write_bytes(b"rows")
        assert left(folder.path) == ["table.parquet"]
    assert left(folder.path.parent) == []


@pytest.mark.parametrize("finder", ["trainer", "worker"])
def test_files_of_a_killed_worker_are_removed_and_those_of_a_running_one_kept(tmp_path, finder):
    with ScratchFolder(tmp_path) as running:
        (running.path / "table.parquet").write_bytes(b"rows")
        ended = ScratchFolder(tmp_path)
        (ended.path / "table.parquet").write_bytes(b"rows")
        os.close(ended._lock)  # as its end would
        if finder == "trainer":
            remove_abandoned(tmp_path)
        else:
            ScratchFolder(tmp_path).close()
        assert left(tmp_path) == [running.path.name]
        assert (running.path / "table.parquet").read_bytes() == b"rows"
    assert left(tmp_path) == []


def test_what_a_worker_killed_before_it_had_its_lock_left_is_removed(tmp_path):
    (tmp_path / "worker-left").mkdir()
    remove_abandoned(tmp_path)
    assert left(tmp_path) == []


def test_what_no_worker_has_made_stays(tmp_path):
    for name in ("notes", "worker-notes"):  # without a lock: a folder of someone's own
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious.txt").write_bytes(b"x")
    (tmp_path / "other" / ".lock").parent.mkdir()
    (tmp_path / "other" / ".lock").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".lock").touch()
    (tmp_path / "worker-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".lock").write_bytes(b"not ours")
    before = sorted(tmp_path.rglob("*"))
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / ".lock").read_bytes() == b"not ours"


def test_a_home_without_workers_has_nothing_to_remove(tmp_path):
    remove_abandoned(tmp_path / "scratch")
    assert left(tmp_path / "scratch") == []
