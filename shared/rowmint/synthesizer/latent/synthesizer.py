"""What the synthesizers that run a network on Gaussian noise do alike."""

from collections.abc import Collection, Sequence

from rowmint.conditions import ColumnCondition, ColumnWeights
from rowmint.rng import TileKey
from rowmint.steps import Steps
from rowmint.synthesizer.interface import Completer, CompletionOptions, Proposal, refuse_weights
from rowmint.synthesizer.latent.completer import LatentCompleter, completion_bytes
from rowmint.synthesizer.latent.model import LatentModel
from rowmint.synthesizer.latent.proposal import LatentProposal


class LatentSynthesizer:
    """Draws and completes rows of a `LatentModel`; a family adds how it is loaded. Immutable.

    Args:
        model: Network, heads, and the family's condition vectors or noise scales.
    """

    def __init__(self, model: LatentModel) -> None:
        self.schema = model.schema
        self._model = model

    @property
    def memory_bytes(self) -> int:
        """About how much memory it takes once everything that is kept for requests has been made."""
        return self._model.memory_bytes

    def propose_steps(self, tests: Sequence[ColumnCondition], weights: ColumnWeights | None = None) -> Steps[Proposal]:
        """Compile the drawing of rows that satisfy `tests`, in one step."""
        refuse_weights(weights)
        yield
        return LatentProposal(self._model, tests, ())

    def completer(self, key: TileKey, options: CompletionOptions) -> Completer:
        """Draw the candidates that partial rows are completed from."""
        return LatentCompleter(self._model, key, options)

    def completion_bytes(self, known: Collection[str], candidates: int) -> int:
        """Return the most bytes that a completer takes for rows that know these columns."""
        return completion_bytes(self._model, known, candidates)
