"""The sampler from an environment of its own, `.[sampler]` and nothing else, and with nothing of the data."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rowmint.client import Client
from rowmint.v1 import model_pb2
from tests.acceptance.processes import ROOT, ServiceProcess, Services, customers_csv, free_port
from tests.faults.golden_home import golden_version, publish_golden
from tests.golden.streams import PROJECT

FITTING = ["torch", "sdv", "ctgan", "sklearn", "pandas", "rdt", "scipy", "copulas", "sdmetrics"]
WHERE = {"age": (20, None), "flag": [True, None]}
PARTIAL = [{"city": "Oslo", "score": 5.5}, {"grade": 3, "price": None}, {}, {"age": 40, "flag": True}]


@pytest.fixture(scope="module")
def interpreter() -> str:
    """The interpreter of an environment that holds the sampler alone."""
    path = Path(os.environ.get("ROWMINT_SAMPLER_PYTHON", ROOT / ".venv-sampler" / "bin" / "python"))
    if not path.exists():
        pytest.fail(
            f"{path} is not there: `make .venv-sampler/.ready` makes the environment, as `make test-system` does, or"
            " name the interpreter of one in ROWMINT_SAMPLER_PYTHON"
        )
    return str(path)


@dataclass(frozen=True)
class Published:
    """A home folder in which models were published.

    Attributes:
        models: A folder that holds the models' registry and store, and nothing else.
        data: Where the rest of the trainer's home is now.
        version: A model with networks; the trainer has published `alone`, too.
        digests: What a sampler beside the trainer made of both.
    """

    models: Path
    data: Path
    version: model_pb2.ModelVersion
    digests: dict[str, str]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    home = tmp_path_factory.mktemp("home")
    publish_golden(home)
    services = Services(home)
    try:
        with Client(services.trainer().address, services.sampler().address, PROJECT) as client:
            dataset = client.upload(customers_csv(1_000), "alone", format="csv", primary_key="customer")
            client.wait_job(client.train(dataset, "alone", family="independent", seed=1, threads=1))
            version = client.get_version(golden_version("ctgan"))
            digests = digests_of(client, version)
    finally:
        services.close()
    models = tmp_path_factory.mktemp("models")
    (models / "registry").mkdir()
    for file in (home / "registry").glob("models.db*"):
        shutil.move(file, models / "registry")
    shutil.move(home / "models", models)
    data = tmp_path_factory.mktemp("away") / "data"
    home.rename(data)
    assert (data / "registry" / "data.db").exists()
    assert any((data / "data").rglob("*"))
    yield Published(models, data, version, digests)
    # Whatever the samplers did, the models are only read.
    assert {path.name for path in models.iterdir() if path.suffix != ".log"} == {"registry", "models"}


def digests_of(client: Client, version: model_pb2.ModelVersion) -> dict[str, str]:
    """Sample in every form, in planned parts, and complete; return the digest of each answer."""
    found = {}
    for form in ("arrow", "csv", "ndjson"):
        stream = client.sample(version, 20_000, seed=5, where=WHERE, format=form)
        found[form] = hashlib.sha256(b"".join(stream.chunks())).hexdigest()
    plan = client.plan_sample(client.sample_request(version, 20_000, seed=5, where=WHERE, format="csv"), parts=3)
    parts = b"".join(b"".join(client.sample_stream(part).chunks()) for part in plan.parts)
    found["parts"] = hashlib.sha256(parts).hexdigest()
    rows = [list(row.values()) for row in client.complete_rows(version, PARTIAL, seed=5)]
    found["completed"] = hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()
    found["alone"] = hashlib.sha256(b"".join(client.sample("alone", 1_000, seed=5, format="csv").chunks())).hexdigest()
    return found


@contextlib.contextmanager
def sampler_alone(published: Published, interpreter: str, **environment: str) -> Iterator[ServiceProcess]:
    services = Services(published.models)
    try:
        yield services.start("sampler_service", environment, interpreter)
    finally:
        services.close()


def client_of(sampler: ServiceProcess) -> Client:
    return Client(f"127.0.0.1:{free_port()}", sampler.address, PROJECT)  # nothing listens there: the trainer is gone


def used_files(pid: int) -> set[str]:
    """Return every file that a process has mapped or open."""
    files = set()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        files |= set(line.split(maxsplit=5)[5:])
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            files.add(str(file.readlink()))
    return {file for file in files if file.startswith("/")}


def test_the_environment_holds_nothing_that_fits(interpreter: str) -> None:
    script = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    names = [*FITTING, "pytest", "sampler_service"]
    done = subprocess.run([interpreter, "-c", script, *names], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "['sampler_service']"


def test_it_serves_from_the_models_alone(published: Published, interpreter: str) -> None:
    with sampler_alone(published, interpreter) as sampler, client_of(sampler) as client:
        version = client.get_version(golden_version("ctgan"))
        assert version.model_digest == published.version.model_digest
        assert digests_of(client, version) == published.digests
        files = used_files(sampler.pid)
    parts = {part for file in files for part in Path(file).parts}
    assert parts & set(FITTING) == set()
    assert not any(part.startswith(("libtorch", "libc10")) for part in parts)
    # The looking itself works: what it must have loaded is seen.
    assert {"numpy", "pyarrow", "onnxruntime"} <= parts
    assert [file for file in files if "data.db" in file or Path(file).is_relative_to(published.data)] == []


@pytest.mark.parametrize("kernel", ["numpy", "auto"])
def test_rows_are_the_same_without_onnxruntime(
    published: Published, interpreter: str, tmp_path: Path, kernel: str
) -> None:
    # What Python imports at its start makes the package look as if it were not installed.
    (tmp_path / "sitecustomize.py").write_text('import sys\n\nsys.modules["onnxruntime"] = None\n')
    environment = {"PYTHONPATH": str(tmp_path), "ROWMINT_KERNEL": kernel}
    with sampler_alone(published, interpreter, **environment) as sampler, client_of(sampler) as client:
        assert digests_of(client, client.get_version(golden_version("ctgan"))) == published.digests
        assert not [file for file in used_files(sampler.pid) if "onnxruntime" in file]
