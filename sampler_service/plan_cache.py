"""Compiled plans, bounded, each compiled once for all calls of a project that need it at the same time.

Projects share nothing, not even where their models are equal: how fast an answer comes would tell one of the other.
Conditions are read and pilots drawn on the project's own threads, a predicate and a tile at a time: a project with many
or rare conditions delays no other.

A plan draws from its model's tables: it is not kept longer than the model is anywhere.
"""

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from rowmint.artifact import Model
from rowmint.conditions import (
    AnyOf,
    ColumnCondition,
    ColumnWeights,
    Predicate,
    Weights,
    canonical_steps,
    weights_steps,
)
from rowmint.sampling.plan import Plan, plan_key, plan_steps
from rowmint.steps import Steps, finish_in_turns
from sampler_service.single_flight import SingleFlightCache

_PLAN_BYTES = 128 * 1024 * 1024
_BASE_BYTES = 4096  # a plan without conditions
_VALUE_BYTES = 200  # a value or a range of a condition, the objects around it included
_WRITTEN = 4096  # ways to write conditions whose plan is remembered
_WRITTEN_VALUES = 1024  # conditions of more values are read again each time

_Key = tuple[str, bytes]
"""A project, and the key of a plan."""
_Canonical = tuple[tuple[ColumnCondition, ...], ColumnWeights | None]


@dataclass(frozen=True)
class _Compiled:
    """A plan, and the model it was compiled for while that is in use."""

    plan: Plan
    model: weakref.ref[Model]


class PlanCache:
    """Plans by project and key. For one event loop.

    Args:
        executor_of: Returns the threads that compile, for the id of a project.
        max_bytes: About how much memory the plans kept may take.
    """

    def __init__(self, executor_of: Callable[[str], Executor], max_bytes: int = _PLAN_BYTES) -> None:
        self._executor_of = executor_of
        self._plans: SingleFlightCache[_Key, _Compiled] = SingleFlightCache(max_bytes, _weight, ends_unwanted=True)
        self._models: dict[int, weakref.ref[Model]] = {}
        # Conditions as they were written, and the key of their plan: the next call need not read them.
        self._written: OrderedDict[_Key, _Key] = OrderedDict()

    async def get(self, model: Model, where: Sequence[Predicate], project: str, weights: Weights | None = None) -> Plan:
        """Return the plan for independent rows of `model` that satisfy `where`.

        Args:
            model: The model.
            where: The conditions.
            project: Whose model it is; plans are shared within it.
            weights: Shares that values of a column have among the rows.

        Raises:
            RowmintError: The conditions or weights are not possible; see `rowmint.conditions.canonical` and
                `rowmint.conditions.canonical_weights`.
        """
        self._watch(model)
        executor = self._executor_of(project)
        written = _as_written(model, where, weights, project)
        key = None if written is None else self._written.get(written)
        read: _Canonical | None = None
        if key is None:
            read, own = await finish_in_turns(_read(model, where, weights), executor)
            key = project, own
            if written is not None:
                self._written[written] = key
                if len(self._written) > _WRITTEN:
                    self._written.popitem(last=False)
        elif written is not None:
            self._written.move_to_end(written)

        async def compiled() -> _Compiled:
            known = read or (await finish_in_turns(_read(model, where, weights), executor))[0]
            plan = await finish_in_turns(plan_steps(model.digest, model.synthesizer, *known), executor)
            return _Compiled(plan, weakref.ref(model))

        return (await self._plans.get(key, compiled)).plan

    def _watch(self, model: Model) -> None:
        """Forget the plans of models that are gone, which would keep their tables, and look out for this one."""
        gone = [key for key, kept in self._models.items() if kept() is None]
        if gone:
            self._plans.discard(lambda compiled: compiled.model() is None)
        for key in gone:
            del self._models[key]
        self._models[id(model)] = weakref.ref(model)


def _read(model: Model, where: Sequence[Predicate], weights: Weights | None) -> Steps[tuple[_Canonical, bytes]]:
    """Work out the canonical conditions and weights, and the key of their plan."""
    conditions, own = (yield from canonical_steps(where, model.schema)), None
    if weights is not None:
        conditions, own = yield from weights_steps(weights, conditions, model.schema)
    return (conditions, own), plan_key(model.digest, conditions, weights=own)


def _as_written(model: Model, where: Sequence[Predicate], weights: Weights | None, project: str) -> _Key | None:
    """Return what tells conditions from others by how they are written; None where they are long.

    By text, as 1, 1.0 and True are equal but not all values of one column.
    """
    tests = [one.test for one in where] + ([] if weights is None else [one.test for one in weights.entries])
    if sum(len(test.values) if isinstance(test, AnyOf) else 1 for test in tests) > _WRITTEN_VALUES:
        return None
    return project, hashlib.sha256(model.digest + repr((where, weights)).encode()).digest()


def _weight(compiled: _Compiled) -> int:
    plan = compiled.plan
    entries = [] if plan.weights is None else [entry.condition for entry in plan.weights.entries]
    values = sum(1 + len(one.codes or ()) + len(one.intervals or ()) for one in (*plan.conditions, *entries))
    return _BASE_BYTES + _VALUE_BYTES * values + plan.proposal.size_bytes
