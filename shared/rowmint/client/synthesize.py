"""From a file to synthetic rows in one call."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from rowmint.client.byte_sources import Uploadable
from rowmint.client.client import Client
from rowmint.client.datasets import UploadProgress
from rowmint.client.families import DEFAULT_FAMILY
from rowmint.client.table_ids import id_from_name
from rowmint.client.training import training_config
from rowmint.client.weights import Weights
from rowmint.client.where import Conditions
from rowmint.errors import InvalidFieldError
from rowmint.v1 import training_job_pb2

if TYPE_CHECKING:
    import pyarrow as pa


def synthesize(
    data: Uploadable,
    rows: int,
    *,
    where: Conditions = None,
    weights: Weights = None,
    family: str = DEFAULT_FAMILY,
    seed: int | None = None,
    model: str | None = None,
    client: Client | None = None,
    upload_progress: UploadProgress | None = None,
    on_event: Callable[[training_job_pb2.TrainingEvent], None] | None = None,
    **hyperparameters: object,
) -> "pa.Table":
    """Upload a table, unless it was uploaded before, fit a model to it, and return synthetic rows.

    Args:
        data: A file, whose suffix says its format; or a data frame or an Arrow table.
        rows: Number of rows.
        where: Conditions that each row satisfies; see `rowmint.client.where`.
        weights: Shares that values of one column have among the rows; see `rowmint.client.weights`.
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
        InvalidFieldError: No model is named, and there is no file to name it after.
        OSError: The file cannot be read.
    """
    if client is None:
        with Client() as own:
            return synthesize(
                data,
                rows,
                where=where,
                weights=weights,
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
    if model is None:
        if not isinstance(data, str | os.PathLike):
            raise InvalidFieldError("model", "is required where the table comes from no file")
        model = id_from_name(data)
    name = data if isinstance(data, str | os.PathLike) else model
    dataset = client.upload_once(data, name, progress=upload_progress)
    job = client.train(dataset, model, training_config(family, hyperparameters))
    job = client.wait_job(job, on_event=on_event)
    with client.sample(job.model_version, rows, where=where, weights=weights, seed=seed) as stream:
        return stream.to_table()
