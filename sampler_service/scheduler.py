"""Which block is computed next: threads shared fairly between projects, and their load.

An executor with one queue serves the busiest caller most. Here each project has a queue of its own, and a free thread
takes from the project whose work has taken the least time so far (start-time fair queueing, Goyal, Vin and Cheng 1996):
with both at work, a project with one stream gets as much as one with sixty. A project that was idle starts where the
others are by now, so that no time is saved up; or where it was, if that is later, so that a moment of idleness cancels
no debt.
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


@dataclass
class _Lane:
    """What one project waits for, and the seconds of work it has had, those that tasks at work may take included."""

    served: float
    expected: float = 0.0
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
        # Of projects that have nothing to do: where they were, as long as that is later than where the others are.
        self._debts: dict[str, float] = {}
        self._virtual = 0.0  # where the project was whose task was begun last
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

    def count(self, candidates: int) -> None:
        """Count work that a task has done; its unit takes about as long for every request."""
        with self._changed:
            self._meter.advance(self._clock(), self._queued + self._running)
            self._meter.count(candidates)

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
                lane = self._lanes[project] = _Lane(max(self._virtual, self._debts.pop(project, 0.0)))
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
                self._virtual = max(self._virtual, lane.served)
                expected = lane.expected
                lane.served += expected
            self._run(task)
            with self._changed:
                ended = self._clock()
                self._meter.advance(ended, self._queued + self._running)
                self._running -= 1
                lane.running -= 1
                lane.served += ended - began - expected
                lane.expected = ended - began
                if not lane.waiting and not lane.running:
                    self._forget(project, lane)
            # What a task holds, a model among it, is not to outlive it because nothing else comes.
            del task, lane

    def _forget(self, project: str, lane: _Lane) -> None:
        """Take the lane of a project that has nothing to do, and keep what it owes the others."""
        del self._lanes[project]
        if not self._lanes:
            # No other project is left to owe anything to.
            self._virtual = max([self._virtual, lane.served, *self._debts.values()])
            self._debts.clear()
            return
        self._debts[project] = lane.served
        for other in [other for other, served in self._debts.items() if served <= self._virtual]:
            del self._debts[other]

    def _run(self, task: _Task) -> None:
        if not task.future.set_running_or_notify_cancel():
            return
        try:
            result = task.work()
        except BaseException as error:  # noqa: BLE001 - the caller that waits for the task gets it
            task.future.set_exception(error)
        else:
            task.future.set_result(result)


class _LaneExecutor(Executor):
    """A project's route to the threads."""

    def __init__(self, scheduler: FairScheduler, project: str) -> None:
        self._scheduler = scheduler
        self._project = project

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        return self._scheduler.submit(self._project, lambda: fn(*args, **kwargs))
