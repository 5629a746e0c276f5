"""A trainer whose registry is not that of its stores: it starts on none of them, changes no byte, and says why."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rowmint.client import Client
from tests.acceptance.processes import Services, customers_csv, refused_start
from tests.conformance.registries import copy_registry

TRAINER = ("-m", "trainer_service")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a dataset and two versions, and in ``earlier`` its registry from before the second."""
    folder = tmp_path_factory.mktemp("filled")
    home = folder / "home"
    home.mkdir()
    services = Services(home)
    try:
        with Client(services.trainer().address) as client:
            client.upload(customers_csv(60), "customers", format="csv", primary_key="customer")
            client.wait_job(client.train("customers", "people", family="independent", seed=1).name)
            copy_registry(home / "registry", folder / "earlier")
            client.wait_job(client.train("customers", "people", family="independent", seed=2).name)
    finally:
        services.close()
    return folder


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(filled / "home", tmp_path / "home")
    return tmp_path / "home"


def digests(home: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of both stores."""
    files = (path for name in ("data", "models") for path in (home / name).rglob("*") if path.is_file())
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def empty(home: Path, _: Path) -> None:
    shutil.rmtree(home / "registry")


def missing(name: str) -> Callable[[Path, Path], None]:
    def change(home: Path, _: Path) -> None:
        for path in (home / "registry").glob(f"{name}*"):
            path.unlink()

    return change


def older(*names: str) -> Callable[[Path, Path], None]:
    def change(home: Path, earlier: Path) -> None:
        for name in names:
            missing(name)(home, earlier)
            shutil.copy(earlier / name, home / "registry" / name)

    return change


CASES = {
    "an empty registry": (empty, "the data store belongs to the registry"),
    "data.db is missing": (missing("data.db"), "the data store belongs to the registry"),
    "models.db is missing": (missing("models.db"), "the models' store belongs to the registry"),
    "data.db is older": (older("data.db"), "the registry is older than the data store"),
    "models.db is older": (older("models.db"), "the registry is older than the models' store"),
    "both are older": (older("data.db", "models.db"), "the registry is older than the data store"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_registry_that_does_not_know_the_stores_is_not_served(filled: Path, home: Path, case: str) -> None:
    change, said = CASES[case]
    before = digests(home)
    change(home, filled / "earlier")
    *_, error = refused_start(home, *TRAINER).splitlines()
    assert error.startswith(f"trainer: {said}")
    assert "python -m trainer_service.adopt" in error
    assert digests(home) == before


def test_a_second_home_on_the_same_stores_is_refused_and_the_first_serves_on(home: Path, tmp_path: Path) -> None:
    before = digests(home)
    (tmp_path / "second").mkdir()
    stores = {
        f"ROWMINT_{name}_STORE": f"file://{home / folder}" for name, folder in (("DATA", "data"), ("MODEL", "models"))
    }
    *_, error = refused_start(tmp_path / "second", *TRAINER, **stores).splitlines()
    assert error.startswith("trainer: the data store belongs to the registry")
    assert digests(home) == before
    services = Services(home)
    try:
        with Client(services.trainer().address, services.sampler().address) as client:
            assert len(list(client.list_versions("people"))) == 2
            with client.sample("people", 5, seed=1) as stream:
                assert b"".join(stream.chunks()) != b""
    finally:
        services.close()
    # All that was there is there, but for the marks, which are newer.
    kept = {path for path in before if "/_rowmint/" not in path}
    assert {path: digest for path, digest in digests(home).items() if path in kept} == {
        path: before[path] for path in kept
    }
