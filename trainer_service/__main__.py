"""Composes the trainer and serves until a signal: ``python -m trainer_service``."""

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from rowmint.failpoints import arm
from rowmint.observability.calls import CallObserver
from rowmint.observability.service_telemetry import service_telemetry
from rowmint.registry import migrate, open_registry
from rowmint.rpc.allocator import prefer_small_heaps, release_free_memory
from rowmint.rpc.models import model_service
from rowmint.rpc.process import run
from rowmint.rpc.server import Server, ServerOptions, ServerSecurity, Service, serve_until_signal
from rowmint.rpc.server_security import scraper_authorization, server_security
from rowmint.v1 import (
    dataset_service_pb2_grpc,
    model_admin_service_pb2_grpc,
    training_service_pb2_grpc,
)
from trainer_service import metrics
from trainer_service.datasets.upload import UploadLimits, UploadService
from trainer_service.devices import cuda_devices, has_cuda
from trainer_service.garbage import OrphanRules, Sweeper
from trainer_service.home import prepare_home
from trainer_service.jobs.backends.subprocesses import SubprocessBackend
from trainer_service.jobs.notifier import JobNotifier, WatchLimits
from trainer_service.jobs.pool import WorkerPool
from trainer_service.jobs.runners import PHASES
from trainer_service.jobs.stores import open_stores
from trainer_service.servicers.datasets import DatasetServicer
from trainer_service.servicers.model_admin import ModelAdminServicer
from trainer_service.servicers.training import TrainingServicer
from trainer_service.settings import TrainerSettings, worker_environment
from trainer_service.signer import VersionSigner, open_signing_key
from trainer_service.store_claims import claim_stores
from trainer_service.threads import TrainerThreads, trainer_threads
from trainer_service.upload_streams import UploadStreamLimits, UploadStreams

_LOOK_SECONDS = 0.1  # from one look at the watched jobs to the next
_RELEASE_SECONDS = 2.0  # after the last upload stream has ended


async def serve(settings: TrainerSettings) -> None:
    """Serve until a signal."""
    arm(settings.failpoint)
    with (
        service_telemetry(
            "trainer",
            metrics.REGISTRY,
            metrics.CALLS,
            settings.metrics_listen,
            tls=settings.tls_files,
            may_scrape=scraper_authorization(settings),
        ) as observers,
        server_security(settings, "trainer", lambda: datetime.now(UTC)) as security,
        trainer_threads() as threads,
    ):
        await _serve(settings, observers, security, threads)


async def _serve(
    settings: TrainerSettings, observers: Sequence[CallObserver], security: ServerSecurity, threads: TrainerThreads
) -> None:
    loop = asyncio.get_running_loop()
    prefer_small_heaps()
    await asyncio.to_thread(prepare_home, settings)
    registry = open_registry(settings.registry_url)
    stores = open_stores(settings)
    data, models = stores.data, stores.models
    signer = VersionSigner(registry.models, models, open_signing_key(settings.signing_key))
    await asyncio.to_thread(migrate, registry.engine)
    # Before anything is swept, run or served: a registry that is not theirs would serve what it does not know.
    await asyncio.to_thread(claim_stores, registry, stores)
    sweeper = Sweeper(
        registry,
        stores,
        settings.scratch,
        seconds=settings.sweep_seconds,
        upload_idle_seconds=settings.upload_idle_seconds,
        orphans=OrphanRules(settings.orphan_seconds, settings.keep_orphans_seconds),
    )
    pool = WorkerPool(
        registry.jobs,
        SubprocessBackend(worker_environment(), settings.scratch),
        settings.for_worker(),
        workers=settings.workers,
        max_project_jobs=settings.max_project_jobs,
        holder=f"{socket.gethostname()}:{os.getpid()}",
        lease_seconds=settings.lease_seconds,
        stop_seconds=settings.grace_seconds,
    )
    upload = UploadService(
        registry.datasets,
        data,
        clock=time.monotonic,
        segment_bytes=settings.segment_bytes,
        segment_seconds=settings.segment_seconds,
        limits=UploadLimits(settings.max_open_uploads, settings.max_project_bytes),
    )
    datasets = DatasetServicer(
        registry.datasets,
        data,
        upload,
        pool.wake,
        streams=UploadStreams(
            UploadStreamLimits(
                settings.max_upload_streams, settings.max_project_upload_streams, settings.upload_stream_idle_seconds
            ),
            metrics.shed,
            # Once gRPC has dropped what it keeps of them, and of their connections.
            on_idle=partial(loop.call_later, _RELEASE_SECONDS, loop.run_in_executor, None, release_free_memory),
        ),
        threads=threads,
        max_page_bytes=settings.max_page_bytes,
    )
    training = TrainingServicer(
        registry,
        pool,
        pool.wake,
        threads=threads.registry,
        job_threads=settings.threads,
        cuda=lambda: has_cuda(settings.cuda, cuda_devices),
        max_page_bytes=settings.max_page_bytes,
        notifier=JobNotifier(
            lambda uids: asyncio.to_thread(registry.jobs.heads, uids),
            WatchLimits(settings.max_watches, settings.max_project_watches),
            metrics.shed,
            partial(asyncio.sleep, _LOOK_SECONDS),
        ),
    )
    admin = ModelAdminServicer(registry.models, settings.keep_deleted_seconds, signer, threads.registry)
    server = Server(
        [
            Service(
                "rowmint.v1.DatasetService",
                lambda server: dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(datasets, server),
            ),
            Service(
                "rowmint.v1.TrainingService",
                lambda server: training_service_pb2_grpc.add_TrainingServiceServicer_to_server(training, server),
            ),
            Service(
                "rowmint.v1.ModelAdminService",
                lambda server: model_admin_service_pb2_grpc.add_ModelAdminServiceServicer_to_server(admin, server),
            ),
            model_service(registry.models, models, threads.registry, settings.max_page_bytes),
        ],
        ServerOptions(
            settings.listen,
            grace_seconds=settings.grace_seconds,
            max_message_bytes=settings.max_message_bytes,
            max_calls=settings.max_calls,
            max_connection_age_seconds=settings.max_connection_age_seconds,
        ),
        observers,
        security,
        metrics.shed,
    )
    sweeper.start()
    metrics.declare_phases(PHASES)
    figures = metrics.JobCollector(registry.jobs)
    if settings.metrics_listen:  # else its reads of the registry would serve nothing
        metrics.REGISTRY.register(figures)
        figures.start()
    jobs = asyncio.create_task(pool.run())

    async def closing() -> None:
        datasets.close()
        training.close()
        # Jobs are given back while calls are drained: what stops the trainer may not wait for both in turn.
        await pool.close()

    try:
        await serve_until_signal(server, "trainer", closing, pool.kill)
    finally:
        sweeper.close()
        figures.close()
        await pool.close()
        await jobs
        registry.close()


def main() -> None:
    """Read the settings from the environment and serve."""
    run("trainer", TrainerSettings, serve)


if __name__ == "__main__":
    main()
