"""From a file to synthetic rows in one call."""

import os
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING

from rowmint.client.client import Client
from rowmint.client.datasets import UploadProgress
from rowmint.client.families import DEFAULT_FAMILY
from rowmint.client.training import training_config
from rowmint.client.where import Conditions
from rowmint.v1 import training_job_pb2

if TYPE_CHECKING:
    import pyarrow as pa


def id_from_name(path: str | os.PathLike[str]) -> str:
    """Return an id made of a file's name: in lower case, with hyphens for all but letters and digits."""
    stem = PurePath(path).name.partition(".")[0]
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return (slug if slug[:1].isalpha() else f"data-{slug}".rstrip("-"))[:63].rstrip("-")


def synthesize(
    path: str | os.PathLike[str],
    rows: int,
    *,
    where: Conditions = None,
    family: str = DEFAULT_FAMILY,
    seed: int | None = None,
    model: str | None = None,
    client: Client | None = None,
    upload_progress: UploadProgress | None = None,
    on_event: Callable[[training_job_pb2.TrainingEvent], None] | None = None,
    **hyperparameters: object,
) -> "pa.Table":
    """Upload a file, fit a model to it, and return synthetic rows.

    Args:
        path: A CSV, TSV, JSON, NDJSON, Parquet or Arrow stream file; its suffix says which.
        rows: Number of rows.
        where: Conditions that each row satisfies; see `rowmint.client.where`.
        family: Name of the family, one of `rowmint.client.families.family_names()`.
        seed: Seed of the fit and of the rows; None for drawn ones.
        model: Id of the model that gets a new version; None for one made of the file's name.
        client: The client; None for one made by `Client()`, from the environment.
        upload_progress: Called with bytes sent and bytes in all.
        on_event: Called with each event of the fit.
        **hyperparameters: Hyper-parameters by name, such as `epochs=10`.

    Returns:
        A table of `rows` rows.

    Raises:
        RowmintCallError: A service refused, or was not reachable.
        RowmintError: The file is not a valid table, the fit failed, or a condition cannot be read.
        OSError: The file cannot be read.
    """
    if client is None:
        with Client() as own:
            return synthesize(
                path,
                rows,
                where=where,
                family=family,
                seed=seed,
                model=model,
                client=own,
                upload_progress=upload_progress,
                on_event=on_event,
                **hyperparameters,
            )
    if seed is not None:
        hyperparameters = {"seed": seed, **hyperparameters}
    dataset = client.upload(path, progress=upload_progress)
    name = id_from_name(path) if model is None else model
    job = client.train(dataset, name, training_config(family, hyperparameters))
    job = client.wait_job(job, on_event=on_event)
    with client.sample(job.model_version, rows, where=where, seed=seed) as stream:
        return stream.to_table()
