"""Backends: where workers run. The pool knows the two protocols below and nothing of processes or machines.

A worker may run on another machine: it has no folder in common with the trainer, and its command brings all that it
needs to reach registry and stores. Whatever a backend offers passes `tests/conformance/test_backends.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Worker(Protocol):
    """A worker: it carries out one command, and then ends. For one event loop."""

    @property
    def ended(self) -> bool:
        """Whether it has ended, as far as is known; it then takes no command."""
        ...

    @property
    def ending(self) -> str:
        """How it ended, for people to read; empty before."""
        ...

    async def command(self, body: Mapping[str, Any], on_phase: Callable[[str], None]) -> dict[str, Any]:
        """Have the command carried out, wait until the worker has ended, and return the answer.

        Args:
            body: The command, JSON values; once in a worker's life.
            on_phase: Called with each phase that the worker reports, in order, before this returns.

        Returns:
            The answer, JSON values; empty where the worker died before it had answered.
        """
        ...

    async def stop(self, seconds: float) -> None:
        """End it, and let it give its job back first, for `seconds` at most; harmless where it has ended.

        Afterwards it has ended, and none of its temporary files are left.
        """
        ...

    def kill(self) -> None:
        """End it at once, without a wait; harmless where it has ended. `command` then returns, and `stop` clears up."""
        ...


class WorkerBackend(Protocol):
    """Starts workers. For one event loop."""

    async def start(self) -> Worker:
        """Start a worker, and return it when it can take a command.

        Left without a command for a while, it may import what a fit needs.

        Raises:
            UnavailableError: It ended before it was ready, or cannot be started.
        """
        ...
