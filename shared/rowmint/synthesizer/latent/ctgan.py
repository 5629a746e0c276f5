"""CTGAN's generator, forward only (arXiv:1907.00503, section 4.4).

    h0 = z + cond
    h1 = h0 + ReLU(BN(FC(h0)))          (+ concatenates)
    h2 = h1 + ReLU(BN(FC(h1)))
    alpha_i = tanh(FC(h2)), beta_i, d_i = gumbel(FC(h2))

NOTE[DIFF]: the condition is drawn by true frequencies, each discrete column as often as the others, where training
draws by log-frequencies: rows that nobody put conditions on have the categories' true frequencies (test in
tests/acceptance). NOTE[DIFF]: the asked column is set to the asked slot. The generator is trained to produce it
(cross-entropy term of the loss) but only nearly always does; setting it makes condition and row agree.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import entry
from rowmint.conditions import ColumnCondition
from rowmint.errors import DataLossError
from rowmint.schema import TableSchema
from rowmint.synthesizer.exact.kernels import Kernel
from rowmint.synthesizer.exact.network import load_network
from rowmint.synthesizer.interface import ConditionSupport
from rowmint.synthesizer.latent.heads import ColumnHead
from rowmint.synthesizer.latent.model import Drivers, LatentModel
from rowmint.synthesizer.latent.synthesizer import LatentSynthesizer


class CtganSynthesizer(LatentSynthesizer):
    """CTGAN's generator. Immutable, thread-safe.

    Args:
        model: Network, heads and drivers.
    """

    support = ConditionSupport.ONE_CATEGORY

    @classmethod
    def load(
        cls,
        schema: TableSchema,
        heads: dict[str, ColumnHead],
        body: Mapping[str, Any],
        arrays: Mapping[str, NDArray[np.generic]],
        kernel: Kernel,
    ) -> "CtganSynthesizer":
        """Return the generator from the manifest's ``network`` entry and the weights."""
        drivers = None
        parts = {"column": (np.int32, np.int64), "slot": (np.int32, np.int64), "weights": (np.uint64,)}
        if any(f"drivers.{part}" in arrays for part in parts):
            try:
                column, slot, weights = (
                    entry.array(arrays, f"drivers.{part}", *types) for part, types in parts.items()
                )
            except KeyError as error:
                raise DataLossError(f"the model's weights lack {error.args[0]!r}") from error
            except ValueError as error:
                raise DataLossError(f"the model's condition vectors are malformed: {error}") from error
            drivers = Drivers(column.astype(np.intp), slot.astype(np.intp), weights.astype(np.uint64))
        conditions = 0 if drivers is None else len(drivers.slot)
        network = load_network(body, arrays, concatenate=True, conditions=conditions, kernel=kernel)
        return cls(LatentModel(schema, heads, network, drivers, {}))

    def conditioned_column(self, conditions: Sequence[ColumnCondition]) -> str:
        """Return the first tested column that a condition vector can ask for, or an empty string."""
        drivers = self._model.drivers
        asked = set() if drivers is None else set(drivers.column.tolist())
        return next((test.column for test in conditions if self._model.heads[test.column].index in asked), "")
