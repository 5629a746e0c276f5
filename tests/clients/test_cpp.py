"""A client made of the protos alone, in C++ with Debian's gRPC: it uploads, fits, watches, samples, reads errors."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from google.api import http_pb2

from rowmint.client import Client
from tests.acceptance.processes import Services, customers_csv

SOURCES = Path(__file__).parent / "cpp"
PROJECT = "projects/foreign"
ROWS = 30_000

pytestmark = [pytest.mark.debian, pytest.mark.timeout(900)]  # most of it goes into compiling


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The client, compiled; nothing generated is left beside its sources."""
    folder = tmp_path_factory.mktemp("cpp")
    googleapis = Path(http_pb2.__file__).parents[2]
    command = ["make", "-C", SOURCES, f"-j{os.cpu_count()}", f"OUT={folder}", f"GOOGLEAPIS={googleapis}"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert made.returncode == 0, made.stderr[-4000:]
    return folder / "rowmint-client"


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """A trainer that commits an upload in small pieces, and two samplers."""
    found = Services(tmp_path_factory.mktemp("home"))
    found.trainer(ROWMINT_SEGMENT_BYTES="65536")
    found.sampler()
    found.sampler()
    yield found
    found.close()


def run(program, *arguments):
    """Run a command; return its status and its lines, a word and the rest each."""
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", timeout=240, check=False
    )
    return done.returncode, [tuple(line.split(" ", 1)) for line in (done.stdout + done.stderr).splitlines()]


@pytest.fixture(scope="module")
def version(program, services, tmp_path_factory):
    """The version of a model that the C++ client fitted to a table that it uploaded."""
    trainer = services.started[0].address
    table = customers_csv(2_500)
    file = tmp_path_factory.mktemp("table") / "customers.csv"
    file.write_bytes(table)
    status, lines = run(program, "upload", trainer, f"{PROJECT}/datasets/customers", file, "customer")
    assert status == 0, lines
    said = dict(lines)
    assert 0 < int(said["committed"]) <= len(table) // 2
    assert said["state"] == "DATASET_STATE_READY"
    assert said["rows"] == "2500"
    assert said["sha256"] == hashlib.sha256(table).hexdigest()

    names = (f"{PROJECT}/trainingJobs/first", f"{PROJECT}/datasets/customers", f"{PROJECT}/models/customers")
    status, lines = run(program, "train", trainer, *names, 3)
    assert status == 0, lines
    events = [text.split() for word, text in lines if word == "event"]
    assert [int(number) for number, *_ in events] == list(range(1, len(events) + 1))
    assert ("broken", "off after event 1") in lines
    assert events[-1][1] == "JOB_STATE_SUCCEEDED"
    said = dict(lines)
    assert said["state"] == "JOB_STATE_SUCCEEDED"
    assert said["version"] == f"{PROJECT}/models/customers/versions/1"
    return said["version"]


@pytest.mark.parametrize("form", ["csv", "ndjson", "arrow"])
def test_rows_are_those_of_the_python_client(program, services, version, tmp_path, form):
    trainer, *samplers = (service.address for service in services.started)
    mine, theirs = tmp_path / "python", tmp_path / "cpp"
    with Client(trainer, samplers, "foreign") as client:
        client.sample_to_file(mine, version, rows=ROWS, seed=12, where={"city": "Oslo"}, format=form)
        model = client.get_version(version)
    alias = version.rpartition("/versions/")[0]
    status, lines = run(program, "sample", ",".join(samplers), alias, ROWS, 12, form, "city", "Oslo", theirs)
    assert status == 0, lines
    said = dict(lines)
    assert said["version"] == version
    assert said["model"] == model.model_digest.hex()
    assert said["seed"] == "12"
    assert ROWS // 2 <= int(said["broken"].removeprefix("off at row ")) < ROWS
    assert said["rows"] == str(ROWS)
    assert theirs.read_bytes() == mine.read_bytes()


def test_errors_have_their_reason(program, services, version, tmp_path):
    trainer, sampler, _ = (service.address for service in services.started)
    status, lines = run(program, "sample", sampler, version, 10, 1, "csv", "city", "Atlantis", tmp_path / "none")
    assert status == 1
    assert lines[0][0] == "status"
    assert lines[0][1].startswith("INVALID_ARGUMENT ")
    assert ("reason", "VALUE_NOT_FOUND") in lines
    assert ("fact", "column city") in lines
    assert ("fact", "value Atlantis") in lines

    status, lines = run(program, "sample", sampler, version, 0, 1, "csv", "city", "Oslo", tmp_path / "none")
    assert status == 1
    assert ("reason", "INVALID_FIELD") in lines
    assert [text.split()[0] for word, text in lines if word == "field"] == ["rows"]

    file = tmp_path / "bad.csv"
    file.write_text("a,b\n1,2\n3\n" * 3_000)
    status, lines = run(program, "upload", trainer, f"{PROJECT}/datasets/bad", file, "")
    assert (status, dict(lines)["state"]) == (0, "DATASET_STATE_FAILED")
    assert next(text for word, text in lines if word == "fault").startswith("3 ")

    names = (f"{PROJECT}/trainingJobs/second", f"{PROJECT}/datasets/nothing", f"{PROJECT}/models/customers")
    status, lines = run(program, "train", trainer, *names, 3)
    assert status == 1
    assert lines[0][1].startswith("NOT_FOUND ")
    assert ("reason", "RESOURCE_NOT_FOUND") in lines
