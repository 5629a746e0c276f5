"""Rows that a circuit would make now, as choices: for probes while it is fitted."""

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.families.circuit.model import CircuitModel
from trainer_service.fitting.families.circuit.structure import Structure


def sample_choices(
    table: EncodedTable, structure: Structure, model: CircuitModel, draws: np.random.Generator, rows: int
) -> EncodedRows:
    """Return rows as a circuit's floats make them.

    Args:
        table: The training rows, for their codecs.
        structure: The circuit's shape.
        model: Its probabilities.
        draws: Random numbers.
        rows: Number of rows.
    """
    choices = np.zeros((rows, structure.columns + len(structure.joints)), np.int64)
    states: dict[int, NDArray[np.intp]] = {}
    bins: dict[int, NDArray[np.intp]] = {}
    for column in structure.tree.order:
        found = model.columns[column]
        if found.pairs is None:
            states[column] = _drawn(np.broadcast_to(found.states, (rows, model.states)), draws)
            likely = found.emission.T[states[column]]
        else:
            parent = structure.tree.parents[column]
            states[column] = _drawn(found.states[states[parent]], draws)
            likely = model.given(column, states[column], bins[parent])
        bins[column] = _drawn(likely, draws)
        choices[:, column] = _choices(found.bins.of, found.bins.weights, bins[column], draws)
    for column, derived in structure.derived.items():
        choices[:, column] = derived.choices[choices[:, derived.of]]
    scalars = sum(codec.scalar for codec in table.codecs)
    own = choices[:, : structure.columns].astype(table.choices.dtype)
    return EncodedRows(own, draws.uniform(-1, 1, (rows, scalars)).astype(np.float32))


def _drawn(weights: NDArray[np.float32], draws: np.random.Generator) -> NDArray[np.intp]:
    running = np.cumsum(weights, axis=1, dtype=np.float64)
    found: NDArray[np.intp] = np.count_nonzero(running <= draws.random((len(weights), 1)) * running[:, -1:], axis=1)
    last: NDArray[np.intp] = np.minimum(found, weights.shape[1] - 1)
    return last


def _choices(
    of: NDArray[np.uint16], weights: NDArray[np.uint32], bins: NDArray[np.intp], draws: np.random.Generator
) -> NDArray[np.intp]:
    order = np.argsort(of, kind="stable")
    running = np.cumsum(weights[order].astype(np.float64)) / (1 << 24)
    place = np.searchsorted(running, bins + draws.random(len(bins)), side="right")
    chosen: NDArray[np.intp] = order[np.minimum(place, len(order) - 1)]
    return chosen
