"""What every family's training offers the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.synthesizer import tables
from trainer_service.fitting.encode import EncodedTable


@dataclass(frozen=True)
class FittedNetwork:
    """What a family puts into the model beside the codecs.

    Attributes:
        body: The manifest's ``network`` entry.
        arrays: The arrays by name.
    """

    body: Mapping[str, Any]
    arrays: Mapping[str, NDArray[np.generic]]


class Fitter(Protocol):
    """A family being fitted. One thread uses it.

    Attributes:
        epochs: Epochs in all; 0 where nothing is iterated.
        steps_per_epoch: Steps an epoch.
        rows_per_step: Training rows a step uses.
        parameters: Numbers the networks learn.
    """

    epochs: int
    steps_per_epoch: int
    rows_per_step: int
    parameters: int

    def step(self, number: int) -> dict[str, float]:
        """Take training step `number`, from 0; return its losses by name."""
        ...

    def export(self) -> FittedNetwork:
        """Return the generative half in exact integers."""
        ...


def output_units(codecs: Sequence[CategoryCodec | NumericCodec]) -> NDArray[np.float64]:
    """Return the units a real 1 has in each output of the exact network, in schema order, shape (w,)."""
    units: list[float] = []
    for codec in codecs:
        units += [tables.ALPHA_UNIT] * codec.scalar + [tables.LOGIT_UNIT] * codec.slots
    return np.array(units, np.float64)


def seen_outputs(table: EncodedTable) -> NDArray[np.bool_]:
    """Return which outputs, in schema order, are scalars or slots that some training row has; shape (w,)."""
    parts = []
    for codec, counts in zip(table.codecs, table.counts, strict=True):
        parts += [np.ones(int(codec.scalar), np.bool_), counts > 0]
    return np.concatenate(parts)
