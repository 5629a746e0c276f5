"""Families that run a network on Gaussian noise: what CTGAN and TVAE have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.category import WEIGHT_ONE, draw_weighted
from rowmint.columns import ColumnArray
from rowmint.conditions import ColumnCondition
from rowmint.errors import DataLossError
from rowmint.rng import TileKey
from rowmint.schema import TableSchema
from rowmint.synthesizer import tables
from rowmint.synthesizer.heads import ColumnHead, draw_slots
from rowmint.synthesizer.interface import Tile
from rowmint.synthesizer.network import ExactNetwork, Head


@dataclass(frozen=True)
class Drivers:
    """The condition vectors of CTGAN: each candidate asks one column for one slot.

    Attributes:
        column: Position in the schema of each condition's column, shape (c,).
        slot: Slot that it asks for, shape (c,).
        weights: How often it is drawn, integers of sum 2**32, shape (c,).
    """

    column: NDArray[np.intp]
    slot: NDArray[np.intp]
    weights: NDArray[np.uint64]

    def validate(self, heads: Mapping[str, ColumnHead], conditions: int) -> None:
        """Check that they fit `heads` and a network made for so many `conditions`.

        Raises:
            DataLossError: They do not.
        """
        slots = {head.index: head.codec.slots for head in heads.values()}
        if not self.column.shape == self.slot.shape == self.weights.shape == (conditions,):
            raise DataLossError(
                f"the model has condition vectors of shapes {self.column.shape}, {self.slot.shape} and"
                f" {self.weights.shape}; its network is made for {conditions}"
            )
        asked = zip(self.column.tolist(), self.slot.tolist(), strict=True)
        if not all(0 <= slot < slots.get(column, 0) for column, slot in asked):
            raise DataLossError("a condition vector of the model asks for a slot that its column does not have")
        if int(self.weights.sum(dtype=np.uint64)) != WEIGHT_ONE:
            raise DataLossError("the weights of the model's condition vectors do not sum to one")

    def draw(self, key: TileKey, size: int) -> NDArray[np.intp]:
        """Return the condition of each candidate, shape (size,)."""
        return draw_weighted(self._cumulative, key.words32("driver", size))

    @cached_property
    def _cumulative(self) -> NDArray[np.uint64]:
        return np.cumsum(self.weights, dtype=np.uint64)


@dataclass(frozen=True)
class Candidates:
    """Candidates before any column is made.

    Attributes:
        index: Positions in the tile, ascending, shape (n,).
        condition: Condition of each, shape (n,), or None.
        activations: What the output layer takes, shape (n, k).
    """

    index: NDArray[np.intp]
    condition: NDArray[np.intp] | None
    activations: NDArray[np.uint8]

    def keep(self, mask: NDArray[np.bool_]) -> "Candidates":
        """Return the candidates where `mask` is true."""
        condition = None if self.condition is None else self.condition[mask]
        return Candidates(self.index[mask], condition, self.activations[mask])


class LatentModel:
    """Network, heads and drivers of one fitted model. Immutable, thread-safe.

    Args:
        schema: Shape of the rows.
        heads: The modelled columns by name.
        network: The generator or decoder.
        drivers: Condition vectors, or None.
        spread: Standard deviation added to each column's scalar, by name, units of 1 / ALPHA_ONE (TVAE); empty for
            none.

    Raises:
        DataLossError: They do not fit each other.
    """

    def __init__(
        self,
        schema: TableSchema,
        heads: dict[str, ColumnHead],
        network: ExactNetwork,
        drivers: Drivers | None,
        spread: dict[str, int],
    ) -> None:
        width = max((head.span.stop for head in heads.values()), default=0)
        if network.output_width != width:
            raise DataLossError(f"the model's network has {network.output_width} outputs; its columns need {width}")
        if drivers is not None:
            drivers.validate(heads, network.conditions)
        elif network.conditions != 1:
            raise DataLossError(f"the model's network is made for {network.conditions} condition vectors; it has none")
        self.schema = schema
        self.heads = heads
        self.network = network
        self.drivers = drivers
        self.spread = spread

    def candidates(self, key: TileKey, size: int, conditions: Sequence[ColumnCondition]) -> Candidates:
        """Draw candidates and run them to the output layer.

        A candidate whose own condition vector asks for a slot that `conditions` exclude could never be accepted, as its
        column is set to that slot: it is dropped before any product is computed.
        """
        condition = None
        index = np.arange(size)
        if self.drivers is not None:
            condition = self.drivers.draw(key, size)
            possible = np.ones(len(self.drivers.slot), np.bool_)
            for test in conditions:
                head = self.heads[test.column]
                own = self.drivers.column == head.index
                possible[own] &= head.reachable(test)[self.drivers.slot[own]]
            index = np.flatnonzero(possible[condition])
            condition = condition[index]
        width = self.network.input_width
        words = key.words16("noise", size * width).reshape(size, width)
        codes = tables.input_codes()[words if len(index) == size else words[index]]
        return Candidates(index, condition, self.network.hidden(codes, condition))

    def slots(
        self, head: ColumnHead, logits: NDArray[np.int32], found: Candidates, words: NDArray[np.uint64]
    ) -> NDArray[np.intp]:
        """Draw the slots of a column, shape (n,); where a candidate's condition asked for one, it is that one.

        Args:
            head: The column.
            logits: Its slots' outputs, shape (slots, n).
            found: The candidates.
            words: 32-bit words of the candidates, shape (n,).
        """
        slots = draw_slots(logits, words)
        if self.drivers is not None and found.condition is not None:
            own = np.flatnonzero(self.drivers.column[found.condition] == head.index)
            slots[own] = self.drivers.slot[found.condition[own]]
        return slots

    def scalars(self, head: ColumnHead, outputs: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the mean of each candidate's scalar, tanh of its output, units of 1 / ALPHA_ONE, shape (n,)."""
        return tables.tanh(outputs).astype(np.int64)

    def noisy(self, head: ColumnHead, scalars: NDArray[np.int64], words: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Add the column's Gaussian spread to `scalars`; both shape (n,)."""
        spread = np.int64(self.spread[head.column.name])
        return scalars + ((spread * tables.normals()[words]) // tables.NORMAL_ONE)


class LatentQuery:
    """Draws some columns of the candidates of a `LatentModel` that satisfy some conditions.

    The tested columns are made first, for all candidates, the others for those that passed.
    """

    def __init__(self, model: LatentModel, conditions: Sequence[ColumnCondition], columns: Sequence[str]) -> None:
        self._model = model
        self._conditions = tuple(conditions)
        self._columns = tuple(columns)
        tested = [condition.column for condition in conditions]
        rest = [name for name in columns if name not in tested and name in model.heads]
        self._tested = _Group(model, tested)
        self._rest = _Group(model, rest)

    def tile(self, key: TileKey, size: int) -> Tile:
        """Draw `size` candidates and keep those that satisfy the conditions."""
        found = self._model.candidates(key, size, self._conditions)
        columns: dict[str, ColumnArray] = {}
        if self._conditions:
            columns = self._tested.columns(found, key, size)
            passed = np.ones(len(found.index), np.bool_)
            for condition in self._conditions:
                passed &= condition.satisfied(columns[condition.column])
            found = found.keep(passed)
            columns = {name: array.take(np.flatnonzero(passed)) for name, array in columns.items()}
        columns.update(self._rest.columns(found, key, size))
        wanted = {name: columns[name] for name in self._columns}
        return Tile(size, len(found.index), wanted)


class _Group:
    """Columns made together, by one product."""

    def __init__(self, model: LatentModel, names: Sequence[str]) -> None:
        self._model = model
        self._heads = [model.heads[name] for name in names]
        self._product: Head | None = model.network.head([head.span for head in self._heads]) if names else None

    def columns(self, found: Candidates, key: TileKey, size: int) -> dict[str, ColumnArray]:
        """Return the columns of the candidates `found` of a tile of `size`."""
        if self._product is None:
            return {}
        outputs = self._product(found.activations, found.condition)
        result: dict[str, ColumnArray] = {}
        start = 0
        for head in self._heads:
            stop = start + head.codec.scalar + head.codec.slots
            result[head.column.name] = self._column(head, outputs[start:stop], found, key, size)
            start = stop
        return result

    def _column(
        self, head: ColumnHead, outputs: NDArray[np.int32], found: Candidates, key: TileKey, size: int
    ) -> ColumnArray:
        model = self._model
        alpha: NDArray[np.int64] | None = None
        if head.codec.scalar:
            alpha = model.scalars(head, outputs[0])
            if model.spread:
                alpha = model.noisy(head, alpha, key.words16(f"alpha:{head.index}", size)[found.index])
            outputs = outputs[1:]
        slots = model.slots(head, outputs, found, head.slot_words(key, size)[found.index])
        extra = head.extra_words(key, size)
        return head.decode(slots, alpha, None if extra is None else extra[found.index])
