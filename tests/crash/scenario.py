"""One scenario: a dataset and two versions of a model, from the first byte to the end of both, by the real client.

Whatever dies on the way, its facts are those of a scenario without a kill.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rowmint.client import Client, RowmintCallError
from rowmint.client.retry import RetryPolicy
from rowmint.names import DatasetName, TrainingJobName
from rowmint.v1 import schema_pb2, training_job_pb2
from tests.acceptance.processes import CUSTOMERS_HEADER, Services, customers_csv
from tests.crash.event_log import check_log
from tests.crash.storage import Inside, Storage, objects
from tests.crash.supervisor import Death, Kill, Supervisor

CSV = customers_csv(3_000)
"""About 190 KiB: a dozen segments."""
PATIENCE = RetryPolicy(attempts=400, unary_attempts=400, first_delay=0.05, longest_delay=0.25)
"""Longer than any trainer takes to be there again."""
# The trainer is looked for again as soon as it may be there.
CHANNEL = (("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 250))
SAMPLED = 300
_PATIENCE_SECONDS = 240.0
_LEARNED = ("city", "plan", "age", "bonus", "rich")


def training_config() -> training_job_pb2.TrainingConfig:
    """Return a fit of 24 steps in 4 epochs, probed after the second and the last, of a few columns."""
    left_out = [name for name in CUSTOMERS_HEADER.split(",") if name not in _LEARNED]
    return training_job_pb2.TrainingConfig(
        ctgan=training_job_pb2.CtganConfig(
            epochs=4, batch_size=440, generator_dim=[16], discriminator_dim=[16], embedding_dim=8
        ),
        seed=5,
        threads=1,
        holdout_fraction=0.1,
        probe_epochs=2,
        primary_key="",
        column_overrides=[
            training_job_pb2.ColumnOverride(column=name, kind=schema_pb2.COLUMN_KIND_IGNORED) for name in left_out
        ],
    )


@dataclass(frozen=True)
class VersionFacts:
    """What is to be seen of a published version.

    Attributes:
        name: Its name.
        versions: How many versions its job has published.
        digest: Its model digest, in hex.
        dataset: The dataset's SHA-256, in hex.
        training: The manifest's account of the fit, without times and interruptions.
        rows: SHA-256 of a stream of rows, each time it was read.
    """

    name: str
    versions: int
    digest: str
    dataset: str
    training: Mapping[str, Any]
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What a scenario shows, the same in each.

    Attributes:
        committed: Bytes of the upload that are committed when it is finished.
        finished: Size and SHA-256 that the upload was finished with.
        table: SHA-256 of the READY table, written as the CSV it came from.
        first: The version that was fitted for long.
        second: The other one.
        aliases: The model's aliases after each move of them, and in the end.
        gone: What is said of the deleted version and the deleted dataset.
    """

    committed: int
    finished: tuple[int | None, str]
    table: str
    first: VersionFacts
    second: VersionFacts
    aliases: tuple[Mapping[str, int], ...]
    gone: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """A scenario that has ended.

    Attributes:
        facts: What was seen.
        deaths: What died.
        starts: How often the trainer was started.
        seconds: How long it took.
        resumed: How many steps of the fit were done each time it was resumed.
    """

    facts: Facts
    deaths: tuple[Death, ...]
    starts: int
    seconds: float
    resumed: tuple[int, ...]


@contextmanager
def patient_client(trainer: str, sampler: str = "127.0.0.1:1") -> Iterator[Client]:
    """Open a client that waits for a trainer that is down."""
    with Client(trainer, sampler, retry=PATIENCE, channel_options=CHANNEL) as client:
        yield client


def run_scenario(
    storage: Storage, kills: Sequence[Kill] = (), disturb: Callable[[Supervisor, Inside], None] | None = None
) -> Outcome:
    """Run the scenario, with a trainer that is killed and a sampler that is not.

    Args:
        storage: Where; it must be empty.
        kills: Where the trainer and its workers die.
        meddle: Called in a thread of its own, which it keeps until the supervisor is closed: kills, too.
    """
    began = time.monotonic()
    supervisor = Supervisor(storage.home, storage.trainer(), kills)
    services = Services(storage.home)
    with ThreadPoolExecutor(2) as threads, storage.open() as inside:
        try:
            supervisor.start()
            sampler = services.start("sampler_service", storage.sampler())
            disturbing = None if disturb is None else threads.submit(disturb, supervisor, inside)
            with patient_client(supervisor.address, sampler.address) as client:
                facts, resumed = _run_steps(client, supervisor, inside, threads)
            supervisor.over.set()
            if disturbing is not None:
                disturbing.result()
            inside.settle()
            inside.rest()
        finally:
            supervisor.close()
            services.close()
    assert supervisor.failures == []
    return Outcome(facts, tuple(supervisor.deaths), supervisor.starts, time.monotonic() - began, resumed)


