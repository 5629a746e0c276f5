"""A reader of SQLite files that may write neither file nor folder, whatever the writer is doing or has done."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowmint.errors import UnavailableError
from rowmint.registry import migrate, open_models_registry, open_registry, sqlite_files
from rowmint.registry.engine import reading
from tests.conformance import another_user
from tests.conformance.registries import publish

READER = 54_321
DENIED = 'the registry cannot be read by this user: permission denied; see "Two users" in docs/deployment.md'
ABSENT = "the registry does not exist yet; start the trainer, which creates it"
UNENDED = "the registry was not closed by its last writer and cannot be recovered by this user; start the trainer"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that another user can search, unlike those that pytest gives."""
    with tempfile.TemporaryDirectory() as found:
        Path(found).chmod(0o711)
        yield Path(found)


@pytest.fixture
def folder(place: Path) -> Iterator[Path]:
    (place / "registry").mkdir()
    yield place / "registry"
    (place / "registry").chmod(0o700)


class Reader:
    """A process of another user that reads models."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, another_user.__file__, f"sqlite:///{folder}", str(READER), str(READER)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == (READER if os.geteuid() == 0 else os.getuid())

    def _answer(self):
        return json.loads(self.process.stdout.readline())

    def latest(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture
def reader(folder: Path) -> Iterator[Reader]:
    found = Reader(folder)
    yield found
    found.close()


@contextlib.contextmanager
def writing_to(folder: Path):
    """Open the registry, as a trainer does whose umask hides nothing."""
    folder.chmod(0o755)
    registry = open_registry(f"sqlite:///{folder}")
    migrate(registry.engine)
    show(folder)
    try:
        yield registry
    finally:
        registry.close()
        folder.chmod(0o555)


def show(folder: Path) -> None:
    """Let others read all files of a folder."""
    for path in folder.iterdir():
        path.chmod(0o644)


def test_a_folder_that_cannot_be_written_is_read_while_a_trainer_runs_and_after_its_end(folder, reader):
    folder.chmod(0o555)
    assert reader.latest() == ABSENT
    for number in (1, 2):
        with writing_to(folder) as registry:
            publish(registry, f"v{number}")
            assert reader.latest() == number
        assert reader.latest() == number


def test_a_reader_that_starts_after_the_clean_end_of_the_last_trainer_reads(folder):
    with writing_to(folder) as registry:
        publish(registry)
    assert sorted(path.name for path in folder.iterdir()) == ["data.db", "models.db"]
    reader = Reader(folder)
    assert reader.latest() == 1
    with writing_to(folder) as registry:
        publish(registry, "v2")
        assert reader.latest() == 2  # what a writer adds is seen at once, though the file was read at rest before
    reader.close()
    # The reader was connected to the end, so that the log stayed, and is read by the next.
    assert (folder / "models.db-wal").exists()
    reader = Reader(folder)
    assert reader.latest() == 2
    reader.close()


def test_what_a_killed_trainer_has_left_is_read(folder, place):
    with writing_to(folder) as registry:
        publish(registry)
        left = place / "left"
        shutil.copytree(folder, left)  # as a kill leaves it: with a log that is not in the file yet
    assert (left / "models.db-wal").stat().st_size > 0
    left.chmod(0o555)
    other = Reader(left)
    assert other.latest() == 1
    other.close()
    left.chmod(0o755)
    (left / "models.db-shm").unlink()
    left.chmod(0o555)
    other = Reader(left)
    assert other.latest() == UNENDED
    other.close()
    left.chmod(0o755)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_read_is_said_so(folder, reader, what):
    with writing_to(folder) as registry:
        publish(registry)
    (folder if what == "folder" else folder / "models.db").chmod(0o600)
    assert reader.latest() == DENIED
    folder.chmod(0o755)
    (folder / "models.db").chmod(0o644)
    assert reader.latest() == 1


def test_an_answer_from_files_that_a_trainer_opens_meanwhile_does_not_count(tmp_path):
    url = f"sqlite:///{tmp_path}/registry"
    registry = open_registry(url)
    migrate(registry.engine)
    publish(registry)
    registry.close()
    reader = open_models_registry(url)
    at_rest = _cannot_write()
    assert reader.models.get(another_user.MODEL).latest == 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(UnavailableError, match="a trainer opened the registry while it was read"))
        stack.enter_context(reading(reader.engine))
        at_rest.undo()
        registry = open_registry(url)
        publish(registry, "v2")
    assert reader.models.get(another_user.MODEL).latest == 2
    registry.close()
    reader.close()


def _cannot_write():
    """Let SQLite refuse what it refuses a user who cannot make a log, as which user ever the test runs."""

    class Refusing(sqlite_files.FileConnection):
        def execute(self, statement, *arguments):
            if statement.startswith("ATTACH") and arguments[0][0].endswith("mode=rw"):
                raise sqlite3.OperationalError("unable to open database file")
            return super().execute(statement, *arguments)

    context = pytest.MonkeyPatch()
    context.setattr(sqlite_files, "FileConnection", Refusing)
    return context
