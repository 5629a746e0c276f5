"""A sampler that serves the golden models in a thread of the test, and what is read from it."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from rowmint.objects import open_store
from rowmint.registry import open_models_registry
from rowmint.rpc.models import model_service
from rowmint.rpc.orca import LoadReport, load_service
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.rpc.server import Server, ServerOptions
from rowmint.synthesizer import choose_kernel
from sampler_service.admission import Admission, Allowance
from sampler_service.drain import Drain
from sampler_service.model_cache import ModelCache
from sampler_service.pacing import Pacing
from sampler_service.plan_cache import PlanCache
from sampler_service.replica import Replica
from sampler_service.sampler import Sampler
from sampler_service.servicer import SamplingServicer, sampling_service
from sampler_service.sessions import SessionServices
from sampler_service.statistics import Statistics


@dataclass(frozen=True)
class Served:
    """Parts of a sampler that a test looks at, and the loop they are for."""

    admission: Admission
    drain: Drain
    pacing: Pacing
    loop: asyncio.AbstractEventLoop


@contextmanager
def replica(
    home,
    kernel: str = "numpy",
    *,
    streams: int = 8,
    project: int = 0,
    write_timeout: float = 60.0,
    max_seconds: float = 0.0,
):
    """Serve in a thread with an event loop of its own; yield the address and what the test looks at."""
    registry = open_models_registry(f"sqlite:///{home}/registry/models.db")
    store = open_store(f"file://{home}/models")
    started, ending = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    found = {}

    async def serve(loaders, workers):
        lookups = ProjectThreads(loaders, 4)
        cache = ModelCache(registry.models, store, choose_kernel(kernel), loaders, 1 << 28, lookups=lookups)
        services = SessionServices(
            Sampler(cache, PlanCache(lambda _: workers), lambda _: workers, lambda: 99),
            lambda _: workers,
            Admission(Allowance(streams, 10**6), Allowance(project, 0)),
            Drain(),
            Replica(lambda: "one", lambda: LoadReport(0.5, 20.0)),
            Statistics(registry.models, cache.loaded_bytes, clock=time.monotonic, now=time.time, lookups=lookups),
            max_seconds=max_seconds,
        )
        pacing = Pacing(write_timeout)
        server = Server(
            [
                sampling_service(SamplingServicer(services, pacing)),
                model_service(registry.models, store, lookups, 3 << 20),
                load_service(lambda: LoadReport(0.5, 20.0)),
            ],
            ServerOptions("127.0.0.1:0"),
        )
        served = Served(services.admission, services.drain, pacing, asyncio.get_running_loop())
        found.update(port=await server.start(), served=served)
        started.set()
        await ending.wait()
        await server.stop()

    def run():
        asyncio.set_event_loop(loop)
        with ThreadPoolExecutor(2) as loaders, ThreadPoolExecutor(2) as workers:
            loop.run_until_complete(serve(loaders, workers))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(30)
        yield f"127.0.0.1:{found['port']}", found["served"]
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(30)
        loop.close()
        registry.close()
