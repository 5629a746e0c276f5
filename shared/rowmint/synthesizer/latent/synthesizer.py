"""What the synthesizers that run a network on Gaussian noise do alike."""

from collections.abc import Sequence

from rowmint.conditions import ColumnCondition
from rowmint.rng import TileKey
from rowmint.synthesizer.interface import Completer, TileQuery
from rowmint.synthesizer.latent.completer import LatentCompleter
from rowmint.synthesizer.latent.model import LatentModel, LatentQuery


class LatentSynthesizer:
    """Draws and completes rows of a `LatentModel`; a family adds how it is loaded and what drives it. Immutable.

    Args:
        model: Network, heads, and the family's drivers or spreads.
    """

    def __init__(self, model: LatentModel) -> None:
        self.schema = model.schema
        self._model = model

    def query(self, conditions: Sequence[ColumnCondition], columns: Sequence[str]) -> TileQuery:
        """Make ready to draw `columns` of rows that satisfy `conditions`."""
        return LatentQuery(self._model, conditions, columns)

    def completer(self, key: TileKey, candidates: int, tolerance: float) -> Completer:
        """Draw the candidates that partial rows are completed from."""
        return LatentCompleter(self._model, key, candidates, tolerance)
