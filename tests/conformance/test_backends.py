"""Backends of workers: what the pool takes for granted of each, and what only one of them has."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rowmint.errors import UnavailableError
from tests.waiting import PATIENCE
from trainer_service.jobs.backends import Worker, WorkerBackend
from trainer_service.jobs.backends.subprocesses import SubprocessBackend

LONG = 10 * PATIENCE  # never waited for


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await test()

    asyncio.run(bounded())


class BackendSuite:
    """What holds for every backend.

    A subclass gives the fixture `backend`: a function that makes a backend whose workers behave as named:

    - ``answers``: report the phases of the command's list `phases`, then answer ``{"got": the command}``;
    - ``works``: report the phase ``working``, then work until it is to stop, and answer ``{"stopped": true}``;
    - ``deaf``: as ``works``, but it does not stop;
    - ``dies``: report the phase ``working``, then die without an answer;
    - ``unstarted``: end before they are ready.

    All but the last write a file of rows to their folder of temporary files as soon as they have a command; the fixture
    `temporary` returns the files of rows that are left.
    """

    @pytest.fixture
    def backend(self) -> Callable[[str], WorkerBackend]:
        raise NotImplementedError

    @pytest.fixture
    def temporary(self) -> Callable[[], list[str]]:
        raise NotImplementedError

    @staticmethod
    async def working(worker: Worker) -> asyncio.Task[dict]:
        """Give a command, and return its task once the worker has reported a phase."""
        began = asyncio.Event()
        task = asyncio.create_task(worker.command({}, lambda _: began.set()))
        await began.wait()
        return task

    def test_a_worker_answers_its_command_and_ends(self, backend, temporary):
        async def test() -> None:
            worker = await backend("answers").start()
            assert (worker.ended, worker.ending) == (False, "")
            body = {"phases": [], "text": "ü\n", "number": 1.5, "nested": {"list": [1, None, True]}}
            assert await worker.command(body, lambda _: None) == {"got": body}
            assert worker.ended
            assert worker.ending
            await worker.stop(LONG)
            assert temporary() == []

        run(test)

    def test_phases_are_reported_in_order_before_the_answer(self, backend):
        async def test() -> None:
            worker = await backend("answers").start()
            seen: list[str] = []
            phases = ["fetching", "encoding", "fitting"]
            assert await worker.command({"phases": phases}, seen.append) == {"got": {"phases": phases}}
            assert seen == phases
            await worker.stop(LONG)

        run(test)

    def test_workers_share_no_command(self, backend):
        async def test() -> None:
            made = backend("answers")
            workers = await asyncio.gather(*(made.start() for _ in range(3)))
            bodies = [{"phases": [], "number": number} for number in range(3)]
            answers = [worker.command(body, lambda _: None) for worker, body in zip(workers, bodies, strict=True)]
            assert await asyncio.gather(*answers) == [{"got": body} for body in bodies]
            await asyncio.gather(*(worker.stop(LONG) for worker in workers))

        run(test)

    def test_a_worker_that_dies_answers_nothing_and_leaves_nothing(self, backend, temporary):
        async def test() -> None:
            worker = await backend("dies").start()
            seen: list[str] = []
            assert await worker.command({}, seen.append) == {}
            assert (seen, worker.ended) == (["working"], True)
            await worker.stop(LONG)
            assert temporary() == []

        run(test)

    def test_a_worker_that_is_stopped_ends_in_its_own_way(self, backend, temporary):
        async def test() -> None:
            worker = await backend("works").start()
            task = await self.working(worker)
            assert temporary() != []
            await worker.stop(LONG)
            assert await task == {"stopped": True}
            assert worker.ended
            assert temporary() == []

        run(test)

    def test_a_worker_that_does_not_stop_in_time_is_killed(self, backend, temporary):
        async def test() -> None:
            worker = await backend("deaf").start()
            task = await self.working(worker)
            await worker.stop(0.05)
            assert await task == {}
            assert worker.ended
            assert temporary() == []

        run(test)

    def test_a_kill_waits_for_nothing(self, backend, temporary):
        async def test() -> None:
            worker = await backend("deaf").start()
            task = await self.working(worker)
            stopping = asyncio.create_task(worker.stop(LONG))
            await asyncio.sleep(0)
            worker.kill()
            await stopping
            assert await task == {}
            assert worker.ended
            assert temporary() == []
            worker.kill()
            await worker.stop(LONG)

        run(test)

    def test_a_worker_without_a_command_is_stopped(self, backend):
        async def test() -> None:
            worker = await backend("works").start()
            await worker.stop(LONG)
            assert worker.ended
            await worker.stop(LONG)

        run(test)

    def test_removing_the_files_of_one_worker_leaves_those_of_running_ones(self, backend, temporary):
        async def test() -> None:
            made = backend("works")
            one, other = await asyncio.gather(made.start(), made.start())
            tasks = [await self.working(worker) for worker in (one, other)]
            both = temporary()
            one.kill()
            await one.stop(LONG)
            assert len(both) == 2
            assert len(temporary()) == 1
            await other.stop(LONG)
            assert await asyncio.gather(*tasks) == [{}, {"stopped": True}]
            assert temporary() == []

        run(test)

    def test_a_worker_that_ends_before_it_is_ready_is_unavailable(self, backend):
        async def test() -> None:
            with pytest.raises(UnavailableError) as caught:
                await backend("unstarted").start()
            assert caught.value.retry_after == 1.0

        run(test)


_BEGINS = """
import json, os, signal, sys
from pathlib import Path
from trainer_service.jobs.scratch import ScratchFolder
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1) if "folder" in globals() else os._exit(0))
def send(body):
    print(json.dumps(body), flush=True)
