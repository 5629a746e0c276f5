"""Composes the sampler and serves until a signal: ``python -m sampler_service``."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rowmint.objects import open_store
from rowmint.registry import open_models_registry
from rowmint.rpc.models import model_service
from rowmint.rpc.process import run
from rowmint.rpc.server import Server, ServerOptions, serve_until_signal
from rowmint.synthesizer import choose_kernel
from sampler_service.model_cache import ModelCache
from sampler_service.sampler import Sampler
from sampler_service.servicers import SamplingServicer, StreamLimits, sampling_service
from sampler_service.settings import SamplerSettings

_LOADERS = 4  # threads that wait for registry and store


@contextmanager
def composed(settings: SamplerSettings) -> Iterator[tuple[Server, SamplingServicer]]:
    """Build a sampler, not started yet, and its servicer; within a running event loop."""
    registry = open_models_registry(settings.models_registry_url)
    store = open_store(settings.model_store_url, settings.store_options)
    # Streams run side by side on `threads` threads, so a product has one.
    kernel = choose_kernel(settings.kernel, threads=1)
    loaders = ThreadPoolExecutor(_LOADERS, thread_name_prefix="load")
    workers = ThreadPoolExecutor(settings.threads, thread_name_prefix="rows")
    try:
        models = ModelCache(registry.models, store, kernel, loaders, settings.model_cache_bytes)
        sampler = Sampler(models, workers, lambda: secrets.randbits(64), settings.max_rows)
        limits = StreamLimits(settings.max_streams, settings.write_timeout)
        servicer = SamplingServicer(sampler, workers, limits)
        server = Server(
            [sampling_service(servicer), model_service(registry.models, store)],
            ServerOptions(
                settings.listen,
                grace_seconds=settings.grace_seconds,
                max_message_bytes=settings.max_message_bytes,
                max_connection_age_seconds=settings.max_connection_age_seconds,
            ),
        )
        yield server, servicer
    finally:
        workers.shutdown(wait=False, cancel_futures=True)
        loaders.shutdown(wait=False, cancel_futures=True)
        registry.close()


async def serve(settings: SamplerSettings) -> None:
    """Serve until a signal."""
    with composed(settings) as (server, servicer):

        async def closing() -> None:
            servicer.drain()

        await serve_until_signal(server, "sampler", closing)


def main() -> None:
    """Read the settings from the environment and serve."""
    run("sampler", SamplerSettings, serve)


if __name__ == "__main__":
    main()
