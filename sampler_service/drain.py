"""Draining: before a process ends, its streams are ended on the grid, so that clients resume them at other replicas."""

import asyncio
from typing import Protocol


class Drainable(Protocol):
    """What ends early when the process does: a stream, or the admission of new calls."""

    def drain(self) -> None:
        """End early; called any number of times."""
        ...


class Drain:
    """Whether this process is draining, and what is to be drained. For one event loop."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._members: set[Drainable] = set()

    @property
    def begun(self) -> bool:
        """Whether the process is draining."""
        return self._begun.is_set()

    async def wait(self) -> None:
        """Return once the process is draining."""
        await self._begun.wait()

    def begin(self) -> None:
        """Drain every member, and those that are added from now on."""
        self._begun.set()
        for member in self._members:
            member.drain()

    def add(self, member: Drainable) -> None:
        """Add a member."""
        self._members.add(member)
        if self.begun:
            member.drain()

    def discard(self, member: Drainable) -> None:
        """Remove a member, if it is one."""
        self._members.discard(member)
