"""The independent family: the frequency of each slot of each column. Nothing is iterated."""

from rowmint.codecs.category import integer_weights
from trainer_service.fitting.encode import EncodedTable
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

    def export(self) -> FittedNetwork:
        """Return the slots' frequencies as integer weights, by position in the schema."""
        heads = [index for index, column in enumerate(self._table.fitted) if column.encoder is not None]
        counts = zip(heads, self._table.counts, strict=True)
        return FittedNetwork({}, {f"slots.{index}": integer_weights(count.astype(float)) for index, count in counts})
