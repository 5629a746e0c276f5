"""Loaded models, bounded in bytes, each loaded once for all calls of a project that need it at the same time.

Projects share nothing, not even where their models are equal: how fast an answer comes would tell one of the other.
"""

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from rowmint.artifact import Model, read_model
from rowmint.errors import DataLossError, LimitError, ResourceNotFoundError, UnavailableError, WrongStateError
from rowmint.names import ModelName, ModelVersionName, ModelVersionRef
from rowmint.objects import ObjectStore
from rowmint.registry import ModelVersionRecord, VersionState
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.sampling.verification import draw_first_row
from rowmint.stored_versions import stored_files
from rowmint.synthesizer import Kernel
from sampler_service import metrics
from sampler_service.single_flight import SingleFlightCache
from sampler_service.trust import Trust

T = TypeVar("T")


def _nothing() -> None:
    """Require nothing of the store."""


_RESOLVED = 4096  # references remembered for when the registry is away
_RESOLVE_SECONDS = 5.0
_RETRY_SECONDS = 0.1  # another replica may have room at once
_WEIGHTS_FACTOR, _MANIFEST_FACTOR = 10, 8  # memory by bytes of a file, measured: tests/unit/test_loading_memory.py


def loading_bytes(manifest_size: int, weights_size: int) -> int:
    """Return about how much memory loading a model takes at its peak, the bytes of its two files among it."""
    return _MANIFEST_FACTOR * manifest_size + _WEIGHTS_FACTOR * weights_size


class VersionResolver(Protocol):
    """Finds versions; `rowmint.registry.ModelLedger` does. Thread-safe."""

    def resolve(self, ref: ModelVersionRef, *, deleted: bool = False, unpublished: bool = False) -> ModelVersionRecord:
        """Return the version that a number, an alias or a model digest stands for now.

        A version that is deleted, or that is staged or rejected, is found by its number and if requested only.

        Raises:
            ResourceNotFoundError: There is none.
            UnavailableError: The registry cannot be reached.
        """
        ...


@dataclass(frozen=True)
class LoadedModel:
    """A version, resolved and loaded.

    Attributes:
        name: The version.
        model: What it makes rows with.
    """

    name: ModelVersionName
    model: Model


@dataclass(frozen=True)
class _Key:
    """What a loaded model is found by: equal keys are equal files, and of one project."""

    project: str
    manifest_sha256: bytes
    weights_sha256: bytes


