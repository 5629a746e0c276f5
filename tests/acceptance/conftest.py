"""Fixtures: services over a home folder of their own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rowmint.client import Client
from tests.acceptance.leaks import leaks_of_services
from tests.acceptance.processes import Services, customers_csv


@pytest.fixture(scope="session", autouse=True)
def _no_log_tells_too_much(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Looks through the log of every service that was started, once all tests have ended."""
    yield
    found = list(leaks_of_services(tmp_path_factory.getbasetemp()))
    if found:
        pytest.fail("logs have what they must not:\n" + "\n".join(found[:20]), pytrace=False)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    found = Services(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="session")
def shared_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One trainer and two samplers for tests that disturb neither: `started` holds them in that order."""
    found = Services(tmp_path_factory.mktemp("home"))
    found.trainer()
    found.sampler()
    found.sampler()
    yield found
    found.close()


@dataclass(frozen=True)
class Fitted:
    """A small table and a model of it, for tests of what is refused.

    Attributes:
        client: A client in a project of their own.
        dataset: Name of the READY dataset `customers`.
        version: Name of the only version of the model `customers`, independent.
    """

    client: Client
    dataset: str
    version: str


@pytest.fixture(scope="session")
def fitted(shared_services: Services) -> Iterator[Fitted]:
    trainer, *samplers = shared_services.started
    with Client(trainer.address, [sampler.address for sampler in samplers], "bad-input") as client:
        dataset = client.upload(customers_csv(400), "customers", format="csv", primary_key="customer")
        job = client.wait_job(client.train(dataset, "customers", family="independent", seed=1))
        yield Fitted(client, dataset.name, job.model_version)
