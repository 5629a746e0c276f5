"""The list of families that rows can be generated from. Adding one is its folder and one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import load_codec
from rowmint.errors import DataLossError
from rowmint.schema import TableSchema
from rowmint.synthesizer.circuit.synthesizer import CircuitSynthesizer
from rowmint.synthesizer.exact.kernels import Kernel
from rowmint.synthesizer.heads import column_heads
from rowmint.synthesizer.independent.synthesizer import IndependentSynthesizer
from rowmint.synthesizer.interface import Capabilities, ConditionSupport, Synthesizer
from rowmint.synthesizer.latent.ctgan import CtganSynthesizer
from rowmint.synthesizer.latent.tvae import TvaeSynthesizer
from rowmint.synthesizer.parts import ModelParts


@dataclass(frozen=True)
class SynthesizerFamily:
    """The generative half of a family.

    Attributes:
        name: What the manifest's ``family`` says.
        capabilities: What it offers, fitted without privacy.
        load: Makes a synthesizer of a model's parts; raises `DataLossError` where they do not make one.
    """

    name: str
    capabilities: Capabilities
    load: Callable[[ModelParts], Synthesizer]


FAMILIES: tuple[SynthesizerFamily, ...] = (
    SynthesizerFamily("circuit", CircuitSynthesizer.capabilities, CircuitSynthesizer.load),
    SynthesizerFamily("ctgan", CtganSynthesizer.capabilities, CtganSynthesizer.load),
    SynthesizerFamily("tvae", TvaeSynthesizer.capabilities, TvaeSynthesizer.load),
    SynthesizerFamily("independent", IndependentSynthesizer.capabilities, IndependentSynthesizer.load),
)


def synthesizer_family(name: str) -> SynthesizerFamily:
    """Return the family of this name.

    Raises:
        DataLossError: This version knows none; such a name comes from a stored model.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise DataLossError(f"the model is of family {name!r}; this version knows {known}")


def exact_families() -> list[str]:
    """Return the names of the families that meet conditions exactly."""
    return [family.name for family in FAMILIES if family.capabilities.conditions is ConditionSupport.EXACT]


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
        raise DataLossError("the model's codecs are not a list, or its network is not an object")
    if not schema.columns:
        raise DataLossError("the model has no columns")
    if len(bodies) != len(schema.columns):
        raise DataLossError(f"the model has {len(schema.columns)} columns and {len(bodies)} codecs")
    codecs = [
        load_codec(column, body, select(arrays, f"codec.{index}."))
        for index, (column, body) in enumerate(zip(schema.columns, bodies, strict=True))
    ]
    heads = column_heads(schema.columns, codecs)
    return synthesizer_family(generator["family"]).load(ModelParts(schema, heads, network, arrays, kernel))


def select(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> dict[str, NDArray[np.generic]]:
    """Return the arrays whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
