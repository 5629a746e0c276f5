"""Loaded models, bounded in bytes, each loaded once for all calls of a project that need it at the same time.

Projects share nothing, not even where their models are equal: how fast an answer comes would tell one of the other.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
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

_RESOLVED = 4096  # references remembered for when the registry is away
_RESOLVE_SECONDS = 5.0


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


@dataclass(frozen=True)
class _Weighed:
    """A model and the bytes it counts for: its arrays and its manifest."""

    model: Model
    size_bytes: int


class ModelCache:
    """Models by version, alias or digest, verified before they are parsed and warm before they are handed out.

    While the registry cannot be reached, a reference stands for what it was resolved to last, so that models that are
    loaded are still served. For one event loop; the work is done in `executor`.

    Args:
        resolver: Where versions are found.
        store: Where their objects are.
        kernel: Runs the networks.
        executor: Threads that load.
        max_bytes: Bytes kept.
        lookups: Threads for look-ups in the registry, which wait for no load.
        trust: Says which versions may be served; None: all.
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
        sees_unpublished: Callable[[str], bool] = lambda _project: False,
    ) -> None:
        self._trust = trust
        self._sees_unpublished = sees_unpublished
        self._resolver = resolver
        self._store = store
        self._kernel = kernel
        self._executor = executor
        self._lookups = lookups
        self._max_bytes = max_bytes
        self._models: SingleFlightCache[_Key, _Weighed] = SingleFlightCache(
            max_bytes, lambda held: held.size_bytes, metrics.cache_evicted
        )
        self._keys: OrderedDict[ModelVersionName, _Key] = OrderedDict()
        self._resolved: OrderedDict[ModelVersionRef, ModelVersionRecord] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """Bytes of the models kept."""
        return self._models.total

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
            UnavailableError: Registry or store cannot be reached.
        """
        loop = asyncio.get_running_loop()
        record = await self._resolve(ref, deleted=deleted)
        # Before anything is read: what no trusted key has signed is not parsed.
        await self._require_trust(ref.model, record)
        size = record.manifest_size + record.weights_size
        if size > self._max_bytes:
            raise LimitError(
                f"{record.name} has {size} bytes, more than this sampler may keep loaded ({self._max_bytes}); raise"
                " ROWMINT_MODEL_CACHE_BYTES",
                metadata={"limit": str(self._max_bytes), "setting": "ROWMINT_MODEL_CACHE_BYTES"},
            )

        missed = False

        async def load() -> _Weighed:
            nonlocal missed
            missed = True
            metrics.cache_miss()
            began = loop.time()
            found = await loop.run_in_executor(self._executor, self._load, record)
            metrics.model_loaded(loop.time() - began)
            return found

        # The project that the caller is authorized for, whatever the registry says whose the model is.
        key = _Key(ref.model.project, record.manifest_sha256, record.weights_sha256)
        held = await self._models.get(key, load)
        if not missed:
            metrics.cache_hit()
        self._keys[record.name] = key
        self._keys.move_to_end(record.name)
        if len(self._keys) > _RESOLVED:
            self._keys.popitem(last=False)
        return LoadedModel(record.name, held.model)

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

    def _load(self, record: ModelVersionRecord) -> _Weighed:
        try:
            return self._read(record)
        except DataLossError as error:
            # An operator who restores it needs to know which, wherever the damage was found.
            error.metadata.setdefault("name", str(record.name))
            raise

    def _read(self, record: ModelVersionRecord) -> _Weighed:
        manifest, weights = stored_files(self._store, record)
        model = read_model(manifest, weights, self._kernel, record.manifest_digest)
        if model.digest != record.model_digest:
            raise DataLossError(f"{record.name} does not have the model digest the registry says; delete the version")
        draw_first_row(model)
        return _Weighed(model, model.size_bytes + len(manifest))
