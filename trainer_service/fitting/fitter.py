"""What the fitting half of every family offers the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encoded_table import EncodedRows
from trainer_service.fitting.monitoring.progress import Between, uninterrupted
from trainer_service.fitting.options import ExportOptions


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
    """A family on a table: fitted once it is made, or an `IterativeFitter`. One thread uses it.

    Attributes:
        parameters: Numbers that are learned by steps; 0 where there are no steps.
    """

    parameters: int

    def export(self, options: ExportOptions, between: Between = uninterrupted) -> FittedNetwork:
        """Return the generative half in exact arithmetic; nothing of the fitter changes.

        Args:
            options: How it becomes exact.
            between: Called between steps, at least for each layer and each column.

        Raises:
            CancelledError: `between` raised it.
        """
        ...


@runtime_checkable
class IterativeFitter(Fitter, Protocol):
    """A family that is fitted by steps.

    Attributes:
        epochs: Epochs in all, 1 or more.
        steps_per_epoch: Steps an epoch.
        rows_per_step: Training rows a step uses.
    """

    epochs: int
    steps_per_epoch: int
    rows_per_step: int

    def step(self, number: int) -> dict[str, float]:
        """Take training step `number`, from 0; return its losses by name."""
        ...

    def sample(self, rows: int) -> EncodedRows:
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
        """Resume from what `state` gave: every step from here on is as it would have been there.

        Raises:
            KeyError: Something is missing.
            ValueError: Something is of another shape.
        """
        ...


@runtime_checkable
class SelfJudgingFitter(IterativeFitter, Protocol):
    """A family that judges itself by rows that take no part in its steps, and exports the best it has been.

    Attributes:
        best_epoch: The epoch that `export` would export, from 1; 0 before the first has ended.
    """

    best_epoch: int

    def end_epoch(self) -> dict[str, float]:
        """Take stock after an epoch; return figures to be reported beside its losses, by name."""
        ...
