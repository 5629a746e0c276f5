"""Circuits of any size with weights at random, untrained: what memory and limits are measured on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.artifact import Artifact, FittedModel, write_model
from rowmint.codecs import CategoryCodec
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.synthesizer.circuit.tree import ONE
from tests.circuits import tree_order, whole_rows


def large_circuit(
    parents: Sequence[int],
    *,
    states: int = 64,
    components: int = 8,
    bins: int = 128,
    pairs: int = 16,
    in_bin: int = 1,
    groups: int = 8,
) -> Artifact:
    """Return the files of a circuit of columns of categories: "v0", "v1", ...

    Args:
        parents: The parent of each column, -1 for the root.
        states: Hidden states of a column.
        components: Components of a mixture beside the own emission.
        bins: Bins of a column.
        pairs: Bins that are paired with each bin of the parent.
        in_bin: Categories of a bin, equally frequent; a power of two.
        groups: Rows of the backoff.
    """
    rng = np.random.default_rng(len(parents))
    size = bins * in_bin
    domain = Domain(tuple(f"v{index}" for index in range(size)), nullable=False)
    columns = [
        ColumnSpec(f"c{index}", ColumnKind.CATEGORICAL, DataType.STRING, domain) for index in range(len(parents))
    ]
    order = tree_order(parents)
    arrays: dict[str, NDArray[Any]] = {"root": _rows(rng, 1, states)[0]}
    for column in order:
        arrays[f"bins.{column}.of"] = (np.arange(size) // in_bin).astype(np.uint16)
        arrays[f"bins.{column}.weights"] = np.full(size, ONE // in_bin, np.uint32)
        arrays[f"emission.{column}"] = _rows(rng, states, bins)
        if parents[column] < 0:
            continue
        paired = [np.sort(rng.choice(bins, pairs, replace=False)) for _ in range(bins)]
        weights = _rows(rng, components * bins, pairs + 1).reshape(components, bins, pairs + 1)
        arrays |= {
            f"transition.{column}": _rows(rng, states, states),
            f"mixture.{column}": _rows(rng, states, components + 1),
            f"pairs.{column}.starts": (np.arange(bins + 1) * pairs).astype(np.uint32),
            f"pairs.{column}.bins": np.concatenate(paired).astype(np.uint16),
            f"pairs.{column}.weights": weights[:, :, :-1].reshape(components, -1),
            f"pairs.{column}.rest": weights[:, :, -1],
            f"backoff.{column}.group": rng.integers(groups, size=bins).astype(np.uint16),
            f"backoff.{column}.weights": _rows(rng, groups, bins),
        }
    network = {
        "states": states,
        "components": components,
        "parents": list(parents),
        "order": order,
        "derived": {},
    }
    codecs = [CategoryCodec(size, size, nullable=False, rare_weights=np.zeros(0, np.uint64)) for _ in columns]
    return write_model(FittedModel("circuit", TableSchema(tuple(columns)), codecs, network, arrays), {})


def _rows(rng: np.random.Generator, rows: int, length: int) -> NDArray[np.uint32]:
    return whole_rows(rng.standard_gamma(0.5, (rows, length)) + 1e-9)
