"""The spare worker: one that is started before there is something for it to do."""

import asyncio

import structlog

from rowmint.errors import UnavailableError
from trainer_service.jobs.backends import Worker, WorkerBackend

_log = structlog.get_logger(__name__)


class SpareWorker:
    """One worker that waits for a command, and the next one as soon as it is taken. One event loop.

    Args:
        backend: Starts workers.
        stop_seconds: How long a worker may take to end.
    """

    def __init__(self, backend: WorkerBackend, stop_seconds: float) -> None:
        self._backend = backend
        self._stop_seconds = stop_seconds
        self._starting: asyncio.Task[Worker] | None = None
        self._closing = asyncio.Event()

    def start(self) -> None:
        """Begin to start a worker, unless there is one."""
        self._spare()

    def _spare(self) -> asyncio.Task[Worker]:
        if self._starting is None:
            self._starting = asyncio.create_task(self._backend.start())
        return self._starting

    async def ready(self) -> None:
        """Wait until the spare worker can take a command.

        Raises:
            UnavailableError: It ended before it could, or cannot be started, and another one is being started; or this
                is closed.
        """
        while not self._closing.is_set():
            spare = self._spare()
            closing = asyncio.create_task(self._closing.wait())
            await asyncio.wait({spare, closing}, return_when=asyncio.FIRST_COMPLETED)
            closing.cancel()
            if spare is not self._starting or not spare.done():
                continue  # taken meanwhile, or this is closed
            error = spare.exception()
            if error is None and not spare.result().ended:
                return
            self._starting = None
            self.start()
            if error is not None:
                raise error
        raise _closed()

    async def take(self) -> Worker:
        """Return a worker that waits for its command, the caller's from now on, and begin to start the next one.

        Raises:
            UnavailableError: None can be started, or this is closed.
        """
        # Taken before it is awaited: no two commands may meet in one worker.
        spare, self._starting = self._starting, None
        worker = None
        if spare is not None and not self._closing.is_set():
            try:
                worker = await spare
            except UnavailableError as error:
                _log.warning("the spare worker cannot be used", error=error.message)
        if worker is None or worker.ended:
            worker = await self._backend.start()
        if self._closing.is_set():
            await worker.stop(self._stop_seconds)
            raise _closed()
        self.start()
        return worker

    async def close(self) -> None:
        """Start no more, and end the one that waits. Closing twice is harmless."""
        self._closing.set()
        spare, self._starting = self._starting, None
        if spare is not None:
            spare.cancel()
            (found,) = await asyncio.gather(spare, return_exceptions=True)
            if not isinstance(found, BaseException):
                await found.stop(self._stop_seconds)


def _closed() -> UnavailableError:
    return UnavailableError("the trainer is shutting down; try again", retry_after=1.0)
