"""What a fit reports while it runs, and what it is estimated to cost. Plain values; nothing heavy is loaded."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What a fit is at. A job that fits is at the same phases, under the same names."""

    ENCODING = "encoding"
    FITTING = "fitting"
    VERIFYING = "verifying"


@dataclass(frozen=True)
class FitEvent:
    """How far a fit is.

    Attributes:
        phase: What it is at.
        epoch: Epochs finished.
        epochs: Epochs in all; 0 where the family has none.
        losses: Mean of each loss over the last epoch; empty before the first ends.
        rows_per_second: Training rows a second over the last epoch.
        eta_seconds: Seconds left at this rate.
        message: What a person reads.
        probe: Scores of the rows made after this epoch, by name; empty where none was taken.
    """

    phase: Phase
    epoch: int = 0
    epochs: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    rows_per_second: float = 0.0
    eta_seconds: float = 0.0
    message: str = ""
    probe: dict[str, float] = field(default_factory=dict)


Report = Callable[[FitEvent], None]
Cancelled = Callable[[], bool]
Between = Callable[[str], None]
"""Called between the steps of what takes long, with what comes next, empty where that is not worth a report; ends it by
`CancelledError`."""


def uninterrupted(_next: str) -> None:
    """Go on."""


@dataclass(frozen=True)
class Estimate:
    """What a fit would cost.

    Attributes:
        encoded_width: Width of an encoded row in the network.
        steps_per_epoch: Steps an epoch.
        seconds_per_epoch: Seconds an epoch.
        total_seconds: Seconds in all, encoding and export included.
        peak_memory_bytes: Peak bytes of memory of the worker.
    """

    encoded_width: int
    steps_per_epoch: int
    seconds_per_epoch: float
    total_seconds: float
    peak_memory_bytes: int
