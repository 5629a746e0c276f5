"""Compiled plans, bounded, each compiled once for all calls of a project that need it at the same time.

Projects share nothing, not even where their models are equal: how fast an answer comes would tell one of the other.
Conditions are read and pilots drawn on the project's own threads, a predicate and a tile at a time: a project with many
or rare conditions delays no other.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from rowmint.artifact import Model
from rowmint.conditions import AnyOf, ColumnCondition, Predicate, canonical_steps
from rowmint.sampling.plan import Plan, plan_key, plan_steps
from rowmint.steps import Steps, finish_in_turns
from sampler_service.single_flight import SingleFlightCache

_PLAN_BYTES = 64 * 1024 * 1024
_BASE_BYTES = 4096  # a plan without conditions
_VALUE_BYTES = 200  # a value or a range of a condition, the objects around it included
_WRITTEN = 4096  # ways to write conditions whose plan is remembered
_WRITTEN_VALUES = 1024  # conditions of more values are read again each time

_Key = tuple[str, bytes]
"""A project, and the key of a plan."""


class PlanCache:
    """Plans by project and key. For one event loop.

    Args:
        executor_of: Returns the threads that compile, for the id of a project.
        max_bytes: About how much memory the plans kept may take.
    """

    def __init__(self, executor_of: Callable[[str], Executor], max_bytes: int = _PLAN_BYTES) -> None:
        self._executor_of = executor_of
        self._plans: SingleFlightCache[_Key, Plan] = SingleFlightCache(max_bytes, _weight, ends_unwanted=True)
        # Conditions as they were written, and the key of their plan: the next call need not read them.
        self._written: OrderedDict[_Key, _Key] = OrderedDict()

    async def get(self, model: Model, where: Sequence[Predicate], project: str) -> Plan:
        """Return the plan for independent rows of `model` that satisfy `where`.

        Args:
            model: The model.
            where: The conditions.
            project: Whose model it is; plans are shared within it.

        Raises:
            RowmintError: The conditions are not possible; see `rowmint.conditions.canonical`.
        """
        executor = self._executor_of(project)
        written = _as_written(model, where, project)
        key = None if written is None else self._written.get(written)
        conditions: tuple[ColumnCondition, ...] | None = None
        if key is None:
            conditions, own = await finish_in_turns(_read(model, where), executor)
            key = project, own
            if written is not None:
                self._written[written] = key
                if len(self._written) > _WRITTEN:
                    self._written.popitem(last=False)
        elif written is not None:
            self._written.move_to_end(written)

        async def compiled() -> Plan:
            known = conditions or (await finish_in_turns(_read(model, where), executor))[0]
            return await finish_in_turns(plan_steps(model.digest, model.synthesizer, known), executor)

        return await self._plans.get(key, compiled)


def _read(model: Model, where: Sequence[Predicate]) -> Steps[tuple[tuple[ColumnCondition, ...], bytes]]:
    """Work out the canonical conditions, and the key of their plan."""
    conditions = yield from canonical_steps(where, model.schema)
    return conditions, plan_key(model.digest, conditions)


def _as_written(model: Model, where: Sequence[Predicate], project: str) -> _Key | None:
    """Return what tells conditions from others by how they are written; None where they are long.

    By text, as 1, 1.0 and True are equal but not all values of one column.
    """
    if sum(len(one.test.values) for one in where if isinstance(one.test, AnyOf)) > _WRITTEN_VALUES:
        return None
    return project, hashlib.sha256(model.digest + repr(where).encode()).digest()


def _weight(plan: Plan) -> int:
    values = sum(len(one.codes or ()) + len(one.intervals or ()) for one in plan.conditions)
    return _BASE_BYTES + _VALUE_BYTES * values
