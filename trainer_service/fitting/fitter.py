"""What every family's training offers the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encode import Codes


@dataclass(frozen=True)
class FittedNetwork:
    """What a family puts into the model beside the codecs.

    Attributes:
        body: The manifest's ``network`` entry.
        arrays: The arrays by name.
        choices: What was chosen at export, for the manifest; JSON values.
    """

    body: Mapping[str, Any]
    arrays: Mapping[str, NDArray[np.generic]]
    choices: Mapping[str, Any] = field(default_factory=dict)


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

    def sample(self, rows: int) -> Codes:
        """Return rows, at most 8,192, as `export` now would have them made; the same ones whenever weights are."""
        ...

    def weights(self) -> list[NDArray[np.float32]]:
        """Return a copy of all that `export` depends on."""
        ...

    def restore(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """Let `export` depend on `weights`, which `weights` gave; no step is taken after that."""
        ...

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of all that further steps depend on, by name."""
        ...

    def load_state(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Go on from what `state` gave: every step from here on is as it would have been there.

        Raises:
            KeyError: Something is missing.
            ValueError: Something is of another shape.
        """
        ...

    def export(self) -> FittedNetwork:
        """Return the generative half in exact integers."""
        ...
