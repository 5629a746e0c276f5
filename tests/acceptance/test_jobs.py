"""Jobs: live events, cancel in mid-epoch, estimates, versions and aliases; crashes are in tests/crash."""

from pathlib import Path

import pytest

from rowmint.client import Client, RowmintCallError
from rowmint.v1 import dataset_pb2, training_job_pb2
from tests.acceptance.processes import Services, children_of, customers_csv
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def client(shared_services: Services):
    with Client(shared_services.started[0].address, shared_services.started[1].address) as found:
        yield found


@pytest.fixture(scope="module")
def dataset(client: Client) -> dataset_pb2.Dataset:
    return client.upload(customers_csv(3_000), "jobs", format="csv", primary_key="customer")


def test_cancel_stops_a_fit_in_the_middle_of_an_epoch(client: Client, dataset: dataset_pb2.Dataset) -> None:
    # One epoch of many steps: that it ended at all before the epoch did is what is tested.
    job = client.train(
        dataset, "cancelled", family="ctgan", epochs=1, batch_size=2, pac=1, discriminator_steps=100, threads=1
    )
    for event in client.watch(job):
        if event.phase == training_job_pb2.JOB_PHASE_FITTING:
            break
    client.cancel_job(job)
    events = list(client.watch(job))
    assert events[-1].state == training_job_pb2.JOB_STATE_CANCELLED
    assert not any(event.HasField("progress") and event.progress.epoch for event in events)
    with pytest.raises(RowmintCallError, match="there is no"):
        client.get_model("cancelled")


def test_watching_resumes_after_a_number(client: Client, dataset: dataset_pb2.Dataset) -> None:
    job = client.train(dataset, "watched", family="independent", seed=1, threads=1)
    events = list(client.watch(job))
    assert len(events) > 3
    again = list(client.watch(job, after=3))
    assert again == events[3:]


def test_versions_count_and_latest_moves(client: Client, dataset: dataset_pb2.Dataset) -> None:
    versions = []
    for seed in (1, 2):
        done = client.wait_job(client.train(dataset, "counted", family="independent", seed=seed))
        versions.append(done.model_version)
    assert [name.rsplit("/", 1)[1] for name in versions] == ["1", "2"]
    assert client.get_version("counted@latest").version == 2
    client.set_alias("counted", "stable", 1)
    assert client.get_version("counted@stable").version == 1
    digest = client.get_version(versions[0]).model_digest.hex()
    assert client.get_version(f"counted@sha256:{digest}").model_digest.hex() == digest
    with pytest.raises(RowmintCallError, match="stable"):
        client.delete_version(versions[0])
    client.set_alias("counted", "stable", None)
    client.delete_version(versions[1])
    assert client.get_version("counted@latest").version == 1


def test_an_estimate_has_the_size_of_a_fit_and_starts_none(client: Client, dataset: dataset_pb2.Dataset) -> None:
    estimate = client.estimate(dataset, "estimated", epochs=4, batch_size=500, threads=1, seed=3)
    assert estimate.steps_per_epoch == 6
    assert estimate.encoded_width > 20
    assert estimate.seconds_per_epoch > 0
    with pytest.raises(RowmintCallError, match="there is no"):
        client.get_job("estimated")


def test_a_terminated_trainer_leaves_no_process(services: Services) -> None:
    trainer = services.trainer()
    wait_until(lambda: bool(children_of(trainer.pid)), "a warm worker")
    children = children_of(trainer.pid)
    assert trainer.terminate() == 0
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the workers' end")
