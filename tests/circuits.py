"""Circuits made at random, small and odd, for tests of what is computed from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.codecs.category import integer_weights
from rowmint.lazy import lazy
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.synthesizer import choose_kernel
from rowmint.synthesizer.circuit.arrays import read_circuit
from rowmint.synthesizer.circuit.tree import ONE, Circuit
from rowmint.synthesizer.heads import ColumnHead, column_heads
from rowmint.synthesizer.parts import ModelParts

CHAIN = (-1, 0, 1, 2)
STAR = (-1, 0, 0, 0)
MIXED = (1, -1, 1, 2, -2, 2)
"""Parents of six columns: the root is the second, the fifth is derived."""
JOINT = (-1, -2, -2, 5, -2, 0)
"""Parents of five columns and a joint one: three are derived from it; it hangs on the first, and the fourth on it."""


@dataclass(frozen=True)
class MadeCircuit:
    """A circuit's schema, codecs, manifest entry and arrays."""

    schema: TableSchema
    codecs: tuple[CategoryCodec | NumericCodec, ...]
    network: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @lazy
    def heads(self) -> dict[str, ColumnHead]:
        return column_heads(self.schema.columns, self.codecs)

    @property
    def choices(self) -> list[int]:
        return [codec.choices for codec in self.codecs]

    @lazy
    def circuit(self) -> Circuit:
        return read_circuit(self.network, self.arrays, self.choices)

    def parts(self) -> ModelParts:
        return ModelParts(self.schema, self.heads, self.network, self.arrays, choose_kernel("numpy"))

    def changed(self, network: Mapping[str, Any] | None = None, **arrays: NDArray[Any]) -> "MadeCircuit":
        """Return the circuit with other entries and arrays; `_` in a name stands for a point."""
        named = {name.replace("_", "."): array for name, array in arrays.items()}
        return replace(self, network={**self.network, **(network or {})}, arrays={**self.arrays, **named})


@dataclass(frozen=True)
class CircuitMaker:
    """Makes circuits at random.

    Attributes:
        seed: Of everything.
        parents: The parent of each column, -1 for the root, -2 for a column derived from the root, or from the joint
            column where there is one.
        states: Hidden states of a column.
        components: Components of a mixture beside the own emission.
        bins: Most bins of a column.
        zeros: Share of the weights that are 0.
        kinds: Kinds of the columns, in turn; see `make_codec`.
        joint: Choices of a joint column, which is then the last of `parents`; 0 for none.
    """

    seed: int
    parents: Sequence[int] = MIXED
    states: int = 3
    components: int = 2
    bins: int = 4
    zeros: float = 0.2
    kinds: Sequence[str] = ("category", "pieces", "rare", "points", "double", "nullable")
    joint: int = 0

    def make(self) -> MadeCircuit:
        """Return a circuit; the same each time."""
        rng = np.random.default_rng(self.seed)
        modelled = len(self.parents) - bool(self.joint)
        made = [make_codec(self.kinds[i % len(self.kinds)], f"c{i}", rng) for i in range(modelled)]
        codecs = tuple(codec for _, codec in made)
        arrays: dict[str, NDArray[Any]] = {"root": self._rows(rng, 1, self.states)[0]}
        sizes = [*(codec.choices for codec in codecs), *([self.joint] if self.joint else ())]
        of = [self._bins(rng, size) for size in sizes]
        counts = [int(each.max()) + 1 for each in of]
        order = tree_order(self.parents)
        derived = {i: modelled if self.joint else order[0] for i, parent in enumerate(self.parents) if parent == -2}
        for i in order:
            arrays[f"bins.{i}.of"] = of[i]
            arrays[f"bins.{i}.weights"] = np.zeros(len(of[i]), np.uint32)
            for each in range(counts[i]):
                own = np.flatnonzero(of[i] == each)
                arrays[f"bins.{i}.weights"][own] = self._rows(rng, 1, len(own))[0]
            arrays[f"emission.{i}"] = self._rows(rng, self.states, counts[i])
            if i != order[0]:
                edge = self._edge(rng, counts[self.parents[i]], counts[i])
                arrays |= {f"{name[0]}.{i}{name[1]}": array for name, array in edge.items()}
        for i, determining in derived.items():
            chosen = rng.integers(codecs[i].choices, size=sizes[determining])
            arrays[f"derived.{i}"] = chosen.astype(np.uint16)
        network: dict[str, Any] = {
            "states": self.states,
            "components": self.components,
            "parents": list(self.parents),
            "order": order,
            "derived": {str(i): determining for i, determining in derived.items()},
        }
        if self.joint:
            network["joint"] = [self.joint]
        return MadeCircuit(TableSchema(tuple(column for column, _ in made)), codecs, network, arrays)

    def _bins(self, rng: np.random.Generator, choices: int) -> NDArray[np.uint16]:
        count = min(self.bins, max(choices - 1, 1))
        of = np.concatenate([np.arange(count), rng.integers(count, size=choices - count)])
        return rng.permutation(of).astype(np.uint16)

    def _edge(self, rng: np.random.Generator, parent: int, bins: int) -> dict[tuple[str, str], NDArray[Any]]:
        groups = int(rng.integers(1, parent + 1))
        seen = rng.random((parent, bins)) < 0.6
        seen[0] = False  # a bin of the parent without any pair
        starts = np.concatenate([[0], np.cumsum(seen.sum(axis=1))]).astype(np.uint32)
        weights = np.zeros((self.components, int(starts[-1])), np.uint32)
        rest = np.zeros((self.components, parent), np.uint32)
        for each in range(parent):
            first, last = int(starts[each]), int(starts[each + 1])
            rows = self._rows(rng, self.components, last - first + 1)
            weights[:, first:last], rest[:, each] = rows[:, :-1], rows[:, -1]
        return {
            ("transition", ""): self._rows(rng, self.states, self.states),
            ("mixture", ""): self._rows(rng, self.states, self.components + 1),
            ("pairs", ".starts"): starts,
            ("pairs", ".bins"): np.nonzero(seen)[1].astype(np.uint16),
            ("pairs", ".weights"): weights,
            ("pairs", ".rest"): rest,
            ("backoff", ".group"): rng.integers(groups, size=parent).astype(np.uint16),
            ("backoff", ".weights"): self._rows(rng, groups, bins),
        }

    def _rows(self, rng: np.random.Generator, rows: int, length: int) -> NDArray[np.uint32]:
        """Return rows of whole numbers that sum to `ONE`, some of them 0."""
        shares = rng.standard_gamma(0.7, (rows, length)) + 1e-9
        kept = rng.random((rows, length)) >= self.zeros
        kept[np.arange(rows), rng.integers(length, size=rows)] = True
        return whole_rows(shares * kept)


