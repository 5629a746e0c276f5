"""How well synthetic rows pass for real ones, and how near they lie to the rows that a model was fitted to."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainer_service.fitting.monitoring.two_sample import ComparedColumn, two_sample

_CHUNK = 512  # rows whose distances are held at once


def c2st(real: pd.DataFrame, synthetic: pd.DataFrame) -> dict[str, float]:
    """Area under the ROC curve of a classifier of real and synthetic rows, on rows it did not learn on, and its error.

    The trainer's own test of candidates: histogram gradient boosting, five folds, as many rows of either kind.
    """
    rows = min(len(real), len(synthetic))
    names = list(real.columns)
    score = two_sample(compared(real[:rows]), compared(synthetic[names][:rows]), seed=0)
    return {"c2st": score.auc, "c2st_error": score.standard_error}


def compared(table: pd.DataFrame) -> dict[str, ComparedColumn]:
    return {
        str(name): cells.to_numpy(np.float64) if pd.api.types.is_numeric_dtype(cells) else cells.astype(str).tolist()
        for name, cells in table.items()
    }


def closeness(train: pd.DataFrame, holdout: pd.DataFrame, synthetic: pd.DataFrame) -> dict[str, float]:
    """How near synthetic rows lie to training rows, and to as many rows that the fit never saw.

    The distance of two rows is Gower's: the mean over columns of 1 where categories differ, and of numbers' difference
    in standard deviations, at most 1.

    Args:
        train: Training rows; as many as there are hold-out rows are taken, at random.
        holdout: Rows that took no part in the fit.
        synthetic: As many rows as there are hold-out rows are taken, the first.

    Returns:
        `nearer`: share of synthetic rows nearer to a training row than to any hold-out row; one as near to both counts
        half. `nearer_error`: its standard error; synthetic rows with the same nearest row say the same, and count as
        one group. `distance`, `holdout_distance`: median distance to the nearest training row, of synthetic and of
        hold-out rows.
    """
    rows = min(len(train), len(holdout))
    sample, holdout = train.sample(rows, random_state=0), holdout[:rows]
    space = _Space(train)
    known, unseen, made = space.points(sample), space.points(holdout), space.points(synthetic[:rows])
    to_known, nearest_known = _nearest(made, known)
    to_unseen, nearest_unseen = _nearest(made, unseen)
    nearer = np.where(to_known == to_unseen, 0.5, to_known < to_unseen)
    groups = np.where(to_known <= to_unseen, nearest_known, rows + nearest_unseen)
    sums = np.bincount(groups, weights=nearer - nearer.mean())
    return {
        "nearer": float(nearer.mean()),
        "nearer_error": float(np.sqrt(np.square(sums).sum()) / len(nearer)),
        "distance": float(np.median(to_known)),
        "holdout_distance": float(np.median(_nearest(unseen, known)[0])),
    }


class _Space:
    """Rows as points whose distance in steps along the axes is Gower's.

    Args:
        train: The rows whose standard deviations are the unit of numbers.
    """

    def __init__(self, train: pd.DataFrame) -> None:
        self._units = {
            str(name): float(cells.std()) or 1.0
            for name, cells in train.items()
            if pd.api.types.is_numeric_dtype(cells)
        }
        self._codes: dict[str, dict[str, int]] = {str(name): {} for name in train if str(name) not in self._units}

    def points(self, table: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return numbers in units, shape (n, numbers), and codes of categories, shape (n, categories)."""
        numbers = [table[name].to_numpy(np.float64) / unit for name, unit in self._units.items()]
        codes = [
            np.array([known.setdefault(cell, len(known)) for cell in table[name].astype(str)], np.int32)
            for name, known in self._codes.items()
        ]
        shape = len(table), -1
        return np.array(numbers, np.float32).T.reshape(shape), np.array(codes, np.int32).T.reshape(shape)


def _nearest(rows: Any, others: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the distance of each row to the nearest of the others, and which that is, shape (n,) each."""
    (numbers, codes), (other_numbers, other_codes) = rows, others
    columns = numbers.shape[1] + codes.shape[1]
    distances, places = [], []
    for start in range(0, len(numbers), _CHUNK):
        part = slice(start, start + _CHUNK)
        total = np.zeros((len(numbers[part]), len(other_numbers)), np.float32)
        for column in range(numbers.shape[1]):
            apart = np.abs(numbers[part, column, None] - other_numbers[None, :, column])
            total += np.minimum(apart, 1, out=apart)
        for column in range(codes.shape[1]):
            total += codes[part, column, None] != other_codes[None, :, column]
        places.append(total.argmin(axis=1))
        distances.append(total.min(axis=1) / columns)
    return np.concatenate(distances), np.concatenate(places)
