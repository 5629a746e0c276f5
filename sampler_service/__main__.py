"""Composes the sampler and serves until a signal: ``python -m sampler_service``."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from tempfile import TemporaryDirectory

import structlog

from rowmint.names import ModelVersionName
from rowmint.objects import open_store
from rowmint.observability.calls import CallObserver
from rowmint.observability.exporter import mark_dead, serve_metrics, shared_registry
from rowmint.observability.service_telemetry import service_telemetry
from rowmint.registry import open_models_registry
from rowmint.rpc import orca
from rowmint.rpc.caller import sees_unpublished
from rowmint.rpc.models import model_service
from rowmint.rpc.orca import load_service
from rowmint.rpc.process import run
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.rpc.server import INSECURE, Server, ServerOptions, ServerSecurity, serve_until_signal
from rowmint.rpc.server_security import scraper_authorization, server_security
from rowmint.sampling.stream import BlockDone
from rowmint.synthesizer import choose_kernel
from sampler_service import metrics
from sampler_service.admission import Admission, Allowance
from sampler_service.drain import Drain
from sampler_service.load import EventRate
from sampler_service.model_cache import ModelCache
from sampler_service.pacing import Pacing
from sampler_service.plan_cache import PlanCache
from sampler_service.processes import end_with_parent, serve_together
from sampler_service.replica import Replica
from sampler_service.sampler import Sampler
from sampler_service.scheduler import FairScheduler
from sampler_service.servicer import SamplingServicer, sampling_service
from sampler_service.sessions import SessionServices
from sampler_service.settings import SamplerSettings, sibling_environment
from sampler_service.statistics import Statistics
from sampler_service.store_check import StoreCheck
from sampler_service.trust import Trust, open_trusted_keys

_log = structlog.get_logger(__name__)

_LOADERS = 2  # threads that read and warm models
_LOOKUPS, _LOOKUPS_PER_PROJECT = 8, 4  # threads that wait for the registry


@contextmanager
def composed(
    settings: SamplerSettings, observers: Sequence[CallObserver] = (), security: ServerSecurity = INSECURE
) -> Iterator[tuple[Server, Drain]]:
    """Build a sampler, not started yet, and its drain; within a running event loop. Observers see every call."""
    registry = open_models_registry(settings.models_registry_url)
    store = open_store(settings.model_store_url, settings.store_options)
    # Streams run side by side on `threads` threads, so a product has one.
    kernel = choose_kernel(settings.kernel, threads=1)
    loaders = ThreadPoolExecutor(_LOADERS, thread_name_prefix="load")
    registry_threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="registry")
    lookups = ProjectThreads(registry_threads, _LOOKUPS_PER_PROJECT)
    scheduler = FairScheduler(settings.threads)
    errors = EventRate()

    def shed(reason: str) -> None:
        metrics.shed(reason)
        errors.count(time.monotonic())

    def load() -> orca.LoadReport:
        now = scheduler.load()
        return orca.LoadReport(now.utilization, now.rate, errors.rate(time.monotonic()))

    def observe(version: ModelVersionName, done: BlockDone) -> None:
        scheduler.count(done.candidates)
        statistics.count_block(version, done)

    admission = Admission(
        Allowance(settings.max_streams, settings.max_rows_in_flight, settings.max_work_bytes),
        Allowance(settings.max_project_streams, settings.max_project_rows_in_flight),
        shed,
    )
    drain = Drain()
    drain.add(admission)
    metrics.show(
        queue_blocks=lambda: scheduler.queued,
        running_blocks=lambda: scheduler.running,
        streams=lambda: admission.streams,
        rows_in_flight=lambda: admission.rows,
        utilization=lambda: scheduler.load().utilization,
    )
    try:
        trust = Trust(open_trusted_keys(settings.trusted_keys), registry.models) if settings.trusted_keys else None
        models = ModelCache(
            registry.models,
            store,
            kernel,
            loaders,
            settings.model_cache_bytes,
            lookups=lookups,
            trust=trust,
            require_store=StoreCheck(registry.identity, store),
            sees_unpublished=sees_unpublished,
        )
        metrics.show(model_cache_bytes=lambda: models.size_bytes)
        statistics = Statistics(
            registry.models,
            models.loaded_bytes,
            clock=time.monotonic,
            now=time.time,
            lookups=lookups,
            sees_unpublished=sees_unpublished,
        )
        sampler = Sampler(
            models,
            PlanCache(scheduler.lane),
            scheduler.lane,
            lambda: secrets.randbits(64),
            max_rows=settings.max_rows,
            observe=observe,
        )
        services = SessionServices(
            sampler,
            scheduler.lane,
            admission,
            drain,
            replica=Replica(lambda: _replica_name(settings, server.port), load),
            statistics=statistics,
            count_candidates=scheduler.count,
            max_seconds=settings.max_stream_seconds,
        )
        servicer = SamplingServicer(services, Pacing(settings.write_timeout), settings.max_plan_bytes)
        server = Server(
            [
                sampling_service(servicer),
                model_service(registry.models, store, lookups, settings.max_page_bytes),
                load_service(load),
            ],
            ServerOptions(
                settings.listen,
                grace_seconds=settings.grace_seconds,
                max_message_bytes=settings.max_message_bytes,
                max_calls=settings.max_calls,
                max_connection_age_seconds=settings.max_connection_age_seconds,
                max_call_seconds=settings.max_stream_seconds and settings.max_stream_seconds + settings.write_timeout,
                shares_port=settings.shares_port,
            ),
            observers,
            security,
            shed,
        )
        yield server, drain
    finally:
        scheduler.close()
        for threads in (loaders, registry_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        registry.close()


def _replica_name(settings: SamplerSettings, port: int) -> str:
    """Return the name that distinguishes this replica: where it is reached, as far as it knows."""
    host = settings.listen.rpartition(":")[0].strip("[]")
    host = socket.gethostname() if host in {"", "0.0.0.0", "::"} else host  # noqa: S104  # recognised, not bound
    return f"{host}:{port}" + (f"/{os.getpid()}" if settings.shares_port else "")


async def serve(settings: SamplerSettings) -> None:
    """Serve until a signal, in this process or in several."""
    if settings.processes > 1:
        with _metrics_together(settings) as (own, ended):
            environment = {**sibling_environment(settings), **own}
            await serve_together(settings.listen, settings.processes, environment, ended)
        return
    if settings.shares_port:
        end_with_parent()
    with (
        service_telemetry(
            "sampler",
            metrics.REGISTRY,
            metrics.CALLS,
            settings.metrics_listen,
            tls=settings.tls_files,
            may_scrape=scraper_authorization(settings),
        ) as observers,
        server_security(settings, "sampler", lambda: datetime.now(UTC)) as security,
        composed(settings, observers, security) as (server, drain),
    ):
        fresh = asyncio.create_task(metrics.keep_fresh())

        async def closing() -> None:
            drain.begin()

        try:
            await serve_until_signal(server, "sampler", closing)
        finally:
            fresh.cancel()


@contextmanager
def _metrics_together(settings: SamplerSettings) -> Iterator[tuple[dict[str, str], Callable[[int], None]]]:
    """Serve the metrics of processes that are going to be started; yield their environment and a listener for ends."""
    if not settings.metrics_listen:
        yield {}, lambda _: None
        return
    with TemporaryDirectory(prefix="rowmint-metrics-") as folder:
        server = serve_metrics(
            settings.metrics_listen, shared_registry(folder), settings.tls_files, scraper_authorization(settings)
        )
        _log.info("serving metrics", service="sampler", port=server.port)
        try:
            own = {"PROMETHEUS_MULTIPROC_DIR": folder, "ROWMINT_METRICS_LISTEN": ""}
            yield own, lambda pid: mark_dead(pid, folder)
        finally:
            server.close()


def main() -> None:
    """Read the settings from the environment and serve."""
    run("sampler", SamplerSettings, serve, {"processes": "processes that share the port and the machine's cores"})


if __name__ == "__main__":
    main()
