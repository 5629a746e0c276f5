"""A fitted circuit in whole numbers: what the sampler reads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.families.circuit.model import CircuitModel
from trainer_service.fitting.families.circuit.structure import Structure
from trainer_service.fitting.families.circuit.whole import whole, whole_by_group
from trainer_service.fitting.fitter import FittedNetwork
from trainer_service.fitting.monitoring.progress import Between


def circuit_network(structure: Structure, model: CircuitModel, between: Between) -> FittedNetwork:
    """Return the manifest's entry and the arrays of a circuit.

    Args:
        structure: Its shape.
        model: Its probabilities.
        between: Called before each column.
    """
    tree = structure.tree
    parents = [
        tree.parents.get(column, -2 if column in structure.derived else -1)
        for column in range(structure.columns + len(structure.joints))
    ]
    body: dict[str, Any] = {
        "states": model.states,
        "components": model.components,
        "parents": parents,
        "order": list(tree.order),
        "derived": {str(column): found.of for column, found in sorted(structure.derived.items())},
    }
    if structure.joints:
        body["joint"] = [len(joint.counts) for joint in structure.joints]
    arrays: dict[str, NDArray[np.generic]] = {"root": whole(model.columns[tree.root].states[0])}
    for column, derived in structure.derived.items():
        arrays[f"derived.{column}"] = derived.choices
    for column in tree.order:
        between("")
        found = model.columns[column]
        arrays[f"bins.{column}.of"] = found.bins.of
        arrays[f"bins.{column}.weights"] = found.bins.weights
        arrays[f"emission.{column}"] = whole(found.emission.T)
        if found.pairs is not None:
            arrays[f"transition.{column}"] = whole(found.states)
            arrays[f"mixture.{column}"] = whole(found.mixture)
            arrays.update({f"{name}": array for name, array in _tables(model, column).items()})
    return FittedNetwork(body, arrays)


def _tables(model: CircuitModel, column: int) -> dict[str, NDArray[np.generic]]:
    found = model.columns[column]
    pairs: Any = found.pairs
    rows = len(pairs.rows)
    strength = np.float64(model.smoothing.pairs)
    totals = found.pair_totals.astype(np.float64) + strength
    seen = (found.pair_counts + strength * pairs.shares[:, None].astype(np.float64)) / totals[pairs.parents]
    rest = strength * pairs.rest[:, None].astype(np.float64) / totals
    # Each row of a table, its rest last, is a distribution.
    order = np.argsort(np.concatenate([pairs.parents, np.arange(rows)]), kind="stable")
    lengths = np.bincount(pairs.parents, minlength=rows)
    starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
    weights = np.zeros((model.components, len(pairs.parents)), np.uint32)
    rests = np.zeros((model.components, rows), np.uint32)
    is_rest = order >= len(pairs.parents)
    for table in range(model.components):
        made = whole_by_group(np.concatenate([seen[:, table], rest[:, table]])[order], starts)
        weights[table], rests[table] = made[~is_rest], made[is_rest]
    groups, group = np.unique(pairs.group, return_inverse=True)
    return {
        f"pairs.{column}.starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32),
        f"pairs.{column}.bins": pairs.bins.astype(np.uint16),
        f"pairs.{column}.weights": weights,
        f"pairs.{column}.rest": rests,
        f"backoff.{column}.group": group.astype(np.uint16),
        f"backoff.{column}.weights": whole(pairs.backoff[groups]),
    }
