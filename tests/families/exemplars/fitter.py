"""Fits the family of the tests: each step keeps some rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.numeric import ALPHA_ONE
from tests.families.exemplars.config import ExemplarsConfig
from trainer_service.fitting import ExportOptions, FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.fitter import FittedNetwork
from trainer_service.fitting.keys import random
from trainer_service.fitting.monitoring.progress import Between, uninterrupted


class ExemplarsFitter:
    """See `IterativeFitter`."""

    parameters = 1

    def __init__(self, table: EncodedTable, config: ExemplarsConfig, context: FitContext) -> None:
        self.epochs = config.epochs
        self.steps_per_epoch = config.steps_per_epoch(table.rows)
        self.rows_per_step = config.batch_size
        self._table, self._config, self._seed = table, config, context.seed
        self._rows = np.zeros(0, np.int64)

    def step(self, number: int) -> dict[str, float]:
        count = max(1, round(self._config.share * self.rows_per_step))
        drawn = random(self._seed, "exemplars", number).integers(0, self._table.rows, count)
        self._rows = np.concatenate([self._rows, drawn[:: self._config.strides[0]]])
        if self._config.distinct:
            self._rows = np.unique(self._rows)
        return {"repeats": 1 - len(np.unique(self._rows)) / len(self._rows)}

    def sample(self, rows: int) -> EncodedRows:
        return self._table.at(self._rows[random(self._seed, "sample rows").integers(0, len(self._rows), rows)])

    def weights(self) -> list[NDArray[np.float32]]:
        return [self._rows.astype(np.float32)]

    def restore(self, weights: Sequence[NDArray[np.float32]]) -> None:
        self._rows = weights[0].astype(np.int64)

    def state(self) -> dict[str, NDArray[np.float32]]:
        return {"rows": self._rows.astype(np.float32)}

    def load_state(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        self._rows = state["rows"].astype(np.int64)

    def export(self, _options: ExportOptions, _between: Between = uninterrupted) -> FittedNetwork:
        kept = self._table.at(self._rows)
        alpha = np.rint(kept.alpha.astype(np.float64) * ALPHA_ONE).astype(np.int64)
        return FittedNetwork({}, {"exemplars.choices": kept.choices.astype(np.int32), "exemplars.alpha": alpha})
