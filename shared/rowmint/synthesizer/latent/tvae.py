"""TVAE's decoder, forward only (arXiv:1907.00503, section 4.4).

z ~ N(0, 1),  h1 = ReLU(FC(z)),  h2 = ReLU(FC(h1))
alpha_i ~ N(tanh(FC(h2)), delta_i),  beta_i, d_i ~ softmax(FC(h2))
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.conditions import ColumnCondition
from rowmint.errors import DataLossError
from rowmint.synthesizer.exact.network import load_network
from rowmint.synthesizer.interface import Capabilities
from rowmint.synthesizer.latent.model import LatentModel
from rowmint.synthesizer.latent.synthesizer import LatentSynthesizer
from rowmint.synthesizer.parts import ModelParts

_MAX_NOISE_SCALE = 1 << 40  # times the greatest deviate it stays far below 2**63; a scale of 1 is ALPHA_ONE


class TvaeSynthesizer(LatentSynthesizer):
    """TVAE's decoder. Immutable, thread-safe.

    Args:
        model: Network, heads and noise scales.
    """

    capabilities = Capabilities()

    @classmethod
    def load(cls, parts: ModelParts) -> "TvaeSynthesizer":
        """Return the decoder of a model's parts.

        Raises:
            DataLossError: They do not make one.
        """
        network = load_network(parts.network, parts.arrays, concatenate=False, conditions=0, kernel=parts.kernel)
        scalars = [head for head in parts.heads.values() if head.codec.scalar]
        scales: NDArray[Any] = parts.arrays.get("spread", np.zeros(0, np.int64))
        if scales.dtype != np.int64 or scales.shape != (len(scalars),):
            raise DataLossError(
                f"the model has {len(scalars)} scalars and noise scales of {scales.dtype} and shape {scales.shape}"
            )
        if not ((scales >= 0) & (scales <= _MAX_NOISE_SCALE)).all():
            raise DataLossError("a noise scale of the model is negative or beyond every scalar")
        noise_scale = {head.column.name: int(value) for head, value in zip(scalars, scales, strict=True)}
        return cls(LatentModel(parts.schema, parts.heads, network, None, noise_scale))

    def conditioned_column(self, tests: Sequence[ColumnCondition]) -> str:
        """Return an empty string: the decoder takes no condition, candidates are tested."""
        return ""
