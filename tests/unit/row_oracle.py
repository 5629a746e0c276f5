"""The slow way to complete and score rows: every choice of every column of a small circuit, one by one."""

import itertools
from collections.abc import Mapping

import numpy as np

from rowmint.codecs import NumericCodec
from rowmint.codecs.shares import choice_shares
from rowmint.conditions import AnyOf, Predicate, canonical
from rowmint.lazy import lazy
from rowmint.schema import Cell
from rowmint.schema.arrays import native_number
from rowmint.synthesizer.circuit.tree import ONE
from tests.circuits import MadeCircuit
from tests.unit.circuit_oracle import bin_probability


class RowOracle:
    """Probabilities of choices and cells under a small circuit.

    Attributes:
        choices: For each configuration of choices of the tree's columns, in its order, the probability.
    """

    def __init__(self, made: MadeCircuit) -> None:
        self.made = made
        self.circuit = made.circuit
        self.order = list(self.circuit.columns)
        self.names = list(made.heads)

    @lazy
    def bins(self) -> dict[tuple[int, ...], float]:
        """Probability of each configuration of bins."""
        columns = self.circuit.columns
        table = {}
        for position, column in columns.items():
            if column.edge is None:
                continue
            parents = columns[column.edge.parent].bins.count
            sizes = (self.circuit.states, parents, column.bins.count)
            table[position] = np.array(
                [float(bin_probability(column, column.edge, *place)) for place in itertools.product(*map(range, sizes))]
            ).reshape(sizes)
        found = {}
        for bins in itertools.product(*(range(columns[position].bins.count) for position in self.order)):
            at = dict(zip(self.order, bins, strict=True))

            def below(position: int, at: Mapping[int, int] = at) -> np.ndarray:
                """Return the probability of the bins at a column and below it, by its state."""
                column = columns[position]
                if column.edge is None:
                    weights = column.emission[:, at[position]] / ONE
                else:
                    weights = table[position][:, at[column.edge.parent], at[position]]
                for child in column.children:
                    edge = columns[child].edge
                    assert edge is not None
                    weights = weights * (edge.transition / ONE @ below(child))
                return weights

            found[bins] = float(self.circuit.root / ONE @ below(self.order[0]))
        return found

    @lazy
    def choices(self) -> dict[tuple[int, ...], float]:
        """Probability of each configuration of choices of the tree's columns, those that are possible."""
        found = {}
        own = [self.circuit.columns[position].bins for position in self.order]
        for choices in itertools.product(*(range(len(bins.of_choice)) for bins in own)):
            chance = self.bins[tuple(int(bins.of_choice[choice]) for bins, choice in zip(own, choices, strict=True))]
            for bins, choice in zip(own, choices, strict=True):
                chance *= int(bins.weights[choice]) / ONE
            if chance:
                found[choices] = chance
        return found

    def law(self, name: str, cell: Cell) -> np.ndarray:
        """Return the probability of a cell by its column's choice, or its density."""
        head = self.made.heads[name]
        where = canonical([Predicate(name, AnyOf((cell,)))], self.made.schema)
        shares = choice_shares(head.codec, where[0]).of_choice
        codec = head.codec
        if isinstance(codec, NumericCodec) and not codec.on_grid and cell is not None:
            x = float(native_number(cell, head.column))
            components = len(codec.centers)
            if x not in (codec.lower, codec.upper):
                shares[:components] = 0
            if not shares.any():
                inside = np.abs(x - codec.centers) <= codec.widths
                shares[:components] = np.where(inside, 1 / (2 * codec.widths), 0)
        return shares

    def posterior(self, known: Mapping[str, Cell]) -> tuple[float, dict[tuple[int, ...], float]]:
        """Return the probability of known cells, and that of each configuration of choices given them."""
        laws = {self.names.index(name): self.law(name, cell) for name, cell in known.items()}
        weighted = {}
        for choices, chance in self.choices.items():
            at = dict(zip(self.order, choices, strict=True))
            for position, law in laws.items():
                chance *= law[self.choice(at, position)]  # noqa: PLW2901
            if chance:
                weighted[choices] = chance
        total = sum(weighted.values())
        return total, {choices: chance / total for choices, chance in weighted.items()}

    def choice(self, at: Mapping[int, int], position: int) -> int:
        """Return a column's choice where those of the tree's columns are given."""
        derived = self.circuit.derived.get(position)
        return at[position] if derived is None else int(derived.choices[at[derived.of]])
