"""What surrounds a fit: where it may write, whom it reports to, whether it is to stop, what keys its draws."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from trainer_service.fitting.monitoring.progress import Cancelled, FitEvent, Report

Clock = Callable[[], float]
"""Seconds since any moment."""


class Device(StrEnum):
    """Where the network is fitted."""

    CPU = "cpu"
    CUDA = "cuda"


class Checkpoints(Protocol):
    """Where a fit's checkpoints are kept. One thread uses it."""

    def load(self) -> bytes | None:
        """Return the newest checkpoint; None where there is none, or none that can be read."""
        ...

    def due(self) -> bool:
        """Return whether one is to be written now; called before every step."""
        ...

    def save(self, step: int, data: bytes) -> None:
        """Keep a checkpoint of `step` steps; what cannot be kept now does not stop the fit."""
        ...


class NoCheckpoints:
    """Keeps none; see `Checkpoints`."""

    def load(self) -> None:
        """Return none."""

    def due(self) -> bool:
        """Return that none is due."""
        return False

    def save(self, step: int, data: bytes) -> None:
        """Keep nothing."""


def _unreported(_: FitEvent) -> None:
    """Drop an event."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class FitContext:
    """What surrounds a fit. One thread uses it.

    Attributes:
        scratch: Folder for files of codes and row lists, as large as the table; exists. The caller removes it.
        seed: Seed of every draw, 0 to 2**64 - 1.
        device: Where the networks live.
        threads: CPU threads, 1 or more.
        on_event: Called with each event: at the start of a phase, and at the end of an epoch.
        cancelled: Called before every step and every batch read; the fit ends with `CancelledError` once it is true.
        checkpoints: Where checkpoints are kept.
        clock: For rates and durations only; no weight depends on it.
    """

    scratch: Path
    seed: int
    device: Device = Device.CPU
    threads: int = 1
    on_event: Report = _unreported
    cancelled: Cancelled = _never
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    clock: Clock = time.monotonic
