"""The calls that are given rows: how fast rows are completed and scored, and what scores predict."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from rowmint.client import Client
from rowmint.v1 import model_pb2, schema_pb2
from tests.benchmarks.adult import TARGET

COMPLETED = {True: 20_000, False: 1_000}
"""Rows to complete, by whether the family has exact probabilities: others compare candidates, and take longer."""

_NEVER = -1e6  # nats, below any row's that is possible

Row = dict[str, object]


def completion_rate(client: Client, version: model_pb2.ModelVersion, table: pd.DataFrame) -> float:
    """Rows a second of CompleteRows with all cells known but one, each column's in turn; the median of three."""
    rows = COMPLETED[version.capabilities.likelihood]
    known = _possible(table, version)[:rows]
    names = list(table.columns)
    partial: list[Row] = [
        {name: cell for name, cell in row.items() if name != names[number % len(names)]}
        for number, row in enumerate(known)
    ]
    for _ in client.complete_rows(version, partial[:100], seed=0):
        pass
    return statistics.median(_completed(client, version, partial, seed) for seed in (1, 2, 3))


def _completed(client: Client, version: model_pb2.ModelVersion, partial: Sequence[Row], seed: int) -> float:
    began = time.perf_counter()
    delivered = sum(1 for _ in client.complete_rows(version, partial, seed=seed))
    return _rate(delivered, len(partial), began)


def scores(client: Client, version: model_pb2.ModelVersion, test: pd.DataFrame) -> dict[str, Any]:
    """What ScoreRows says of rows that took no part in the fit: their likelihood, and the target given the rest.

    Returns:
        `score_rate`: rows a second; `log_likelihood`: the mean, nats, of the rows that the model can make;
        `impossible`: the share of the others; `predicted_auc`, `predicted_f1`: of P(target | rest), the two scores of
        each row with either value beside each other.
    """
    from sklearn.metrics import f1_score, roc_auc_score

    positive, negative = max(test[TARGET].unique()), min(test[TARGET].unique())
    rows = _possible(test, version)
    truth = np.array([row[TARGET] == positive for row in rows])
    both: list[Row] = [{**row, TARGET: value} for value in (negative, positive) for row in rows]
    for _ in client.score_rows(version, both[:100]):
        pass
    began = time.perf_counter()
    found = np.array([score.log_probability for score in client.score_rows(version, both)])
    rate = _rate(len(found), len(both), began)
    without, having = found.reshape(2, -1)
    own = np.where(truth, having, without)
    possible = np.isfinite(own)
    # A row that the model makes with neither value says nothing of the target: its odds are even.
    odds = np.maximum(having, _NEVER) - np.maximum(without, _NEVER)
    return {
        "score_rate": rate,
        "log_likelihood": float(own[possible].mean()),
        "impossible": float(1 - possible.sum() / len(test)),
        "predicted_auc": float(roc_auc_score(truth, odds)),
        "predicted_f1": float(f1_score(truth, odds > 0)),
    }


def _rate(delivered: int, requested: int, began: float) -> float:
    seconds = time.perf_counter() - began
    if delivered != requested:
        raise RuntimeError(f"{delivered} of {requested} rows were delivered")
    return delivered / seconds


def _possible(table: pd.DataFrame, version: model_pb2.ModelVersion) -> list[Row]:
    """Return the rows all of whose categories the model knows; a row with another is refused."""
    kept = pd.Series(data=True, index=table.index)
    for column in version.schema.columns:
        if column.data_type == schema_pb2.DATA_TYPE_STRING:
            kept &= table[column.name].isin([value.string_value for value in column.domain.categories])
    found: list[Row] = table[kept].to_dict("records")
    return found
