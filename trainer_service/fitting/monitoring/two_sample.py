"""Whether a classifier can tell made rows from real ones: a classifier two-sample test (arXiv:1610.06545).

Real rows that took no part in training and as many made rows are mixed; a classifier learns on some of them to tell
which is which and is judged on the others. An area under its ROC curve of 0.5 is ideal, 1 means that every row betrays
what it is. Unlike scores of single columns and pairs it sees all that the columns are to each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rowmint.artifact import Model
from rowmint.errors import CancelledError
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema import Cell, ColumnSpec
from rowmint.schema.arrays import ColumnArray, column_cells, concatenate, is_coded
from trainer_service.fitting.encoding.table import coded, ordered
from trainer_service.fitting.keys import random
from trainer_service.fitting.monitoring.progress import Cancelled

_FOLDS = 5
_BINS = 255  # the most that the classifier takes, of numbers and of categories
_ROUNDS = 100
_FEATURES = 1_000  # columns times rounds of the classifier between two looks at whether to go on

ComparedColumn = NDArray[np.float64] | Sequence[Cell]
"""Cells of an ordered column as numbers, NaN where missing; those of any other as they are."""


@dataclass(frozen=True)
class TwoSampleScore:
    """How well a classifier tells real rows from made ones.

    Attributes:
        auc: Area under the ROC curve on rows that the classifier did not learn on, 0 to 1; 0.5 where it cannot tell.
        standard_error: Of the area, as these rows and those that the classifier learned on are a sample.
        rows: Real rows, and as many made ones.
    """

    auc: float
    standard_error: float
    rows: int


def two_sample(
    real: Mapping[str, ComparedColumn],
    made: Mapping[str, ComparedColumn],
    *,
    seed: int,
    cancelled: Cancelled = lambda: False,
) -> TwoSampleScore:
    """Return how well a gradient-boosted classifier tells `real` from `made`; a function of these and the seed.

    Args:
        real: Real rows by column, n cells each, 10 or more.
        made: As many made rows in the same columns.
        seed: Seed that deals the rows to the parts that are judged in turn, 0 to 2**64 - 1.
        cancelled: Called before each part and between rounds of the classifier.

    Raises:
        CancelledError: `cancelled` was true.
    """
    # Imported here: no other fit needs it, and it takes a second.
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    features, categorical = _features(real, made)
    rows = len(features) // 2
    is_real = np.repeat([True, False], rows)
    draws = random(seed, "two-sample")
    part = np.concatenate([draws.permutation(rows) % _FOLDS for _ in range(2)])
    areas, variances = [], []
    # Sums in threads would depend on how many there are.
    with threadpool_limits(1):
        for fold in range(_FOLDS):
            judged = part == fold
            classifier = HistGradientBoostingClassifier(
                max_bins=_BINS, categorical_features=categorical, early_stopping=False, random_state=0, warm_start=True
            )
            # In slices, each resuming from the one before: of many columns and rows all rounds take long.
            some = min(max(_FEATURES // len(categorical), 1), _ROUNDS)
            for rounds in (*range(some, _ROUNDS, some), _ROUNDS):
                if cancelled():
                    raise CancelledError("the fit was cancelled while its rows were judged")
                classifier.set_params(max_iter=rounds).fit(features[~judged], is_real[~judged])
            scores = classifier.predict_proba(features[judged])[:, 1]
            area, variance = auc_and_variance(scores[is_real[judged]], scores[~is_real[judged]])
            areas.append(area)
            variances.append(variance)
    # Of five areas the mean would have a fifth of their variance, but classifiers share rows that they learn on: in
    # place of 1/k it is 1/k + judged/learned (Nadeau and Bengio 2003).
    share = 1 / _FOLDS + 1 / (_FOLDS - 1)
    return TwoSampleScore(float(np.mean(areas)), sqrt(share * float(np.mean(variances))), rows)


def auc_and_variance(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> tuple[float, float]:
    """Return the area under the ROC curve and its variance (DeLong, DeLong and Clarke-Pearson 1988).

    Args:
        positive: Scores of the members of the class, shape (m,), at least 2.
        negative: Scores of the others, shape (n,), at least 2.
    """
    ranks = _midranks(np.concatenate([positive, negative]))
    above = (ranks[: len(positive)] - _midranks(positive)) / len(negative)
    below = 1 - (ranks[len(positive) :] - _midranks(negative)) / len(positive)
    variance = np.var(above, ddof=1) / len(positive) + np.var(below, ddof=1) / len(negative)
    return float(above.mean()), float(variance)


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks from 1, equal values at the mean of theirs, shape (n,)."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _features(
    real: Mapping[str, ComparedColumn], made: Mapping[str, ComparedColumn]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return all rows, the real ones first, shape (2n, c), and which columns hold categories, shape (c,)."""
    columns = []
    for name, cells in real.items():
        others = made[name]
        numbers = isinstance(cells, np.ndarray) and isinstance(others, np.ndarray)
        columns.append(_ranks(np.concatenate([cells, others])) if numbers else _codes([*cells, *others]))
    return np.stack(columns, axis=1), np.array([not isinstance(cells, np.ndarray) for cells in real.values()])


def _ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the places of numbers among the different ones, shape (n,); missing ones come last.

    A tree sees no more of a number, and the classifier bears no column without one.
    """
    _, places = np.unique(numbers, return_inverse=True)
    return places.astype(np.float64)


def _codes(cells: Sequence[Cell]) -> NDArray[np.float64]:
    """Return a code for each cell, shape (n,); values beyond what the classifier takes, the rarest, share one."""
    counts: dict[Cell, int] = {}
    for cell in cells:
        counts[cell] = counts.get(cell, 0) + 1
    commonest = sorted(counts, key=lambda cell: -counts[cell])  # stable: of values as common the first comes first
    codes = {cell: min(code, _BINS - 1) for code, cell in enumerate(commonest)}
    return np.array([codes[cell] for cell in cells], np.float64)


def real_columns(rows: pa.Table, columns: Sequence[ColumnSpec]) -> dict[str, ComparedColumn]:
    """Return rows of the canonical table as they are compared; `columns` are those compared, of kind and type known."""
    found: dict[str, ComparedColumn] = {}
    for column in columns:
        cells = rows.column(column.name).combine_chunks()
        found[column.name] = coded(cells, column).to_pylist() if is_coded(column) else _numbers(ordered(cells, column))
    return found


def made_columns(model: Model, rows: int, seed: int) -> dict[str, ComparedColumn]:
    """Return the first rows that a sampler would make of a model with this seed, as they are compared; ids left out."""
    columns = [column for column in model.schema.columns if column.name not in model.identities]
    plan = compile_plan(model.digest, model.synthesizer, ())
    source = RowSource(model, plan, seed, [column.name for column in columns])
    starts = range(0, rows, plan.block_size)
    blocks = [source.block(number, min(plan.block_size, rows - start)) for number, start in enumerate(starts)]
    found: dict[str, ComparedColumn] = {}
    for column in columns:
        cells = concatenate([block.columns[column.name] for block in blocks])
        found[column.name] = column_cells(cells, column) if is_coded(column) else _numbers(cells)
    return found


def _numbers(cells: ColumnArray) -> NDArray[np.float64]:
    numbers = cells.values.astype(np.float64)
    numbers[cells.missing()] = np.nan
    return numbers
