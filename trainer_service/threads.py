"""The trainer's threads for blocking work, by kind: none of one kind waits for those of another."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rowmint.rpc.project_threads import ProjectThreads

_REGISTRY, _REGISTRY_PER_PROJECT = 12, 8
# They wait for the store, and only for a moment for the registry and one of its connections.
_UPLOAD, _UPLOAD_PER_PROJECT = 16, 12
_UPKEEP, _UPKEEP_PER_PROJECT = 2, 1


@dataclass(frozen=True)
class TrainerThreads:
    """Threads of each kind.

    Attributes:
        registry: For what calls read and write in the registry.
        upload: For segments on their way to the store.
        upkeep: For deleting objects.
    """

    registry: ProjectThreads
    upload: ProjectThreads
    upkeep: ProjectThreads


@contextmanager
def trainer_threads() -> Iterator[TrainerThreads]:
    """Start the threads; on leaving, what waits is dropped and what runs is left to end by itself."""
    with ExitStack() as stack:

        def pool(label: str, threads: int, per_project: int) -> ProjectThreads:
            executor = ThreadPoolExecutor(threads, thread_name_prefix=label)
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
            return ProjectThreads(executor, per_project)

        yield TrainerThreads(
            pool("registry", _REGISTRY, _REGISTRY_PER_PROJECT),
            pool("upload", _UPLOAD, _UPLOAD_PER_PROJECT),
            pool("upkeep", _UPKEEP, _UPKEEP_PER_PROJECT),
        )
