"""The independent family: the frequency of each slot of each column. Nothing is iterated."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.category import integer_weights
from trainer_service.fitting.encoding.encode import Codes, EncodedTable
from trainer_service.fitting.fitter import FittedNetwork


class IndependentFitter:
    """The marginals of the training rows; see `Fitter`."""

    epochs = 0
    steps_per_epoch = 0
    rows_per_step = 0
    parameters = 0

    def __init__(self, table: EncodedTable) -> None:
        self._table = table

    def step(self, number: int) -> dict[str, float]:
        """Do nothing: there are no steps."""
        return {}

    def sample(self, rows: int) -> Codes:
        """Refuse: there is nothing to probe."""
        raise NotImplementedError("the independent family is not iterated")

    def weights(self) -> list[NDArray[np.float32]]:
        """Return nothing: there are no weights."""
        return []

    def restore(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """Do nothing."""

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Return nothing: there are no steps."""
        return {}

    def load_state(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Do nothing."""

    def export(self) -> FittedNetwork:
        """Return the slots' frequencies as integer weights, by position in the schema."""
        heads = [index for index, column in enumerate(self._table.fitted) if column.encoder is not None]
        counts = zip(heads, self._table.counts, strict=True)
        return FittedNetwork({}, {f"slots.{index}": integer_weights(count.astype(float)) for index, count in counts})
