"""TVAE's decoder, forward only (arXiv:1907.00503, section 4.4).

z ~ N(0, 1),  h1 = ReLU(FC(z)),  h2 = ReLU(FC(h1))
alpha_i ~ N(tanh(FC(h2)), delta_i),  beta_i, d_i ~ softmax(FC(h2))
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.conditions import ColumnCondition
from rowmint.errors import DataLossError
from rowmint.schema import TableSchema
from rowmint.synthesizer.exact.kernels import Kernel
from rowmint.synthesizer.exact.network import load_network
from rowmint.synthesizer.interface import ConditionSupport
from rowmint.synthesizer.latent.heads import ColumnHead
from rowmint.synthesizer.latent.model import LatentModel
from rowmint.synthesizer.latent.synthesizer import LatentSynthesizer

_MAX_SPREAD = 1 << 40  # times the greatest deviate it stays far below 2**63; a spread of 1 is 2**23


class TvaeSynthesizer(LatentSynthesizer):
    """TVAE's decoder. Immutable, thread-safe.

    Args:
        model: Network, heads and spreads.
    """

    support = ConditionSupport.NONE

    @classmethod
    def load(
        cls,
        schema: TableSchema,
        heads: dict[str, ColumnHead],
        body: Mapping[str, Any],
        arrays: Mapping[str, NDArray[np.generic]],
        kernel: Kernel,
    ) -> "TvaeSynthesizer":
        """Return the decoder from the manifest's ``network`` entry and the weights."""
        network = load_network(body, arrays, concatenate=False, conditions=0, kernel=kernel)
        scalars = [head for head in heads.values() if head.codec.scalar]
        spread: NDArray[Any] = arrays.get("spread", np.zeros(0, np.int64))
        if spread.dtype != np.int64 or spread.shape != (len(scalars),):
            raise DataLossError(f"the model has {len(scalars)} scalars and {spread.dtype} spreads of {spread.shape}")
        if not ((spread >= 0) & (spread <= _MAX_SPREAD)).all():
            raise DataLossError("a spread of the model is negative or beyond every scalar")
        spreads = {head.column.name: int(value) for head, value in zip(scalars, spread, strict=True)}
        return cls(LatentModel(schema, heads, network, None, spreads))

    def conditioned_column(self, conditions: Sequence[ColumnCondition]) -> str:
        """Return an empty string: nothing can be asked of the decoder, candidates are tested."""
        return ""