class ModelCache:
    """Models by version, alias or digest, verified before they are parsed and warm before they are handed out.

    While the registry cannot be reached, a reference stands for what it was resolved to last, so that models that are
    loaded are still served. For one event loop; the work is done in `executor`.

    What counts is the memory that a model takes. One that is being loaded counts from the start, by the most that
    loading takes, and one that is evicted until no stream uses it: together with what is kept they take twice
    `max_bytes` at most.

    Args:
        resolver: Where versions are found.
        store: Where their objects are.
        kernel: Runs the networks.
        executor: Threads that load.
        max_bytes: Memory of the models kept, bytes.
        lookups: Threads for look-ups in the registry, which wait for no load.
        trust: Says which versions may be served; None: all.
        require_store: Called before objects are read, in the executor; raises where the store is not the registry's.
        sees_unpublished: Says whether the caller that is being served may have staged versions of a project, by its id;
            called in the task of the call.
    """

    def __init__(
        self,
        resolver: VersionResolver,
        store: ObjectStore,
        kernel: Kernel,
        executor: Executor,
        max_bytes: int,
        *,
        lookups: ProjectThreads,
        trust: Trust | None = None,
        require_store: Callable[[], None] = _nothing,
        sees_unpublished: Callable[[str], bool] = lambda _project: False,
    ) -> None:
        self._trust = trust
        self._require_store = require_store
        self._sees_unpublished = sees_unpublished
        self._resolver = resolver
        self._store = store
        self._kernel = kernel
        self._executor = executor
        self._lookups = lookups
        self._max_bytes = max_bytes
        self._models: SingleFlightCache[_Key, Model] = SingleFlightCache(
            max_bytes, lambda model: model.memory_bytes, self._evicted
        )
        self._loading = 0
        self._leaving: list[weakref.ref[Model]] = []  # evicted, and maybe still in use
        self._memory: OrderedDict[_Key, int] = OrderedDict()  # of models that were loaded before
        self._keys: OrderedDict[ModelVersionName, _Key] = OrderedDict()
        self._resolved: OrderedDict[ModelVersionRef, ModelVersionRecord] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """Memory of the models kept."""
        return self._models.total

    @property
    def held_bytes(self) -> int:
        """Memory of the models kept, of those being loaded, and of those evicted that are still in use."""
        self._leaving = [leaving for leaving in self._leaving if leaving() is not None]
        in_use = sum(model.memory_bytes for leaving in self._leaving if (model := leaving()) is not None)
        return self._models.total + self._loading + in_use

    def loaded_bytes(self, name: ModelVersionName) -> int:
        """Return the bytes of a version that is loaded now, or 0."""
        key = self._keys.get(name)
        return 0 if key is None else self._models.weight_of(key)

    async def get(self, ref: ModelVersionRef, *, deleted: bool = False) -> LoadedModel:
        """Return the model that `ref` stands for now: a published version, or a staged one if the caller may have it.

        Args:
            ref: The version.
            deleted: Whether it may be one that is deleted but not purged: a stream that has begun is resumed.

        Raises:
            ResourceNotFoundError: There is none.
            WrongStateError: It was rejected.
            UntrustedModelError: No trusted key has signed it.
            DataLossError: Its objects are not what the registry says.
            LimitError: It is larger than the cache.
            UnavailableError: Registry or store cannot be reached, the store is another registry's, or models in use
                leave no room.
        """
        loop = asyncio.get_running_loop()
        record = await self._resolve(ref, deleted=deleted)
        # Before anything is read: what no trusted key has signed is not parsed.
        await self._require_trust(ref.model, record)
        # The project that the caller is authorized for, whatever the registry says whose the model is.
        key = _Key(ref.model.project, record.manifest_sha256, record.weights_sha256)
        # What was never loaded is refused by its files alone.
        self._require_room(record, self._memory.get(key, record.manifest_size + record.weights_size))
        missed = False

        async def load() -> Model:
            nonlocal missed
            missed = True
            metrics.cache_miss()
            began = loop.time()
            with self._reserved(self._expected_bytes(key, record)):
                model = await loop.run_in_executor(self._executor, self._load, record)
            metrics.model_loaded(loop.time() - began)
            self._memory[key] = model.memory_bytes
            self._memory.move_to_end(key)
            if len(self._memory) > _RESOLVED:
                self._memory.popitem(last=False)
            self._require_room(record, model.memory_bytes)
            self._require_share(model.memory_bytes)  # it may take more than was expected
            return model

        model = await self._models.get(key, load)
        if not missed:
            metrics.cache_hit()
        self._keys[record.name] = key
        self._keys.move_to_end(record.name)
        if len(self._keys) > _RESOLVED:
            self._keys.popitem(last=False)
        return LoadedModel(record.name, model)

    def _require_room(self, record: ModelVersionRecord, size: int) -> None:
        if size > self._max_bytes:
            raise LimitError(
                f"{record.name} takes {size} bytes of memory or more, and this sampler keeps models of"
                f" {self._max_bytes} at most; raise ROWMINT_MODEL_CACHE_BYTES",
                metadata=self._limit,
            )

    def _expected_bytes(self, key: _Key, record: ModelVersionRecord) -> int:
        """Return what a model takes while it is loaded, or once it is, where that is known to be more."""
        peak = loading_bytes(record.manifest_size, record.weights_size)
        return min(max(peak, self._memory.get(key, 0)), self._max_bytes)

    @contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        """Count a model as loading."""
        self._require_share(size)
        self._loading += size
        try:
            yield
        finally:
            self._loading -= size

    def _require_share(self, size: int) -> None:
        """Make room for a model: those used least recently are evicted, and it is refused where too many are in use."""
        self._models.make_room(self._loading + size)
        if self.held_bytes + size > 2 * self._max_bytes:
            raise UnavailableError(
                f"models that streams use take as much memory as this sampler has for them (twice {self._max_bytes}"
                " bytes); retry at another replica, retry later, or raise ROWMINT_MODEL_CACHE_BYTES",
                metadata=self._limit,
                retry_after=_RETRY_SECONDS,
            )

    @property
    def _limit(self) -> dict[str, str]:
        return {"limit": str(self._max_bytes), "setting": "ROWMINT_MODEL_CACHE_BYTES"}

    def _evicted(self, model: Model) -> None:
        metrics.cache_evicted()
        self._leaving.append(weakref.ref(model))

    async def _require_trust(self, model: ModelName, record: ModelVersionRecord) -> None:
        if self._trust is not None and not self._trust.is_known(model, record):
            await self._read_registry(model.project, partial(self._trust.require, model, record))

    async def _read_registry(self, project: str, read: Callable[[], T]) -> T:
        """Return what the registry answers; one that hangs counts as unreachable."""
        try:
            return await asyncio.wait_for(self._lookups.run(project, read), _RESOLVE_SECONDS)
        except TimeoutError as error:
            raise UnavailableError("the registry does not answer", retry_after=1.0) from error

    async def _resolve(self, ref: ModelVersionRef, *, deleted: bool) -> ModelVersionRecord:
        unpublished = ref.version is not None and self._sees_unpublished(ref.model.project)
        try:
            record = await self._read_registry(
                ref.model.project, partial(self._resolver.resolve, ref, deleted=deleted, unpublished=unpublished)
            )
        except UnavailableError:
            known = self._resolved.get(ref)
            # What another caller has requested may be hidden from this one.
            if known is None or not (unpublished or known.state is VersionState.PUBLISHED):
                raise
            record = known
        except ResourceNotFoundError:
            self._resolved.pop(ref, None)
            raise
        if record.state is VersionState.REJECTED:
            self._resolved.pop(ref, None)
            raise WrongStateError(
                f"{record.name} was rejected and is never served ({record.rejection_reason}); take a published version"
                f" of {ref.model}, such as its latest",
                metadata={"name": str(record.name), "state": record.state},
            )
        self._resolved[ref] = record
        self._resolved.move_to_end(ref)
        if len(self._resolved) > _RESOLVED:
            self._resolved.popitem(last=False)
        return record

    def _load(self, record: ModelVersionRecord) -> Model:
        self._require_store()
        try:
            return self._read(record)
        except DataLossError as error:
            # An operator who restores it needs to know which, wherever the damage was found.
            error.metadata.setdefault("name", str(record.name))
            raise

    def _read(self, record: ModelVersionRecord) -> Model:
        manifest, weights = stored_files(self._store, record)
        model = read_model(manifest, weights, self._kernel, record.manifest_digest)
        if model.digest != record.model_digest:
            raise DataLossError(f"{record.name} does not have the model digest the registry says; delete the version")
        draw_first_row(model)
        return model
