"""A home folder in which the golden models are published, so that a sampler can be tried without a trainer."""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import insert, select, update

from rowmint.client import Client
from rowmint.objects import open_store
from rowmint.registry import VersionState, migrate, open_registry
from rowmint.registry.tables import model_aliases, model_versions, models, staged_versions
from rowmint.v1 import sampling_pb2
from tests.golden.make import FAMILIES, stored
from tests.golden.streams import PROJECT, record

GRID = 2048
"""Rows of a grid cell of the golden models."""
NO_TRAINER = "127.0.0.1:1"
"""The trainer's address of a client that calls samplers only."""
_WHERE = {"age": (20, None), "flag": [True, None]}


def publish_golden(home: Path) -> None:
    """Put the golden models into the embedded default's registry and store below `home`."""
    publish_files(home, {family: stored(family) for family in FAMILIES})


def publish_files(home: Path, files: Mapping[str, tuple[bytes, bytes]]) -> None:
    """Put models into the embedded default's registry and store below `home`: manifest and weights by model."""
    registry = open_registry(f"sqlite:///{home}/registry")
    migrate(registry.engine)
    store = open_store(f"file://{home}/models", {})
    for model, (manifest, weights) in files.items():
        made = record(model, manifest, weights)
        store.put(made.manifest_key, manifest)
        store.put(made.weights_key, weights)
        row = {name: getattr(made, name) for name in model_versions.c.keys() if hasattr(made, name)}  # noqa: SIM118
        row |= {"schema": made.schema.to_json(), "create_time": 0, "job_uid": model, "version": 1, "model_uid": model}
        own = {"uid": model, "project": PROJECT, "model_id": model, "last_version": 1, "create_time": 0}
        with registry.engine.begin() as connection:
            connection.execute(insert(models).values(own))
            connection.execute(insert(model_versions).values(row))
            connection.execute(insert(model_aliases).values(model_uid=model, alias="latest", version=1))
    registry.close()


def stage_golden(home: Path, family: str) -> None:
    """Stage the files of a golden model, which is published there as version 1, as version 2."""
    registry = open_registry(f"sqlite:///{home}/registry")
    with registry.engine.begin() as connection:
        published = select(model_versions).where(model_versions.c.model_uid == family)
        row = connection.execute(published).one()._asdict()
        row |= {"version": 2, "job_uid": f"{family}-staged", "state": VersionState.STAGED, "rejection_reason": ""}
        connection.execute(insert(staged_versions).values(row))
        connection.execute(update(models).where(models.c.uid == family).values(last_version=2))
    registry.close()


def golden_version(family: str, number: int = 1) -> str:
    return f"projects/{PROJECT}/models/{family}/versions/{number}"


def golden_request(address: str, rows: int, form: str = "arrow") -> sampling_pb2.SampleRequest:
    """Return the request of a stream of every column, under conditions that most candidates satisfy.

    A row has about 130 bytes. Messages are small, so that a stream is soon in its middle.
    """
    with Client(NO_TRAINER, address) as client:
        version = client.get_version(golden_version("ctgan"))
        return client.sample_request(version, rows, where=_WHERE, seed=3, format=form, message_bytes=16 * 1024)
