"""CTGAN's generator, forward only (arXiv:1907.00503, section 4.4).

    h0 = z + cond
    h1 = h0 + ReLU(BN(FC(h0)))          (+ concatenates)
    h2 = h1 + ReLU(BN(FC(h1)))
    alpha_i = tanh(FC(h2)), beta_i, d_i = gumbel(FC(h2))

NOTE[DIFF]: the condition vector is drawn by true frequencies, each discrete column as often as the others, where
training draws by log-frequencies: unconditional rows have the categories' true frequencies (test in tests/acceptance).
NOTE[DIFF]: the conditioned column is clamped to the choice its condition vector sets. The generator is trained to
produce it (cross-entropy term of the loss) but only nearly always does; clamping makes condition vector and row agree.
"""

from collections.abc import Sequence

import numpy as np

from rowmint.codecs import entry
from rowmint.conditions import ColumnCondition
from rowmint.errors import DataLossError
from rowmint.synthesizer.exact.network import load_network
from rowmint.synthesizer.interface import Capabilities
from rowmint.synthesizer.latent.condition_vectors import ConditionVectors
from rowmint.synthesizer.latent.model import LatentModel
from rowmint.synthesizer.latent.synthesizer import LatentSynthesizer
from rowmint.synthesizer.parts import ModelParts


class CtganSynthesizer(LatentSynthesizer):
    """CTGAN's generator. Immutable, thread-safe.

    Args:
        model: Network, heads and condition vectors.
    """

    capabilities = Capabilities()

    @classmethod
    def load(cls, parts: ModelParts) -> "CtganSynthesizer":
        """Return the generator of a model's parts.

        Raises:
            DataLossError: They do not make one.
        """
        vectors = _condition_vectors(parts)
        conditions = 0 if vectors is None else len(vectors.choice)
        network = load_network(
            parts.network, parts.arrays, concatenate=True, conditions=conditions, kernel=parts.kernel
        )
        return cls(LatentModel(parts.schema, parts.heads, network, vectors, {}))

    def conditioned_column(self, tests: Sequence[ColumnCondition]) -> str:
        """Return the first tested column that there are condition vectors on, or an empty string."""
        vectors = self._model.vectors
        driven = set() if vectors is None else set(vectors.column.tolist())
        return next((test.column for test in tests if self._model.heads[test.column].index in driven), "")


def _condition_vectors(parts: ModelParts) -> ConditionVectors | None:
    names = {"column": (np.int32, np.int64), "slot": (np.int32, np.int64), "weights": (np.uint64,)}
    if not any(f"drivers.{name}" in parts.arrays for name in names):
        return None
    try:
        column, choice, weights = (
            entry.array(parts.arrays, f"drivers.{name}", *types) for name, types in names.items()
        )
    except KeyError as error:
        raise DataLossError(f"the model's weights lack {error.args[0]!r}") from error
    except ValueError as error:
        raise DataLossError(f"the model's condition vectors are malformed: {error}") from error
    return ConditionVectors(column.astype(np.intp), choice.astype(np.intp), weights.astype(np.uint64))
