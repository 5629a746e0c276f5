"""Tasks of a fitter: fits of every family, watched to their end, some of them cancelled on the way."""

from collections.abc import Sequence

from rowmint.client import RowmintCallError
from rowmint.errors import Reason
from rowmint.v1 import training_job_pb2
from tests.soak.place import BASE, FAMILIES
from tests.soak.references import Reference
from tests.soak.streams import check, receive
from tests.soak.task import Task

SECONDS = 240.0


def fit(task: Task) -> None:
    """Fit a model, watch it to its end, and draw rows from it."""
    family = FAMILIES[task.number % len(FAMILIES)]
    ended = watched(task, family, task.name, epochs=task.draw.randint(3, 6))
    task.tally.expect(
        ended.state == training_job_pb2.JOB_STATE_SUCCEEDED,
        f"{ended.name} ended as {training_job_pb2.JobState.Name(ended.state)}: {ended.error.message}",
    )
    published = [version.name for version in task.client.list_versions(task.name)]
    task.tally.expect([ended.model_version] == published, f"{ended.name} published {published}")
    sampled(task, ended.model_version, 3_000)


def fit_and_cancel(task: Task) -> None:
    """Begin a fit that takes long, and cancel it after some of its events."""
    family = task.draw.choice(("ctgan", "tvae"))
    ended = watched(task, family, task.name, epochs=3_000, cancel_after=task.draw.randint(1, 8))
    task.tally.expect(
        ended.state == training_job_pb2.JOB_STATE_CANCELLED,
        f"{ended.name}, cancelled, ended as {training_job_pb2.JobState.Name(ended.state)}: {ended.error.message}",
    )
    task.tally.add(f"expected error: {Reason.CANCELLED}")


def watched(
    task: Task, family: str, model: str, job: str = "", *, epochs: int, cancel_after: int | None = None
) -> training_job_pb2.TrainingJob:
    """Fit the table that stays, and follow the job to its end, or to that of the one that another process began.

    Args:
        task: The task.
        family: The family.
        model: The model that gets a version.
        job: The job's name; empty for the task's.
        epochs: Passes over the table, where the family makes any.
        cancel_after: Number of the event after which the job is cancelled; None for never.
    """
    client, job = task.client, job or task.name
    try:
        client.train(BASE, model, config(family, epochs, task.draw.randrange(1 << 32)), job_id=job)
    except RowmintCallError as error:
        # Either another process began it, or this one, and the answer was lost.
        if error.reason != Reason.RESOURCE_EXISTS:
            raise
    numbers = []
    for event in client.watch(job, timeout=SECONDS):
        numbers.append(event.sequence)
        if event.sequence == cancel_after:
            client.cancel_job(job)
    _expect_no_gap(task, numbers)
    ended = client.get_job(job)
    task.tally.add(f"fits: {family}")
    return ended


def sampled(task: Task, version: str, rows: int) -> None:
    """Draw rows from a version, and compare them with those of an undisturbed replica."""
    request = task.client.sample_request(version, rows, seed=task.draw.randrange(1 << 64), end_row=rows, start_row=0)
    expected = task.references.of(request)
    with task.client.sample_stream(request) as stream:
        found = receive(task.tally, stream)
    check(task, request, Reference.over(found.bodies, found.rows), expected)


def config(family: str, epochs: int, seed: int) -> training_job_pb2.TrainingConfig:
    """Return a small fit of a few columns."""
    found = training_job_pb2.TrainingConfig(seed=seed, threads=1, holdout_fraction=0.1, probe_epochs=2)
    if family == "ctgan":
        found.ctgan.MergeFrom(
            training_job_pb2.CtganConfig(
                epochs=epochs, batch_size=200, generator_dim=[32], discriminator_dim=[32], embedding_dim=16
            )
        )
    elif family == "tvae":
        found.tvae.MergeFrom(
            training_job_pb2.TvaeConfig(
                epochs=epochs, batch_size=200, compress_dims=[32], decompress_dims=[32], embedding_dim=16
            )
        )
    else:
        found.independent.SetInParent()
    return found


def _expect_no_gap(task: Task, numbers: Sequence[int]) -> None:
    task.tally.expect(list(numbers) == list(range(1, len(numbers) + 1)), f"{task.name} has events {list(numbers)}")
    task.tally.add("events", len(numbers))
