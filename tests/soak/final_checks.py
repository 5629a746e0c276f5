"""What is to hold once all is over: jobs have ended, their logs have no gaps, tables are whole, nothing lies about."""

import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy import func, select

from rowmint.registry.engine import reading
from rowmint.registry.job_rows import JobKind, JobState
from rowmint.registry.tables import datasets, job_events, jobs
from tests.crash.storage import Inside
from tests.soak.task_log import Tally

_JOB_SECONDS = 240.0
_SWEEP_SECONDS = 120.0


def look(inside: Inside) -> Tally:
    """Look at everything that is left; to be called while trainers run and no request is sent to them.

    Args:
        inside: Registry and stores.
    """
    tally = Tally()
    _jobs(inside, tally)
    _logs(inside, tally)
    _objects(inside, tally)
    _scratch(inside, tally)
    return tally


def taken_up_again(inside: Inside) -> int:
    """Return how many jobs have had more than one attempt."""
    with reading(inside.registry.engine) as connection:
        return int(connection.execute(select(func.count()).where(jobs.c.attempt > 1)).scalar_one())


def _jobs(inside: Inside, tally: Tally) -> None:
    """Every job has ended, and none has failed."""
    unfinished = [state for state in JobState if not state.ended]
    at_work = select(jobs.c.job_id).where(jobs.c.state.in_(unfinished))

    def left() -> list[str]:
        with reading(inside.registry.engine) as connection:
            return list(connection.execute(at_work).scalars())

    _wait(lambda: not left(), _JOB_SECONDS)
    tally.expect(not left(), f"jobs that have not ended: {left()}")
    counted = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
    tally.add("jobs taken up more than once", taken_up_again(inside))
    failed = select(jobs.c.kind, jobs.c.job_id, jobs.c.error).where(jobs.c.state == JobState.FAILED)
    with reading(inside.registry.engine) as connection:
        for kind, state, number in connection.execute(counted):
            tally.add(f"{'fits' if kind == JobKind.TRAIN else 'ingests'} that ended {state}", number)
        for kind, job, error in connection.execute(failed):
            tally.expect(False, f"{kind} {job} failed: {error}")
        for dataset in connection.execute(select(datasets).where(datasets.c.state != "READY")):
            tally.expect(False, f"dataset {dataset.dataset_id} is {dataset.state}: {dataset.errors}")


def _logs(inside: Inside, tally: Tally) -> None:
    """Every log is numbered from 1 without gaps, and its last entry is the job's end."""
    with reading(inside.registry.engine) as connection:
        known = {row.uid: row for row in connection.execute(select(jobs))}
        logs: dict[str, list[tuple[int, str]]] = {uid: [] for uid in known}
        order = job_events.c.job_uid, job_events.c.sequence
        for row in connection.execute(select(job_events).order_by(*order)):
            logs.setdefault(row.job_uid, []).append((row.sequence, row.state))
    for uid, log in logs.items():
        job = known.get(uid)
        numbers = [number for number, _ in log]
        whole = job is not None and numbers == list(range(1, job.event_count + 1)) and log[-1][1] == job.state
        tally.expect(whole, f"the log of job {uid} is not whole: {numbers}, {job and (job.event_count, job.state)}")
        ends = Counter(state for _, state in log if JobState(state).ended)
        tally.expect(ends.total() == 1, f"job {uid} has ended {dict(ends)}")
    tally.add("event logs without gaps", len(logs))


def _objects(inside: Inside, tally: Tally) -> None:
    """No object is left but those that datasets and versions name, and each of these is whole."""

    def stray() -> tuple[set[str], ...]:
        garbage, *stored = inside._swept()
        return garbage, *(keys ^ set(named) for keys, named in zip(stored, inside._named(), strict=True))

    _wait(lambda: not any(stray()), _SWEEP_SECONDS)
    for what, keys in zip(("to be deleted", "in the data store", "in the models' store"), stray(), strict=True):
        tally.expect(not keys, f"objects {what} without a row, or rows without an object: {sorted(keys)}")
    if not any(stray()):
        tally.expect(inside._stored() == inside._named(), "an object is not what the registry says of it")
    tally.expect(not inside._strays(), f"files half written: {inside._strays()}")
    tally.add("objects at the end", sum(map(len, inside._named())))


def _scratch(inside: Inside, tally: Tally) -> None:
    """Nothing is left of temporary files."""

    def left() -> list[str]:
        folder = inside.home / "scratch"
        return sorted(str(found.relative_to(folder)) for found in folder.rglob("*") if found.name != ".lock")

    _wait(lambda: not left(), 30)
    tally.expect(not left(), f"temporary files: {left()}")


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition; the caller checks it again afterwards."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)
