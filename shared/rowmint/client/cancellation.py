"""Ending the calls that serve one reader, from any thread."""

import threading

import grpc


class Cancellation:
    """Cancels the calls that serve one reader, and those to come. Safe to use from several threads.

    Attributes:
        cancelled: Set once the calls are cancelled.
    """

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        # A reader that is dropped cancels on the thread that collects it, perhaps inside one of these very methods.
        self._lock = threading.RLock()
        self._calls: set[grpc.Call] = set()

    def register(self, call: grpc.Call) -> None:
        """Add a call that runs; it is cancelled at once where the others are."""
        with self._lock:
            self._calls.add(call)
        if self.cancelled.is_set():
            call.cancel()

    def release(self, call: grpc.Call) -> None:
        """Cancel one call, where it still runs, and forget it."""
        call.cancel()
        with self._lock:
            self._calls.discard(call)

    def cancel(self) -> None:
        """Cancel every call, and those to come; any number of times."""
        self.cancelled.set()
        with self._lock:
            calls = tuple(self._calls)
        for call in calls:
            call.cancel()
