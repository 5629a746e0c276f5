"""Synthesizers: the generative half of each family, forward only, in exact arithmetic.

One file a family; `load_synthesizer` is the only way in. Random words, categorical draws and decoding are integer or
elementwise, so that a row is the same on every processor, with any kernel and any number of threads.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import load_codec
from rowmint.errors import DataLossError
from rowmint.schema import TableSchema
from rowmint.synthesizer.exact.kernels import Kernel, choose_kernel
from rowmint.synthesizer.independent.synthesizer import IndependentSynthesizer
from rowmint.synthesizer.interface import (
    Candidates,
    Completer,
    Completion,
    ConditionSupport,
    Synthesizer,
    TileQuery,
    join,
)
from rowmint.synthesizer.latent.ctgan import CtganSynthesizer
from rowmint.synthesizer.latent.heads import column_heads
from rowmint.synthesizer.latent.tvae import TvaeSynthesizer

FAMILIES = ("ctgan", "tvae", "independent")

__all__ = [
    "FAMILIES",
    "Candidates",
    "Completer",
    "Completion",
    "ConditionSupport",
    "Kernel",
    "Synthesizer",
    "TileQuery",
    "choose_kernel",
    "join",
    "load_synthesizer",
]


def load_synthesizer(
    generator: Mapping[str, Any],
    schema: TableSchema,
    arrays: Mapping[str, NDArray[np.generic]],
    kernel: Kernel,
) -> Synthesizer:
    """Return the synthesizer that a manifest's `generator` section and its weights describe.

    Args:
        generator: The section; see `rowmint.artifact`.
        schema: Its schema, parsed.
        arrays: The weights by name.
        kernel: Runs the networks.

    Raises:
        DataLossError: Section and weights do not make a model.
    """
    bodies, network = generator["codecs"], generator.get("network", {})
    if not isinstance(bodies, list) or not isinstance(network, Mapping):
        raise DataLossError("the model's codecs are no list, or its network is no object")
    if not schema.columns:
        raise DataLossError("the model has no columns")
    if len(bodies) != len(schema.columns):
        raise DataLossError(f"the model has {len(schema.columns)} columns and {len(bodies)} codecs")
    codecs = [
        load_codec(column, body, select(arrays, f"codec.{index}."))
        for index, (column, body) in enumerate(zip(schema.columns, bodies, strict=True))
    ]
    heads = column_heads(schema.columns, codecs)
    match generator["family"]:
        case "ctgan":
            return CtganSynthesizer.load(schema, heads, network, arrays, kernel)
        case "tvae":
            return TvaeSynthesizer.load(schema, heads, network, arrays, kernel)
        case "independent":
            return IndependentSynthesizer.load(schema, heads, arrays)
        case family:
            raise DataLossError(f"the model is of family {family!r}; this version knows {', '.join(FAMILIES)}")


def select(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> dict[str, NDArray[np.generic]]:
    """Return the arrays whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
