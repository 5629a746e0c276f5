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
    (tmp_path / "worker-left" / "table.parquet").write_bytes(b"rows")
    remove_abandoned(tmp_path)
    assert left(tmp_path) == []


def test_a_home_without_workers_has_nothing_to_remove(tmp_path):
    remove_abandoned(tmp_path / "scratch")
    assert left(tmp_path / "scratch") == []