def whole_rows(shares: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return each row as whole numbers of sum `ONE`; what is lost by rounding down goes to the greatest."""
    weights = np.floor(shares / shares.sum(axis=1, keepdims=True) * (ONE - 1)).astype(np.int64)
    weights[np.arange(len(weights)), shares.argmax(axis=1)] += ONE - weights.sum(axis=1)
    return weights.astype(np.uint32)


def tree_order(parents: Sequence[int]) -> list[int]:
    """Return the columns of a tree, parents before their children."""
    order = [list(parents).index(-1)]
    for position in order:
        order += [child for child, parent in enumerate(parents) if parent == position]
    return order


def make_codec(kind: str, name: str, rng: np.random.Generator) -> tuple[ColumnSpec, CategoryCodec | NumericCodec]:
    """Return a column and its codec.

    `kind` is one of ``category`` (never missing), ``nullable`` (categories), ``rare`` (some share a choice),
    ``pieces`` (integers: components and points, may be missing), ``points`` (integers, one of each) and ``double``
    (components off the grid).
    """
    if kind in ("category", "nullable", "rare"):
        size = 5
        frequent = 3 if kind == "rare" else size
        rare = integer_weights(rng.random(size - frequent) + 0.1) if kind == "rare" else np.zeros(0, np.uint64)
        nullable = kind != "category"
        domain = Domain(tuple(f"v{index}" for index in range(size)), nullable=nullable)
        column = ColumnSpec(name, ColumnKind.CATEGORICAL, DataType.STRING, domain)
        return column, CategoryCodec(size, frequent, nullable, rare)
    if kind == "double":
        domain = Domain(minimum=-1.0, maximum=7.0, nullable=False)
        column = ColumnSpec(name, ColumnKind.NUMERICAL, DataType.DOUBLE, domain)
        centers, widths, points = np.array([0.0, 2.5, 5.0]), np.array([1.0, 1.5, 2.0]), np.array([2.0])
        return column, NumericCodec(False, 0, 1, 0, False, False, -1.0, 7.0, centers, widths, points)
    domain = Domain(minimum=10, maximum=70, decimals=0, nullable=kind == "pieces")
    column = ColumnSpec(name, ColumnKind.NUMERICAL, DataType.INT64, domain)
    if kind == "points":
        points = np.arange(0.0, 21.0, 4.0)
        return column, NumericCodec(True, 10, 3, 0, True, False, 0.0, 20.0, np.zeros(0), np.zeros(0), points)
    centers, widths, points = np.array([4.5, 10.0, 16.5]), np.array([4.999, 3.0, 6.25]), np.array([0.0, 9.0])
    return column, NumericCodec(True, 10, 3, 0, True, True, 0.0, 20.0, centers, widths, points)
