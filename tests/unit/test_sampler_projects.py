"""What a sampler does for one project makes no call of another faster, and delays none."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from rowmint.names import ModelName
from rowmint.sampling import plan
from rowmint.sampling.rows import CandidateCache, RowSource
from rowmint.synthesizer import choose_kernel
from rowmint.synthesizer.latent.proposal import LatentProposal
from sampler_service.model_cache import ModelCache
from sampler_service.plan_cache import PlanCache
from sampler_service.requests import SampleRequest
from sampler_service.sampler import Sampler
from sampler_service.scheduler import FairScheduler
from tests.golden.streams import WHERES, golden_catalog, read, reference, sampler_of
from tests.unit.inline_threads import inline_threads
from tests.unit.test_sampler_cache import counted_compilations
from tests.waiting import PATIENCE, wait_until

RARE = SampleRequest(100, model=reference("ctgan"), where=WHERES["many tests"], seed=1, max_reuse=64)
ELSEWHERE = replace(RARE, model=replace(RARE.model, model=ModelName("elsewhere", "ctgan")))


def test_projects_share_neither_plans_nor_candidates(monkeypatch):
    found = []
    get = CandidateCache.get

    def noting(cache, key):
        kept = get(cache, key)
        found.append(kept is not None)
        return kept

    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler:
        monkeypatch.setattr(CandidateCache, "get", noting)
        first = asyncio.run(read(sampler, RARE))
        compiled = counted_compilations(monkeypatch)
        assert asyncio.run(read(sampler, RARE)).body == first.body
        assert (compiled, found) == ([], [False, True])
        assert asyncio.run(read(sampler, ELSEWHERE)).body == first.body
        assert (len(compiled), found) == (1, [False, True, False])


class Gate:
    """Holds threads that come to it, until it is opened."""

    def __init__(self, loop):
        self._loop = loop
        self._open = threading.Event()
        self._come = asyncio.Semaphore(0)

    def hold(self):
        """Come to the gate, on any thread but the loop's."""
        self._loop.call_soon_threadsafe(self._come.release)
        assert self._open.wait(PATIENCE)

    async def come(self, count):
        """Wait until so many threads are there."""
        for _ in range(count):
            await asyncio.wait_for(self._come.acquire(), PATIENCE)

    def open(self):
        self._open.set()


@contextmanager
def fair_sampler(threads):
    """A sampler as the service composes it, with one thread that loads; and its scheduler."""
    scheduler, catalog = FairScheduler(threads), golden_catalog()
    with ThreadPoolExecutor(1) as loaders:
        models = ModelCache(catalog, catalog.store, choose_kernel("numpy"), loaders, 1 << 28, lookups=inline_threads())
        try:
            yield Sampler(models, PlanCache(scheduler.lane), scheduler.lane, lambda: 1), models, scheduler
        finally:
            scheduler.close()


def test_a_row_of_one_project_comes_before_another_projects_plan_is_compiled(monkeypatch):
    done = []
    pilot_steps, block = plan.pilot_steps, RowSource.block

    async def scenario(sampler, scheduler):
        gate = Gate(asyncio.get_running_loop())

        def held(*arguments):
            gate.hold()
            steps = pilot_steps(*arguments)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value
                done.append("tile")
                yield

        def noting(*arguments):
            done.append("row")
            return block(*arguments)

        # Both models are loaded before, and no row is noted yet.
        for each in (RARE, ELSEWHERE):
            await read(sampler, replace(each, where=()))
        monkeypatch.setattr(plan, "pilot_steps", held)
        monkeypatch.setattr(RowSource, "block", noting)
        planned = asyncio.create_task(sampler.plan(RARE, 1))
        await gate.come(1)
        rows = asyncio.create_task(read(sampler, replace(ELSEWHERE, where=())))
        await asyncio.to_thread(wait_until, lambda: scheduler.queued, "the row waits for the thread")
        gate.open()
        await asyncio.gather(planned, rows)

    with fair_sampler(1) as (sampler, _, scheduler):
        asyncio.run(scenario(sampler, scheduler))
    assert done.count("tile") >= 8
    # The step that held the thread is finished; then it is the other project's turn.
    assert done.index("row") <= 1


def test_models_are_found_while_every_thread_draws_a_pilot(monkeypatch):
    candidates = LatentProposal.candidates

    async def scenario(sampler, models, threads):
        gate = Gate(asyncio.get_running_loop())

        def held(*arguments):
            gate.hold()
            return candidates(*arguments)

        await models.get(RARE.model)
        monkeypatch.setattr(LatentProposal, "candidates", held)
        wheres = [WHERES["many tests"][:count] for count in range(1, threads + 1)]
        plans = [asyncio.create_task(sampler.plan(replace(RARE, where=where), 1)) for where in wheres]
        await gate.come(threads)
        # No thread is left that computes; registry and store are read by others.
        try:
            loaded = await models.get(reference("independent"))
            assert loaded.model.digest
            assert not any(planned.done() for planned in plans)
        finally:
            gate.open()
        await asyncio.gather(*plans)

    with fair_sampler(4) as (sampler, models, _):
        asyncio.run(scenario(sampler, models, 4))
