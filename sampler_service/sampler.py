"""The sampler: from requests to streams, completions and scorings that are ready to run."""

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from rowmint.errors import InvalidFieldError, LimitError
from rowmint.names import ModelVersionName
from rowmint.sampling.completion import RowCompletion
from rowmint.sampling.limits import MAX_PARTS, MAX_ROWS
from rowmint.sampling.parts import PlannedSample, plan_parts
from rowmint.sampling.plan import Plan
from rowmint.sampling.prepared import prepare, stream_header
from rowmint.sampling.rows import CandidateCache
from rowmint.sampling.scoring import RowScoring
from rowmint.sampling.stream import BlockDone, SampleStream
from sampler_service.computing import compute, schema_bytes
from sampler_service.model_cache import LoadedModel, ModelCache
from sampler_service.plan_cache import PlanCache
from sampler_service.requests import CompletionRequest, SampleRequest, ScoringRequest

_CANDIDATE_BYTES = 64 * 1024 * 1024


class Sampler:
    """Opens streams. For one event loop; holds no state but caches.

    Args:
        models: Models.
        plans: Plans.
        executor_of: Returns the threads that compute rows, for the id of a project.
        draw_seed: Returns a seed, 0 to 2**64 - 1.
        max_rows: Longest logical stream, at most `MAX_ROWS`.
        observe: Called with each block and the name of its model version, on the thread that computed it.
    """

    def __init__(
        self,
        models: ModelCache,
        plans: PlanCache,
        executor_of: Callable[[str], Executor],
        draw_seed: Callable[[], int],
        *,
        max_rows: int = MAX_ROWS,
        observe: Callable[[ModelVersionName, BlockDone], None] = lambda _version, _done: None,
    ) -> None:
        self._candidates = CandidateCache(_CANDIDATE_BYTES)
        self._models = models
        self._plans = plans
        self._executor_of = executor_of
        self._observe = observe
        self._draw_seed = draw_seed
        self._max_rows = max_rows

    async def open(self, request: SampleRequest) -> SampleStream:
        """Return the stream that is requested.

        Raises:
            RowmintError: It is not possible; see `SampleSpec.validate`, `ModelCache.get`, `PlanCache.get` and
                `rowmint.sampling.prepared.prepare`.
        """
        request = request.seeded(self._draw_seed)
        loaded, plan = await self._resolve(request)
        project = request.model.model.project
        prepared = await compute(
            self._executor_of(project),
            schema_bytes(loaded.model.schema),
            lambda: prepare(loaded.model, request, plan, str(loaded.name), candidates=self._candidates, owner=project),
        )
        return SampleStream(prepared, self._executor_of(project), partial(self._observe, loaded.name))

    async def plan(self, request: SampleRequest, parts: int) -> PlannedSample:
        """Say what the stream would be made of and cut it into up to `parts` parts, on the grid.

        Raises:
            InvalidFieldError: `parts` is not 1 to `MAX_PARTS`.
            RowmintError: As for `open`.
        """
        if not 1 <= parts <= MAX_PARTS:
            raise InvalidFieldError("parts", f"is {parts}; must be 1 to {MAX_PARTS}")
        request = request.seeded(self._draw_seed)
        loaded, plan = await self._resolve(request)
        header = await compute(
            self._executor_of(request.model.model.project),
            schema_bytes(loaded.model.schema),
            lambda: stream_header(loaded.model, request, plan, str(loaded.name)),
        )
        return PlannedSample(
            header,
            plan,
            loaded.model.synthesizer.conditioned_column(plan.conditions),
            plan_parts(header, plan, parts, continued=request.continued),
        )

    async def complete(
        self, request: CompletionRequest, stopped: Callable[[], bool] = lambda: False
    ) -> tuple[ModelVersionName, RowCompletion]:
        """Return what completes rows as requested until it is `stopped`, and the version it does so with.

        Raises:
            RowmintError: It is not possible; see `CompletionSpec.validate`, `ModelCache.get` and `RowCompletion`.
        """
        request.validate()
        # As for sampled rows: a caller that names the digest resumes a stream that was made from it.
        loaded = await self._models.get(request.model, deleted=bool(request.expected_model_digest))
        return loaded.name, RowCompletion(loaded.model, request.seeded(self._draw_seed), stopped)

    async def score(
        self, request: ScoringRequest, stopped: Callable[[], bool] = lambda: False
    ) -> tuple[ModelVersionName, RowScoring]:
        """Return what scores rows as requested until it is `stopped`, and the version it does so with.

        Raises:
            RowmintError: It is not possible; see `ScoringSpec.validate`, `ModelCache.get` and `RowScoring`.
        """
        request.validate()
        # As for completed rows.
        loaded = await self._models.get(request.model, deleted=bool(request.expected_model_digest))
        return loaded.name, RowScoring(loaded.model, request, stopped)

    async def _resolve(self, request: SampleRequest) -> tuple[LoadedModel, Plan]:
        request.validate()
        if request.rows > self._max_rows:
            raise LimitError(
                f"rows: {request.rows} is more than this sampler allows ({self._max_rows}); request fewer or raise"
                " ROWMINT_MAX_ROWS",
                metadata={"limit": str(self._max_rows), "setting": "ROWMINT_MAX_ROWS"},
            )
        # A caller that names the digest resumes a stream, or carries out a plan, that was made from it.
        loaded = await self._models.get(request.model, deleted=bool(request.expected_model_digest))
        # Before the plan is compiled, which takes longer.
        request.validate_for(loaded.model)
        plan = await self._plans.get(loaded.model, request.where, request.model.model.project, request.weights)
        return loaded, plan.allowing(request.max_reuse, request.expected_plan_digest)