def _run_steps(
    client: Client, supervisor: Supervisor, inside: Inside, threads: ThreadPoolExecutor
) -> tuple[Facts, tuple[int, ...]]:
    uploaded = client.upload(CSV, "customers", format="csv", primary_key="customer", wait=False)
    committed = uploaded.committed_size
    client.wait_dataset("customers", _PATIENCE_SECONDS)
    record = inside.registry.datasets.get(DatasetName("default", "customers"))
    table = hashlib.sha256(_as_csv(inside)).hexdigest()
    inside.settle()

    supervisor.section("first")
    job = client.train("customers", "people", training_config())
    watching = threads.submit(_watch, supervisor.address, job.name)
    first = _published(client, job.name)
    events = watching.result()
    manifest = json.loads(first.manifest_json)
    check_log(events, manifest["training"])
    rows_first = [_rows(client, first.name)]

    aliases = [_aliases(client.set_alias("people", "best", 1))]
    supervisor.section("second")
    other = client.train("customers", "people", family="independent", seed=6, threads=1)
    second = _published(client, other.name)
    rows_second = [_rows(client, "people@latest")]
    supervisor.section("moved")
    aliases.append(_aliases(client.set_alias("people", "best", 2)))
    aliases.append(_aliases(client.get_model("people")))
    rows_first.append(_rows(client, first.name))
    rows_second.append(_rows(client, "people@best"))
    counts = [
        sum(1 for one in client.list_versions("people") if one.training_job == name) for name in (job.name, other.name)
    ]
    inside.settle()

    supervisor.section("delete")
    client.delete_version(first.name)
    gone = [_refusal(lambda: client.get_version(first.name))]
    rows_second.append(_rows(client, "people@best"))
    inside.settle()

    supervisor.section("end")
    client.delete_dataset("customers")
    gone.append(_refusal(lambda: client.get_dataset("customers")))
    inside.settle()
    assert list(objects(inside.data)) == []
    rows_second.append(_rows(client, second.name))
    aliases.append(_aliases(client.get_model("people")))
    # Nothing that was seen has changed, even now.
    assert events == list(client.watch(job.name, timeout=_PATIENCE_SECONDS))
    assert _attempts(inside, job.name) == events[-1].attempt
    facts = Facts(
        committed=committed,
        finished=(record.total_size, (record.sha256 or b"").hex()),
        table=table,
        first=_version_facts(first, counts[0], rows_first),
        second=_version_facts(second, counts[1], rows_second),
        aliases=tuple(aliases),
        gone=tuple(gone),
    )
    return facts, tuple(manifest["training"]["resumed_steps"])


def _watch(address: str, job: str) -> list[training_job_pb2.TrainingEvent]:
    with patient_client(address) as client:
        return list(client.watch(job, timeout=_PATIENCE_SECONDS))


def _published(client: Client, job: str) -> Any:
    ended = client.wait_job(job, _PATIENCE_SECONDS)
    return client.get_version(ended.model_version)


def _version_facts(version: Any, versions: int, rows: Sequence[str]) -> VersionFacts:
    training = json.loads(version.manifest_json)["training"]
    reported = {name: value for name, value in training.items() if name not in ("duration_seconds", "resumed_steps")}
    return VersionFacts(
        version.name, versions, version.model_digest.hex(), version.dataset_digest.hex(), reported, tuple(rows)
    )


def _rows(client: Client, version: str) -> str:
    """Return the SHA-256 of a stream's bytes."""
    with client.sample(version, SAMPLED, seed=11) as stream:
        return hashlib.sha256(b"".join(stream.chunks())).hexdigest()


def _aliases(model: Any) -> dict[str, int]:
    return dict(model.aliases)


def _refusal(call: Callable[[], object]) -> str:
    with pytest.raises(RowmintCallError) as caught:
        call()
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    return caught.value.message


def _attempts(inside: Inside, job: str) -> int:
    return inside.registry.jobs.get(TrainingJobName.parse(job)).attempt


def _as_csv(inside: Inside) -> bytes:
    """Return the READY table as the CSV that it came from."""
    key = inside.registry.datasets.get(DatasetName("default", "customers")).canonical_key
    assert key is not None
    table = pq.read_table(pa.BufferReader(inside.data.get(key)))
    lines = [",".join(table.column_names)]
    lines += [",".join(map(_cell, row.values())) for row in table.to_pylist()]
    return ("\n".join(lines) + "\n").encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
