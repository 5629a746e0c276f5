"""A bounded cache in which each value is made once for all callers that need it at the same time."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlightCache(Generic[K, V]):
    """Values by key, the least recently used evicted first. For one event loop.

    A value that could not be made is not kept: callers that waited get the error, the next caller tries again. A value
    that is evicted lives on where it is in use.

    Args:
        bound: Greatest sum of weights kept. A value that weighs more by itself is handed out, but not kept.
        weight: Weight of a value.
        evicted: Called with each value evicted for others.
        ends_unwanted: Whether the making of a value is cancelled when every caller that waited for it was.
    """

    def __init__(
        self,
        bound: int,
        weight: Callable[[V], int],
        evicted: Callable[[V], None] = lambda _: None,
        *,
        ends_unwanted: bool = False,
    ) -> None:
        self._bound = bound
        self._weight = weight
        self._evicted = evicted
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._ends_unwanted = ends_unwanted
        self._flights: dict[K, asyncio.Task[V]] = {}
        self._waiting: Counter[asyncio.Task[V]] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        """Sum of the weights kept, at most the bound."""
        return self._total

    def weight_of(self, key: K) -> int:
        """Return the weight of a value that is kept, or 0."""
        kept = self._kept.get(key)
        return 0 if kept is None else kept[1]

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        """Return the value of `key`, made by `make` where it is not kept and not being made.

        A caller that is cancelled leaves the others' flight alone. Where it was the last, the flight continues without
        one or is cancelled, as the cache is set.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._fly(key, make))
            # Where every caller was cancelled, the error is dropped.
            flight.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._flights[key] = flight
        self._waiting[flight] += 1
        try:
            return await asyncio.shield(flight)
        finally:
            self._leave(key, flight)

    def _leave(self, key: K, flight: asyncio.Task[V]) -> None:
        """Count a caller out; one that is cancelled leaves the flight to the others, if there are any."""
        self._waiting[flight] -= 1
        if self._waiting[flight]:
            return
        del self._waiting[flight]
        if self._ends_unwanted and not flight.done():
            # The next caller begins again.
            self._flights.pop(key, None)
            flight.cancel()

    async def _fly(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        try:
            value = await make()
        finally:
            if self._flights.get(key) is asyncio.current_task():
                del self._flights[key]
        weight = self._weight(value)
        if weight <= self._bound:
            self._kept[key] = (value, weight)
            self._total += weight
        self.make_room(0)
        return value

    def discard(self, unwanted: Callable[[V], bool]) -> None:
        """Keep some values no longer; what is being made is not among them."""
        for key in [key for key, (value, _) in self._kept.items() if unwanted(value)]:
            self._total -= self._kept.pop(key)[1]

    def make_room(self, weight: int) -> None:
        """Evict values until there is room for so much more, or none is kept."""
        while self._kept and self._total + weight > self._bound:
            _, (value, freed) = self._kept.popitem(last=False)
            self._total -= freed
            self._evicted(value)
