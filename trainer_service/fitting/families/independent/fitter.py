"""The independent family: the frequency of each choice of each column. Nothing is iterated."""

from rowmint.codecs.category import integer_weights
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families.independent.config import IndependentConfig
from trainer_service.fitting.fitter import FittedNetwork
from trainer_service.fitting.monitoring.progress import Between, uninterrupted
from trainer_service.fitting.options import ExportOptions


class IndependentFitter:
    """The marginals of the training rows, which encoding has counted; see `Fitter`."""

    parameters = 0

    def __init__(self, table: EncodedTable, _config: IndependentConfig, _context: FitContext) -> None:
        self._table = table

    def export(self, _options: ExportOptions, _between: Between = uninterrupted) -> FittedNetwork:
        """Return the choices' frequencies as integer weights, by position in the schema."""
        heads = [index for index, column in enumerate(self._table.fitted) if column.encoder is not None]
        counts = zip(heads, self._table.counts, strict=True)
        return FittedNetwork({}, {f"slots.{index}": integer_weights(count.astype(float)) for index, count in counts})
