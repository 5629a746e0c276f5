"""Compiled plans, bounded, each compiled once for all calls of a project that need it at the same time.

Projects share nothing, not even where their models are equal: how fast an answer comes would tell one of the other.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Executor

from rowmint.artifact import Model
from rowmint.conditions import Predicate, canonical
from rowmint.sampling.plan import Plan, compile_plan, plan_key
from sampler_service.single_flight import SingleFlightCache

_PLANS = 1024


class PlanCache:
    """Plans by project and key. For one event loop; the work is done in `executor`.

    Args:
        executor: Threads that compile.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._plans: SingleFlightCache[tuple[str, bytes], Plan] = SingleFlightCache(_PLANS, lambda _: 1)

    async def get(self, model: Model, where: Iterable[Predicate], project: str) -> Plan:
        """Return the plan for independent rows of `model` that satisfy `where`.

        Args:
            model: The model.
            where: The conditions.
            project: Whose model it is; plans are shared within it.

        Raises:
            RowmintError: The conditions are not possible; see `rowmint.conditions.canonical`.
        """
        loop = asyncio.get_running_loop()
        conditions = await loop.run_in_executor(self._executor, canonical, list(where), model.schema)

        async def compiled() -> Plan:
            return await loop.run_in_executor(self._executor, compile_plan, model.digest, model.synthesizer, conditions)

        return await self._plans.get((project, plan_key(model.digest, conditions)), compiled)