send({"ready": True})
body = json.loads(sys.stdin.readline())
folder = ScratchFolder(Path(os.environ["SCRATCH"]))
(folder.path / "rows").write_bytes(b"rows")
def end(answer):
    folder.close()
    send(answer)
"""
_WORKS = _BEGINS + "send({'phase': 'working'})\n"
_UNTIL_STOPPED = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
if not stopped: signal.sigwait({signal.SIGTERM})
end({'stopped': True})
"""
_SCRIPTS = {
    "answers": _BEGINS + "for phase in body['phases']: send({'phase': phase})\nend({'got': body})\n",
    "works": _WORKS + _UNTIL_STOPPED,
    "deaf": _WORKS + "while True: signal.pause()\n",
    "dies": _WORKS + "os.kill(os.getpid(), signal.SIGKILL)\n",
    "unstarted": "raise SystemExit(7)",
}


class TestSubprocesses(BackendSuite):
    @pytest.fixture
    def make(self, tmp_path):
        """Give a function that makes a backend whose workers run a script."""

        def made(script: str) -> SubprocessBackend:
            environment = {**os.environ, "SCRATCH": str(tmp_path / "scratch")}
            return SubprocessBackend(environment, tmp_path / "scratch", (sys.executable, "-c", script))

        return made

    @pytest.fixture
    def backend(self, make):
        return lambda behaviour: make(_SCRIPTS[behaviour])

    @pytest.fixture
    def temporary(self, tmp_path):
        return lambda: sorted(str(path) for path in (tmp_path / "scratch").rglob("rows"))

    def test_the_exit_code_is_reported(self, backend):
        async def test() -> None:
            with pytest.raises(UnavailableError, match="exit code 7 before it was ready"):
                await backend("unstarted").start()
            worker = await backend("dies").start()
            await worker.command({}, lambda _: None)
            assert worker.ending == "exit code -9"
            await worker.stop(LONG)

        run(test)

    def test_a_program_that_is_not_there_is_unavailable(self, tmp_path):
        async def test() -> None:
            with pytest.raises(UnavailableError, match="no worker can be started"):
                await SubprocessBackend({}, tmp_path, (str(tmp_path / "none"),)).start()

        run(test)

    @pytest.mark.parametrize("answer", ["''", "'{'", "'[1'", "'null'", "'x' * (2 << 20)"])
    def test_an_unreadable_answer_counts_as_a_crash(self, make, answer):
        async def test() -> None:
            ready = "import sys; print('{\"ready\": true}', flush=True); input()\n"
            worker = await make(ready + f"sys.stdout.write({answer})\n").start()
            assert await worker.command({}, lambda _: None) == {}
            assert worker.ended
            await worker.stop(LONG)

        run(test)

    def test_a_scratch_folder_that_cannot_be_read_holds_up_nothing(self, tmp_path):
        async def test() -> None:
            place = tmp_path / "file"
            place.write_bytes(b"no folder")
            ready = "print('{\"ready\": true}', flush=True); input(); print('{\"done\": true}')"
            worker = await SubprocessBackend(os.environ, Path(place), (sys.executable, "-c", ready)).start()
            assert await worker.command({}, lambda _: None) == {"done": True}
            await worker.stop(LONG)

        run(test)
