"""Drawing rows: of a circuit, or of a circuit given conditions."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.codecs.shares import ChoiceShares
from rowmint.rng import TileKey
from rowmint.schema.arrays import ColumnArray
from rowmint.synthesizer.circuit.draws import ChoiceDraw, ColumnDraw, Place
from rowmint.synthesizer.circuit.tree import Circuit
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import Candidates, JsonObject, Units

_TILE_CELLS = 1 << 18  # many, so that threads that compute seldom wait for each other between two arrays
_LEAST_TILE, _MOST_TILE = 1 << 10, 1 << 14

Places = dict[int, Place]
"""Where rows stand, by position of the column."""


@dataclass(frozen=True)
class Drawing:
    """What draws the columns of a circuit. Immutable, thread-safe.

    Attributes:
        circuit: The model.
        heads: Its modelled columns in order of their positions.
        indices: What the words of the tree's columns are keyed by, by position: the index in the schema, or, of a joint
            column, one that no column has.
        columns: Draws the tree's columns, by position.
        choices: Draws their choices, by position.
        shares: What is drawn of the columns that have a condition, by position.
        size_bytes: Most memory that it takes beside the model.
    """

    circuit: Circuit
    heads: tuple[ColumnHead, ...]
    indices: Mapping[int, int]
    columns: Mapping[int, ColumnDraw]
    choices: Mapping[int, ChoiceDraw]
    shares: Mapping[int, ChoiceShares]
    size_bytes: int = 0

    def ordered(self, positions: Iterable[int]) -> tuple[int, ...]:
        """Return columns of the tree, and all that these depend on, each after what it depends on."""
        needed = set(positions)
        for position in reversed(tuple(self.circuit.columns)):
            edge = self.circuit.columns[position].edge
            if position in needed and edge is not None:
                needed.add(edge.parent)
        return tuple(position for position in self.circuit.columns if position in needed)

    def places(self, order: Sequence[int], key: TileKey, size: int, known: Mapping[int, Place]) -> Places:
        """Return where rows stand at columns of the tree, which are `ordered`; `known` is kept."""
        found = dict(known)
        for position in order:
            if position not in found:
                edge = self.circuit.columns[position].edge
                parent = None if edge is None else found[edge.parent]
                found[position] = self.columns[position].place(key, size, parent)
        return found

    def cells(self, position: int, choices: NDArray[np.int64], key: TileKey) -> ColumnArray:
        """Return the cells of a modelled column; `choices` are those of the column that determines it."""
        derived = self.circuit.derived.get(position)
        if derived is not None:
            choices = derived.choices.take(choices, mode="clip").astype(np.int64)
        head = self.heads[position]
        words = head.rare_category_words(key, len(choices))
        if head.codec.scalar:
            words = key.words32(f"scalar:{head.index}", len(choices)).astype(np.uint64)
        shares = self.shares.get(position)
        if shares is not None:
            return shares.draw(choices, np.zeros(len(choices), np.uint64) if words is None else words)
        if head.codec.scalar and words is not None:
            return head.decode(choices, (words >> np.uint64(8)).astype(np.int64) - ALPHA_ONE, None)  # 24 bits: -1 to 1
        return head.decode(choices, None, words)


class CircuitProposal:
    """Rows of a circuit that satisfy conditions; see `Proposal`. Every candidate satisfies them.

    A candidate is where a row stands at the tested columns and at those that they depend on.

    Args:
        drawing: Draws the rows.
        positions: Positions of the modelled columns by name.
        tested: Names of the tested columns.
        requested: Names of the requested columns.
        log_probability: log P(conditions).
    """

    def __init__(
        self,
        drawing: Drawing,
        positions: Mapping[str, int],
        tested: Collection[str],
        requested: Sequence[str],
        log_probability: float,
    ) -> None:
        self.plan_inputs: JsonObject = {}
        self.acceptance = 1.0
        self.tile_size = _tile_size(len(positions))
        self.log_probability = log_probability
        self._drawing = drawing
        self._positions = positions
        self._tested = tuple(tested)
        self._requested = tuple(requested)
        self._untested = tuple(name for name in requested if name not in tested)
        self._tested_order = drawing.ordered(self._determining(self._tested))
        self._untested_order = drawing.ordered(self._determining(self._untested))

    @property
    def probability(self) -> float:
        """Probability that a row of the model satisfies the conditions; the least float64 above 0 where it is less."""
        return max(math.exp(self.log_probability), math.ulp(0.0))

    @property
    def size_bytes(self) -> int:
        """Most memory of the tables that rows are drawn from under the conditions."""
        return self._drawing.size_bytes

    def requesting(self, columns: Sequence[str]) -> "CircuitProposal":
        """Return what makes these columns under the same conditions, from the same tables."""
        return CircuitProposal(self._drawing, self._positions, self._tested, columns, self.log_probability)

    def candidates(self, key: TileKey, size: int) -> Candidates:
        """Draw the tested columns of `size` rows, all of which satisfy the conditions."""
        drawing = self._drawing
        places = drawing.places(self._tested_order, key, size, {})
        latents: dict[str, NDArray[np.generic]] = {}
        for position, place in places.items():
            latents[f"bin.{position}"] = place.bins
            if place.states is not None:
                latents[f"state.{position}"] = place.states
        determining = self._determining(self._tested)
        choices = {each: drawing.choices[each].choices(key, places[each].bins) for each in determining}
        latents |= {f"choice.{position}": own for position, own in choices.items()}
        return Candidates(size, latents, self._cells(self._tested, choices, key))

    def finish(self, found: Candidates, key: TileKey) -> Units:
        """Draw the other requested columns."""
        drawing = self._drawing
        latents = {name: latent.astype(np.int64, copy=False) for name, latent in found.latents.items()}
        known = {
            position: Place(latents.get(f"state.{position}"), latents[f"bin.{position}"])
            for position in self._tested_order
        }
        places = drawing.places(self._untested_order, key, found.size, known)
        choices = {}
        for each in self._determining(self._untested):
            drawn = latents.get(f"choice.{each}")
            choices[each] = drawing.choices[each].choices(key, places[each].bins) if drawn is None else drawn
        cells = self._cells(self._untested, choices, key)
        return Units({name: cells[name] if name in cells else found.cells[name] for name in self._requested})

    def _cells(
        self, names: Iterable[str], choices: Mapping[int, NDArray[np.int64]], key: TileKey
    ) -> dict[str, ColumnArray]:
        drawing, of = self._drawing, self._drawing.circuit.determining
        positions = {name: self._positions[name] for name in names}
        return {name: drawing.cells(position, choices[of(position)], key) for name, position in positions.items()}

    def _determining(self, names: Iterable[str]) -> set[int]:
        return {self._drawing.circuit.determining(self._positions[name]) for name in names}


def _tile_size(columns: int) -> int:
    """Return the candidates of a tile of a model with so many columns: a few milliseconds of work."""
    size = _MOST_TILE
    while size > _LEAST_TILE and size * columns > _TILE_CELLS:
        size //= 2
    return size
