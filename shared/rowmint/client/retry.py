"""When a call is made again, and by which peer."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rowmint.client.errors import RowmintCallError
from rowmint.client.route import Peer, Route
from rowmint.errors import RowmintError

_LONGEST_PUSHBACK = 30.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon a call is made again.

    Attributes:
        attempts: Consecutive attempts of a stream without progress, after which it is given up.
        unary_attempts: Attempts of a call that is not a stream.
        first_delay: Seconds before the second attempt; doubled from then on.
        longest_delay: Seconds, the most waited between two attempts.
        sleep: Waits for seconds.
    """

    attempts: int = 8
    unary_attempts: int = 4
    first_delay: float = 0.2
    longest_delay: float = 5.0
    sleep: Callable[[float], object] = time.sleep

    def wait(self, failures: int, pushback: float | None = None) -> None:
        """Wait before the next attempt.

        Args:
            failures: Failures since the last progress, from 1.
            pushback: Seconds the service requested; at most 30 are granted.
        """
        delay = min(self.first_delay * 2.0 ** min(failures - 1, 30), self.longest_delay)
        self.sleep(delay if pushback is None else max(delay, min(pushback, _LONGEST_PUSHBACK)))


class SharedProgress:
    """How often any of the streams that serve one reader made progress. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @property
    def count(self) -> int:
        """Messages so far that brought one of the streams further."""
        return self._count

    def add(self) -> None:
        """Count a message."""
        with self._lock:
            self._count += 1


class RetryState:
    """The state of one stream's retries: which peer the next attempt goes to, and when. For one thread.

    As many failures in a row as there are replicas are followed by another attempt at once, as another replica may
    well serve; from then on the pause grows. A pushback of the service is waited for in any case.

    Args:
        route: The peers.
        policy: How often and how soon.
        shared: Progress of all streams that serve the same reader: while it grows, none of them is given up. None where
            there is no other stream.
    """

    def __init__(self, route: Route, policy: RetryPolicy, shared: SharedProgress | None = None) -> None:
        self._route = route
        self._policy = policy
        self._shared = SharedProgress() if shared is None else shared
        self._seen = self._shared.count
        self._turn = route.first
        self._failures = 0
        self._progressed = False

    @property
    def peer(self) -> Peer:
        """What the next attempt goes to."""
        return self._route.peers[self._turn % len(self._route.peers)]

    def progress(self) -> None:
        """Count a message that brought the stream further."""
        self._progressed = True
        self._shared.add()

    def failed(self, failure: RowmintCallError | RowmintError, *, reached: bool) -> None:
        """Count a failure that another attempt may not meet, and wait until the next attempt is due.

        Args:
            failure: The failure.
            reached: Whether any attempt of the stream was ever answered; a service that never was is given up soon.

        Raises:
            RowmintCallError: It was the last attempt.
            RowmintError: Likewise, and what was received was damaged.
        """
        others = self._shared.count > self._seen
        self._seen = self._shared.count
        self._failures = 0 if self._progressed else self._failures + 1
        self._progressed = False
        refusal = failure if isinstance(failure, RowmintCallError) else None
        unreached = refusal is not None and not refusal.reason and not reached
        if not others and self._failures >= (self._route.replicas + 2 if unreached else self._policy.attempts):
            raise failure if refusal is None or unreached else refusal.given_up(self._failures)
        pushback = None if refusal is None else refusal.retry_after
        if pushback is not None or self._failures >= self._route.replicas:
            self._policy.wait(max(1, self._failures - self._route.replicas + 1), pushback)
        self._turn += 1
