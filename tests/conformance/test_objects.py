"""Every object store keeps the same promises: a local directory, and an S3 service."""

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore.store
import pytest

from rowmint.errors import DataLossError, InvalidFieldError, ResourceExistsError, UnavailableError
from rowmint.objects import LocalDirectoryStore, MemoryStore, ObjectStore, RemoteStore, files, local, open_store
from rowmint.objects.files import create, write_all
from tests.swift_server import LISTED_AT_ONCE


def found(store: ObjectStore) -> list[str]:
    return list(store.list(""))


class ObjectStoreSuite:
    """What every object store keeps to; a subclass gives the fixture `store`, empty."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        raise NotImplementedError

    def test_put_and_get(self, store):
        store.put("a/b/c.bin", b"\x00\x01")
        assert store.get("a/b/c.bin") == b"\x00\x01"

    def test_an_object_may_be_empty(self, store):
        store.put("empty", b"")
        assert (store.get("empty"), store.get_range("empty", 0, 0)) == (b"", b"")

    def test_putting_the_same_bytes_again_is_harmless(self, store, tmp_path):
        (tmp_path / "same").write_bytes(b"one")
        store.put("k", b"one")
        store.put("k", b"one")
        store.put_file("k", tmp_path / "same")
        assert store.get("k") == b"one"

    @pytest.mark.parametrize("other", [b"two", b"longer than one", b""])
    def test_other_bytes_under_a_key_are_refused(self, store, tmp_path, other):
        (tmp_path / "other").write_bytes(other)
        store.put("k", b"one")
        with pytest.raises(ResourceExistsError, match="'k'"):
            store.put("k", other)
        with pytest.raises(ResourceExistsError, match="'k'"):
            store.put_file("k", tmp_path / "other")
        assert store.get("k") == b"one"

    def test_files_go_in_and_out(self, store, tmp_path):
        data = bytes(range(256)) * 12_000
        (tmp_path / "in").write_bytes(data)
        (tmp_path / "out").write_bytes(b"old")
        store.put_file("big", tmp_path / "in")
        store.fetch("big", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data
        assert store.get("big") == data
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_a_file_of_several_parts_is_stored_whole(self, store, tmp_path):
        # Above 10 MiB a remote store takes it in parts, of which the last is short.
        data = random.Random(3).randbytes(12 * 2**20 + 321)
        (tmp_path / "in").write_bytes(data)
        (tmp_path / "other").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        store.put_file("parts", tmp_path / "in")
        store.put_file("parts", tmp_path / "in")
        with pytest.raises(ResourceExistsError, match="'parts'"):
            store.put_file("parts", tmp_path / "other")
        store.fetch("parts", tmp_path / "out")
        assert list(store.list("")) == ["parts"]
        assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(data).digest()
        assert store.get_range("parts", 10 * 2**20 - 5, 10) == data[10 * 2**20 - 5 : 10 * 2**20 + 5]
        store.delete("parts")
        assert list(store.list("")) == []

    def test_ranges_are_exact(self, store):
        store.put("k", b"0123456789")
        assert store.get_range("k", 3, 4) == b"3456"
        assert store.get_range("k", 10, 0) == b""
        for offset, length in ((8, 3), (11, 1)):
            with pytest.raises(DataLossError, match="shorter"):
                store.get_range("k", offset, length)
        with pytest.raises(InvalidFieldError):
            store.get_range("k", -1, 2)

    def test_a_missing_object_is_lost_data(self, store, tmp_path):
        store.put("dir/there", b"x")
        for call in (
            lambda: store.get("dir/none"),
            lambda: store.get("dir"),
            lambda: store.get_range("none", 0, 1),
            lambda: store.fetch("none", tmp_path / "out"),
        ):
            with pytest.raises(DataLossError, match="is missing"):
                call()
        assert not (tmp_path / "out").exists()

    def test_delete(self, store):
        store.put("k", b"one")
        store.delete("k")
        store.delete("k")
        store.delete("never/there")
        with pytest.raises(DataLossError):
            store.get("k")

    def test_list_yields_what_begins_with_the_prefix(self, store):
        for key in ("a/1", "a/12", "a/2/x", "b", "a-b"):
            store.put(key, b"")
        assert list(store.list("")) == ["a-b", "a/1", "a/12", "a/2/x", "b"]
        assert list(store.list("a/1")) == ["a/1", "a/12"]
        assert list(store.list("a/")) == ["a/1", "a/12", "a/2/x"]
        assert list(store.list("c/")) == []

    def test_entries_say_size_and_age(self, store):
        before = datetime.now(UTC) - timedelta(seconds=2)  # a store may count whole seconds
        for key, data in (("a/1", b"one"), ("a/2", b""), ("b", b"12345")):
            store.put(key, data)
        found = list(store.entries("a"))
        assert [(entry.key, entry.size) for entry in found] == [("a/1", 3), ("a/2", 0)]
        assert all(before <= entry.modified <= datetime.now(UTC) + timedelta(seconds=2) for entry in found)
        assert [entry.key for entry in store.entries("")] == ["a/1", "a/2", "b"]

    def test_a_moved_object_has_another_key(self, store):
        store.put("a/k", b"one")
        store.move("a/k", "b/c/k")
        assert (list(store.list("")), store.get("b/c/k")) == (["b/c/k"], b"one")
        store.move("a/k", "b/c/k")  # again, as its answer was lost
        assert store.get("b/c/k") == b"one"

    def test_an_object_too_large_to_be_copied_at_once_is_moved(self, store, monkeypatch):
        monkeypatch.setattr("rowmint.objects.remote._COPIED_AT_ONCE", 1000)
        data = random.Random(5).randbytes(11 * 2**20 + 3)
        store.put("large", data)
        store.move("large", "moved/large")
        assert (found(store), store.get("moved/large") == data) == (["moved/large"], True)

    def test_a_move_that_was_broken_off_is_ended_by_the_next(self, store):
        for key in ("k", "moved"):
            store.put(key, b"one")
        store.move("k", "moved")
        assert (list(store.list("")), store.get("moved")) == (["moved"], b"one")

    def test_a_move_overwrites_nothing(self, store):
        store.put("k", b"one")
        store.put("taken", b"two")
        with pytest.raises(ResourceExistsError, match="'taken'"):
            store.move("k", "taken")
        assert (store.get("k"), store.get("taken")) == (b"one", b"two")
        with pytest.raises(DataLossError, match="is missing"):
            store.move("none", "nowhere")
        with pytest.raises(InvalidFieldError, match="key"):
            store.move("k", "../k")

    @pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../b", "a//b", ".a", "a/.b", "a b", "a\x00", "x" * 600])
    def test_a_key_cannot_leave_the_store(self, store, key):
        with pytest.raises(InvalidFieldError, match="key"):
            store.put(key, b"x")
        with pytest.raises(InvalidFieldError, match="key"):
            store.get(key)

    def test_of_racing_writers_one_wins_whole(self, store):
        bodies = [bytes([index]) * 50_000 for index in range(6)]
        refused = []

        def write(body):
            try:
                store.put("raced", body)
            except ResourceExistsError:
                refused.append(body)

        threads = [threading.Thread(target=write, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.check_race(store.get("raced"), bodies, refused)

    def check_race(self, stored, bodies, refused):
        assert stored in bodies
        assert sorted([*refused, stored]) == bodies


class TestLocalDirectoryStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, tmp_path):
        return open_store((tmp_path / "made later").as_uri())

    def test_unwritable_storage_is_unavailable(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(UnavailableError) as caught:
            LocalDirectoryStore(tmp_path / "file").put("a", b"x")
        assert caught.value.retry_after == 1.0
        assert str(tmp_path) not in caught.value.message

    def test_every_file_and_directory_is_synced_before_put_returns(self, tmp_path, monkeypatch):
        synced = []
        fsync = os.fsync
        monkeypatch.setattr(
            "os.fsync", lambda file: (synced.append(Path(f"/proc/self/fd/{file}").readlink()), fsync(file))
        )
        LocalDirectoryStore(tmp_path / "s").put("a/b", b"x")
        assert synced[:2] == [tmp_path, tmp_path / "s"]
        assert synced[2].name.startswith(".part-")
        assert synced[3:] == [tmp_path / "s" / "a"]

    def test_a_failed_write_leaves_nothing(self, tmp_path, monkeypatch):
        def fail(_file):
            raise OSError(28, "full")

        monkeypatch.setattr("os.fsync", fail)
        (tmp_path / "s").mkdir()
        with pytest.raises(UnavailableError, match="No space left"):
            LocalDirectoryStore(tmp_path / "s").put("a", b"x")
        assert list((tmp_path / "s").iterdir()) == []

    def test_a_moved_object_is_safe_under_its_new_key_before_it_is_gone_from_the_old_one(self, tmp_path, monkeypatch):
        store = LocalDirectoryStore(tmp_path)
        store.put("a/k", b"x")
        done = []
        for module in (files, local):
            monkeypatch.setattr(module, "sync_directory", lambda path: done.append((path.name, found(store))))
        store.move("a/k", "b/k")
        assert done == [(tmp_path.name, ["a/k"]), ("b", ["a/k", "b/k"]), ("a", ["b/k"])]

    def test_a_list_leaves_out_no_folder_that_cannot_be_read(self, tmp_path, monkeypatch):
        store = LocalDirectoryStore(tmp_path / "s")
        assert list(store.list("")) == []
        store.put("a/k", b"x")
        assert list(store.list("a/k/below")) == []

        def fail(path, scan=os.scandir):
            if Path(path).name == "a":
                raise OSError(24, "too many files")
            return scan(path)

        monkeypatch.setattr("os.scandir", fail)
        for listed in (store.list, store.entries):
            with pytest.raises(UnavailableError, match="Too many open files"):
                list(listed(""))

    def test_files_that_only_look_like_a_writers_stay(self, tmp_path):
        for name in (".part-notes", ".part-01234567.txt", ".part-ABCDEFGH"):
            (tmp_path / name).write_bytes(b"x")
        (tmp_path / ".part-0123abcd").mkdir()
        (tmp_path / ".part-abcd0123").symlink_to(tmp_path / ".part-notes")
        before = sorted(tmp_path.iterdir())
        assert LocalDirectoryStore(tmp_path).remove_abandoned() == 0
        assert sorted(tmp_path.iterdir()) == before

    def test_files_of_an_ended_writer_are_removed_and_those_of_a_running_one_kept(self, store, tmp_path):
        folder = tmp_path / "made later"
        crash = f"""
