"""Importing what a fit needs before there is one."""

import threading

_IDLE_SECONDS = 10.0


class WarmUp:
    """Imports what a fit needs, the slowest part of a short job otherwise, once the worker has been idle.

    A worker that is given a job at once, as that of an ingest often is, would compete with its own warm-up, and need
    none of it.
    """

    def __init__(self) -> None:
        self._given = threading.Event()
        self._thread = threading.Thread(target=self._when_idle, name="warm-up", daemon=True)
        self._thread.start()

    def give(self) -> None:
        """Say that there is something to do: from now on nothing is imported that is not needed."""
        self._given.set()

    def finish(self) -> None:
        """Return once nothing is being imported: two threads that import the same may meet half-made modules."""
        self._thread.join()

    def _when_idle(self) -> None:
        if not self._given.wait(_IDLE_SECONDS):
            import_fitting()


def import_fitting() -> None:
    """Import what a fit needs."""
    from trainer_service.fitting import engine  # noqa: F401, PLC0415 - on purpose here
    from trainer_service.fitting.families import FAMILIES  # noqa: PLC0415 - on purpose here

    for family in FAMILIES:
        family.load_fitter()
