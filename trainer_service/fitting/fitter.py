"""What every family's training offers the engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


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
