"""The likelihood of rows kept out of training, under models whose family has an exact one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rowmint.artifact import Model
from rowmint.errors import InvalidConditionError, ValueNotFoundError
from rowmint.sampling.known_cells import KnownCells
from rowmint.schema import Cell
from rowmint.schema.arrays import column_cells, is_coded
from rowmint.steps import finish
from rowmint.synthesizer import LikelihoodSynthesizer
from trainer_service.fitting.encoding.table import coded, ordered
from trainer_service.fitting.monitoring.progress import Cancelled

IMPOSSIBLE = -1000.0
"""What a row counts that the model never makes, nats; in a mean, few of them outweigh any difference of the others."""
_BATCH = 1024  # rows scored at once


@dataclass(frozen=True)
class HeldOutLikelihood:
    """How probable rows are under a model.

    Attributes:
        mean: Mean of the logarithms of their probabilities, nats; a row that the model never makes counts as
            `IMPOSSIBLE`, and none as less.
        impossible: Rows that it never makes.
    """

    mean: float
    impossible: int


def held_out_likelihood(model: Model, rows: pa.Table, cancelled: Cancelled = lambda: False) -> HeldOutLikelihood | None:
    """Return how probable rows are under a model; None where its family has no exact likelihood.

    Args:
        model: The model.
        rows: Rows of the canonical table, at least one, in the columns of the model; ids are left out.
        cancelled: Called between pieces of work.

    Raises:
        CancelledError: `cancelled` was true.
    """
    synthesizer = model.synthesizer
    if not model.capabilities.likelihood or not isinstance(synthesizer, LikelihoodSynthesizer):
        return None
    known, scorer = KnownCells(model.schema), synthesizer.scorer(cancelled)
    total, impossible = 0.0, 0
    for start in range(0, rows.num_rows, _BATCH):
        batch = rows.slice(start, _BATCH)
        possible = []
        for row, cells in enumerate(_rows(model, batch)):
            try:
                possible.extend(known.checked(start + row, [cells]))
            except (ValueNotFoundError, InvalidConditionError):  # a value that no training row had
                impossible += 1
        scores = finish(scorer.score(possible))
        impossible += int(scores.impossible.sum())
        total += float(np.maximum(scores.log_probability[~scores.impossible], IMPOSSIBLE).sum())
    return HeldOutLikelihood((total + impossible * IMPOSSIBLE) / rows.num_rows, impossible)


def _rows(model: Model, batch: pa.Table) -> Iterator[Mapping[str, Cell]]:
    """Yield the cells of each row by column, ids left out."""
    columns: dict[str, list[Cell]] = {}
    for column in model.schema.columns:
        if column.name in model.identities:
            continue
        cells = batch.column(column.name).combine_chunks()
        found = coded(cells, column).to_pylist() if is_coded(column) else column_cells(ordered(cells, column), column)
        columns[column.name] = found
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))
