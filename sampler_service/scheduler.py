"""Which block is computed next: threads shared fairly between projects, and what they tell of their load.

An executor with one queue serves whoever asks most. Here each project has a queue of its own, and a free thread takes
from the project whose work has taken the least time so far (start-time fair queueing, Goyal, Vin and Cheng 1996): with
both at work, a project with one stream gets as much as one with sixty. A project that comes back from idleness starts
level with the others, so that nobody saves time up.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from sampler_service.load import Load, LoadMeter

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class _Task:
    future: "Future[Any]"
    work: Callable[[], Any]
    ran: bool = False


@dataclass
class _Lane:
    """What one project waits for, and the seconds of work it has had."""

    served: float = 0.0
    running: int = 0
    waiting: deque[_Task] = field(default_factory=deque)


class FairScheduler:
    """Threads that serve projects in turn. Safe to use from any thread.

    Args:
        threads: How many; at least 1.
        clock: Seconds; monotonic.
    """

    def __init__(self, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.threads = threads
        self._clock = clock
        self._changed = threading.Condition()
        self._lanes: dict[str, _Lane] = {}
        self._queued = 0
        self._running = 0
        self._closed = False
        self._meter = LoadMeter(threads, clock())
        self._threads = [
            threading.Thread(target=self._serve, name=f"rows-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def lane(self, project: str) -> Executor:
        """Return the executor of one project."""
        return _LaneExecutor(self, project)

    @property
    def queued(self) -> int:
        """Tasks that wait for a thread."""
        return self._queued

    @property
    def running(self) -> int:
        """Tasks at work."""
        return self._running

    def load(self) -> Load:
        """Return how busy the threads have been."""
        with self._changed:
            return self._meter.load(self._clock(), self._queued + self._running)

    def submit(self, project: str, work: Callable[[], T]) -> "Future[T]":
        """Queue work of a project.

        Raises:
            RuntimeError: The scheduler is closed.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the scheduler is closed")
            now = self._clock()
            self._meter.advance(now, self._queued + self._running)
            lane = self._lanes.get(project)
            if lane is None:
                # Level with who has been served least: to have been idle is worth nothing.
                served = min((other.served for other in self._lanes.values()), default=0.0)
                lane = self._lanes[project] = _Lane(served)
            lane.waiting.append(_Task(future, work))
            self._queued += 1
            self._changed.notify()
        return future

    def close(self) -> None:
        """Cancel what waits, and let the threads end; does not wait for them."""
        with self._changed:
            self._closed = True
            waiting = [task for lane in self._lanes.values() for task in lane.waiting]
            for lane in self._lanes.values():
                lane.waiting.clear()
            self._queued = 0
            self._changed.notify_all()
        for task in waiting:
            task.future.cancel()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._queued and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                project, lane = min(
                    ((project, lane) for project, lane in self._lanes.items() if lane.waiting),
                    key=lambda pair: pair[1].served,
                )
                task = lane.waiting.popleft()
                began = self._clock()
                self._meter.advance(began, self._queued + self._running)
                self._queued -= 1
                self._running += 1
                lane.running += 1
            self._run(task)
            with self._changed:
                ended = self._clock()
                self._meter.advance(ended, self._queued + self._running)
                self._meter.count(task.ran)
                self._running -= 1
                lane.running -= 1
                lane.served += ended - began
                if not lane.waiting and not lane.running:
                    del self._lanes[project]

    def _run(self, task: _Task) -> None:
        task.ran = task.future.set_running_or_notify_cancel()
        if not task.ran:
            return
        try:
            result = task.work()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the task gets it
            task.future.set_exception(error)
        else:
            task.future.set_result(result)


class _LaneExecutor(Executor):
    """A project's way to the threads."""

    def __init__(self, scheduler: FairScheduler, project: str) -> None:
        self._scheduler = scheduler
        self._project = project

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        return self._scheduler.submit(self._project, lambda: fn(*args, **kwargs))