import os
from rowmint.objects import open_store, files

files.os.link = lambda part, target: os._exit(9)
open_store({folder.as_uri()!r}).put("a/ended", b"rows")
"""
        found = []

        def sweeping(file):
            write_all(file, b"running")
            found.extend([store.remove_abandoned(), store.remove_abandoned()])

        store.put("a/stored", b"stored")
        assert subprocess.run([sys.executable, "-c", crash], check=False).returncode == 9
        assert create(folder / "a" / "running", sweeping)
        assert found == [1, 0]
        assert sorted(path.name for path in (folder / "a").iterdir()) == ["running", "stored"]


class TestMemoryStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self):
        return MemoryStore(lambda: datetime.now(UTC))

    def test_each_is_its_own(self):
        one = MemoryStore()
        one.put("k", b"x")
        assert list(open_store("memory://test").list("")) == []


class TestRemoteStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self):
        return RemoteStore(obstore.store.MemoryStore())

    def check_race(self, stored, bodies, refused):
        # A remote store may let several racing writers through; callers' keys are unique.
        assert stored in bodies


class TestSwift(ObjectStoreSuite):
    """Over the wire: a bucket of OpenStack Swift's S3 interface."""

    @pytest.fixture
    def store(self, s3_bucket):
        return open_store(*s3_bucket)

    def check_race(self, stored, bodies, refused):
        # See TestRemoteStore: this one does let several through.
        assert stored in bodies

    def test_the_options_are_json(self, s3_bucket):
        # They are given to a service in its environment.
        url, options = s3_bucket
        store = open_store(url, json.loads(json.dumps(options)))
        store.put("k", b"one")
        assert store.get("k") == b"one"

    def test_a_prefix_is_a_store_of_its_own(self, store, s3_bucket):
        url, options = s3_bucket
        inner = open_store(f"{url}/some/prefix", options)
        inner.put("a/k", b"in")
        store.put("a/k", b"out")
        assert (inner.get("a/k"), store.get("some/prefix/a/k"), store.get("a/k")) == (b"in", b"in", b"out")
        assert (list(inner.list("")), list(inner.list("a/")), list(inner.list("some"))) == (["a/k"], ["a/k"], [])
        inner.delete("a/k")
        assert list(store.list("")) == ["a/k"]

    def test_more_keys_are_listed_than_a_page_holds(self, store):
        keys = [f"many/{index:04}" for index in range(2 * LISTED_AT_ONCE + 3)]
        for key in keys:
            store.put(key, b"")
        assert list(store.list("many/")) == keys

    def test_what_is_stored_outlives_a_crash_of_the_service(self, store, swift, tmp_path):
        store.put("small", b"one")
        (tmp_path / "in").write_bytes(b"x" * (11 * 2**20))
        store.put_file("parts", tmp_path / "in")
        swift.kill()
        try:
            for call in (
                lambda: store.get("small"),
                lambda: store.get_range("small", 0, 1),
                lambda: store.fetch("small", tmp_path / "out"),
                lambda: store.put("other", b"two"),
                lambda: store.put_file("other", tmp_path / "in"),
                lambda: store.delete("small"),
                lambda: list(store.list("")),
            ):
                with pytest.raises(UnavailableError) as caught:
                    call()
                assert caught.value.retry_after == 1.0
            assert not (tmp_path / "out").exists()
        finally:
            swift.start()
        assert (store.get("small"), store.get_range("parts", 11 * 2**20 - 1, 1)) == (b"one", b"x")
        assert list(store.list("")) == ["parts", "small"]

    @pytest.mark.parametrize("option", ["secret_access_key", "access_key_id"])
    def test_wrong_credentials_are_refused_and_not_reported(self, store, s3_bucket, option, tmp_path):
        store.put("k", b"one")
        url, options = s3_bucket
        unauthorized = open_store(url, {**options, option: "test:unknown"})
        for call in (
            lambda: unauthorized.get("k"),
            lambda: unauthorized.fetch("k", tmp_path / "out"),
            lambda: unauthorized.put("other", b"two"),
            lambda: unauthorized.delete("k"),
            lambda: list(unauthorized.list("")),
        ):
            with pytest.raises(UnavailableError) as caught:
                call()
            reported = str(caught.value)
            assert not any(secret in reported for secret in ("test:unknown", options["secret_access_key"], "127.0.0.1"))
        assert (store.get("k"), list(store.list(""))) == (b"one", ["k"])

    def test_a_bucket_that_is_not_there_cannot_be_written(self, s3_bucket):
        url, options = s3_bucket
        with pytest.raises(UnavailableError, match="written"):
            open_store(f"{url}-none", options).put("k", b"one")


