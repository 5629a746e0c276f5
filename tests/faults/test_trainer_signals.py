"""A trainer that is terminated: received bytes are committed, fits are saved, and the next trainer resumes them."""

import hashlib
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rowmint.names import DatasetName, TrainingJobName
from rowmint.registry import JobRecord, JobState
from tests.acceptance.processes import ServiceProcess, Services
from tests.crash.event_log import check_log
from tests.crash.scenario import CSV, patient_client, training_config
from tests.crash.storage import Inside, Storage
from tests.faults.gated_source import GatedSource
from tests.waiting import wait_until

# Only the signal makes a checkpoint due. A fit of hundreds of steps: there is time to interrupt it.
NO_HASTE = {"ROWMINT_CHECKPOINT_SECONDS": "3600", "ROWMINT_GRACE_SECONDS": "20"}
EPOCHS = 80
STEPS = 6
"""Of an epoch."""


def end(trainer: ServiceProcess, number: signal.Signals) -> None:
    trainer.process.send_signal(number)
    assert trainer.process.wait(60) == 0


def fitting(inside: Inside, name: TrainingJobName, epoch: int) -> bool:
    """Say whether a job has finished an epoch."""
    job = inside.registry.jobs.get(name)
    assert not job.state.ended, "the fit is too short for this test"
    events = inside.registry.jobs.events_after(job.uid, 0)
    return any(event.payload.get("progress", {}).get("epoch", 0) >= epoch for event in events)


def test_a_fit_is_resumed_at_its_last_step_and_ends_the_same(services: Services, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    config = training_config()
    config.ctgan.epochs, config.probe_epochs = EPOCHS, EPOCHS // 2
    trainer = services.start("trainer_service", storage.trainer(**NO_HASTE))
    sampler = services.start("sampler_service", storage.sampler())
    resumed = [0]
    with storage.open() as inside:
        with patient_client(trainer.address, sampler.address) as client:
            client.upload(CSV, "customers", format="csv", primary_key="customer")
            whole = client.get_version(client.wait_job(client.train("customers", "whole", config), 240).model_version)
            name = TrainingJobName.parse(client.train("customers", "people", config).name)
        for attempt, number in enumerate((signal.SIGTERM, signal.SIGINT), 1):
            epoch = resumed[-1] // STEPS + 3  # one that no attempt before came to
            wait_until(lambda epoch=epoch: fitting(inside, name, epoch), "an epoch")
            end(trainer, number)
            left: JobRecord = inside.registry.jobs.get(name)
            assert (left.state, left.attempt, left.holder) == (JobState.PENDING, attempt, "")
            assert left.checkpoint is not None
            assert left.checkpoint.step >= epoch * STEPS
            resumed.append(left.checkpoint.step)
            trainer = services.start("trainer_service", storage.trainer(**NO_HASTE))
        with patient_client(trainer.address, sampler.address) as client:
            ended = client.wait_job(str(name), 240)
            version = client.get_version(ended.model_version)
            training = json.loads(version.manifest_json)["training"]
            check_log(list(client.watch(str(name), timeout=60)), training)
        assert version.model_digest == whole.model_digest
        assert (training["resumed_steps"], training["reproducible"]) == (resumed[1:], True)
        inside.settle()


@pytest.mark.usefixtures("small_messages")
def test_an_upload_ends_with_received_bytes_committed_and_is_resumed(services: Services, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    source = GatedSource(CSV, len(CSV) // 2)
    trainer = services.start("trainer_service", storage.trainer(**NO_HASTE))
    with storage.open() as inside, ThreadPoolExecutor(1) as threads, patient_client(trainer.address) as client:

        def committed() -> int:
            found = inside.registry.datasets.list("default").items
            return found[0].committed_size if found else 0

        uploading = threads.submit(client.upload, source, "customers", format="csv", wait=False)
        wait_until(lambda: committed() > 0, "a segment")
        # The client waits for its source: the trainer does not wait for the client.
        end(trainer, signal.SIGTERM)
        before = committed()
        services.start("trainer_service", storage.trainer(**NO_HASTE), port=trainer.port)
        source.open()
        uploading.result(120)
        client.wait_dataset("customers", 120)
        found = inside.registry.datasets.get(DatasetName("default", "customers"))
        assert 0 < before < len(CSV)
        assert (found.row_count, found.sha256) == (3_000, hashlib.sha256(CSV).digest())
