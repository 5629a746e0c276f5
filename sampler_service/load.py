"""What this process reports to balancers: averages over its queue, in which the past fades."""

import math
from dataclasses import dataclass

_MEMORY_SECONDS = 5.0  # what happened so long ago counts 1/e of what happens now


@dataclass(frozen=True)
class Load:
    """How busy the threads are.

    Their ratio, rate / utilization, is what a balancer weighs by. By Little's law it is the number of threads divided
    by the time that a candidate spends here, in the queue or at work: a machine that has become slow, or whose queue
    is long, shows a smaller one. Candidates are counted, not tasks: one task may take a thousand times another's time.

    Attributes:
        utilization: Tasks queued or running, a thread: 1 where all threads work and nothing waits.
        rate: Candidates drawn, a second.
    """

    utilization: float
    rate: float


class LoadMeter:
    """Averages over time of the tasks inside, and of the work done. For one thread at a time.

    Args:
        threads: How many serve the tasks.
        now: The time, seconds.
    """

    def __init__(self, threads: int, now: float) -> None:
        self._threads = threads
        self._now = now
        self._span = 0.0
        self._area = 0.0
        self._done = 0.0

    def advance(self, now: float, inside: int) -> None:
        """Count the time until now, in which `inside` tasks were queued or running."""
        passed = now - self._now
        if passed <= 0:
            return
        kept = math.exp(-passed / _MEMORY_SECONDS)
        fresh = _MEMORY_SECONDS * (1 - kept)
        self._span = self._span * kept + fresh
        self._area = self._area * kept + fresh * inside
        self._done *= kept
        self._now = now

    def count(self, candidates: int) -> None:
        """Count candidates that were drawn by now."""
        self._done += candidates

    def load(self, now: float, inside: int) -> Load:
        """Return the averages; `inside` as in `advance`."""
        self.advance(now, inside)
        if self._span <= 0:
            return Load(0.0, 0.0)
        return Load(self._area / self._span / self._threads, self._done / self._span)


class EventRate:
    """Events a second, over the last seconds. For one thread at a time."""

    def __init__(self) -> None:
        self._then = 0.0
        self._count = 0.0

    def count(self, now: float) -> None:
        """Count an event."""
        self._count = self._faded(now) + 1
        self._then = now

    def rate(self, now: float) -> float:
        """Return how many happen in a second."""
        return self._faded(now) / _MEMORY_SECONDS

    def _faded(self, now: float) -> float:
        return self._count * math.exp(-max(now - self._then, 0.0) / _MEMORY_SECONDS)