def test_a_service_that_never_answers_is_given_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        options = {
            "endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "region": "x",
            "access_key_id": "a",
            "secret_access_key": "b",
            "client_options": {"allow_http": True, "timeout": "200ms"},
            "retry_config": {"max_retries": 1},
        }
        store = open_store("s3://bucket", options)
        for call in (lambda: store.get("k"), lambda: store.put("k", b"one"), lambda: list(store.list(""))):
            with pytest.raises(UnavailableError):
                call()


@pytest.mark.parametrize("url", ["ftp://x/y", "file://host/dir", "relative/dir", ""])
def test_unknown_urls_are_refused(url):
    with pytest.raises(InvalidFieldError, match="store_url"):
        open_store(url)


def test_remote_urls_open_without_a_connection():
    options = {
        "endpoint": "http://127.0.0.1:9",
        "region": "x",
        "access_key_id": "a",
        "secret_access_key": "hidden",
        "client_options": {"allow_http": True, "timeout": "1s"},
        # As JSON has them: durations in seconds.
        "retry_config": {"max_retries": 0, "retry_timeout": 2.5, "backoff": {"init_backoff": 0.1, "max_backoff": 1}},
    }
    store = open_store("s3://bucket/prefix", options)
    with pytest.raises(UnavailableError) as caught:
        store.get("k")
    assert "hidden" not in str(caught.value)
    with pytest.raises(InvalidFieldError, match="store_url"):
        open_store("s3://bucket/prefix", {"no_such_option": "hidden"})
