"""Families that run a network on Gaussian noise: what CTGAN and TVAE have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.category import draw_weighted, sum_to_one
from rowmint.conditions import ColumnCondition
from rowmint.errors import DataLossError
from rowmint.rng import TileKey
from rowmint.schema import TableSchema
from rowmint.schema.arrays import ColumnArray
from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.exact.network import ExactNetwork
from rowmint.synthesizer.interface import Candidates
from rowmint.synthesizer.latent.heads import ColumnHead, SlotLayout

ROWS_AT_ONCE = 1024  # rows drawn at once: their masses stay in a core's own cache
_MAX_SLOTS = (2**31 - 1) // tables.EXP_ONE  # the masses of so many fit in an int32


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
        if not sum_to_one(self.weights):
            raise DataLossError("the weights of the model's condition vectors do not sum to one")

    def draw(self, key: TileKey, size: int) -> NDArray[np.intp]:
        """Return the condition of each candidate, shape (size,)."""
        return draw_weighted(self._cumulative, key.words32("driver", size).astype(np.uint64))

    @cached_property
    def _cumulative(self) -> NDArray[np.uint64]:
        return np.cumsum(self.weights, dtype=np.uint64)


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
        width = max((head.stop for head in heads.values()), default=0)
        if network.output_width != width:
            raise DataLossError(f"the model's network has {network.output_width} outputs; its columns need {width}")
        for name, head in heads.items():
            if head.codec.slots > _MAX_SLOTS:
                raise DataLossError(f"column {name!r} has {head.codec.slots} slots; a network may have {_MAX_SLOTS}")
        if drivers is not None:
            drivers.validate(heads, network.conditions)
        self.schema = schema
        self.heads = heads
        self.network = network
        self.drivers = drivers
        self.spread = spread

    @cached_property
    def every_column(self) -> "Group":
        """All modelled columns, made together."""
        return Group(self, list(self.heads))

    def noise(self, key: TileKey, size: int) -> NDArray[np.uint8]:
        """Return the input codes of `size` candidates, shape (size, noise_width)."""
        width = self.network.noise_width
        return tables.input_codes(key.words16("noise", (size * width + 1) // 2))[: size * width].reshape(size, width)

    def forced(self, condition: NDArray[np.intp] | None, head: ColumnHead) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return which candidates' conditions ask `head` for a slot, and for which; the column is set to it."""
        if self.drivers is None or condition is None:
            return np.zeros(0, np.intp), np.zeros(0, np.intp)
        own = np.flatnonzero((self.drivers.column == head.index)[condition])
        return own, self.drivers.slot[condition[own]]

    def noisy(self, head: ColumnHead, scalars: NDArray[np.int64], words: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Add the column's Gaussian spread to `scalars`; both shape (n,), units of 1 / ALPHA_ONE."""
        spread = np.int64(self.spread[head.column.name])
        return scalars + ((spread * tables.normals().take(words)) >> np.int64(tables.NORMAL_BITS))


class LatentQuery:
    """Draws some columns of the candidates of a `LatentModel` that satisfy some conditions.

    The tested columns are made first, one after the other, each for the candidates that passed the tests before.

    NOTE: a candidate whose own condition vector asks for a slot that the conditions exclude could never be accepted, as
    its column is set to that slot: it is dropped before any product is computed.
    """

    def __init__(self, model: LatentModel, conditions: Sequence[ColumnCondition], columns: Sequence[str]) -> None:
        self._model = model
        self._columns = tuple(columns)
        tested = {condition.column for condition in conditions}
        self._tests = [(condition, Group(model, [condition.column])) for condition in conditions]
        rest = [name for name in columns if name not in tested]
        self._rest = model.every_column if len(rest) == len(model.heads) else Group(model, rest)
        self._possible: NDArray[np.bool_] | None = None
        if model.drivers is not None and conditions:
            self._possible = np.ones(len(model.drivers.slot), np.bool_)
            for condition in conditions:
                head = model.heads[condition.column]
                own = model.drivers.column == head.index
                self._possible[own] &= head.reachable(condition)[model.drivers.slot[own]]

    def candidates(self, key: TileKey, size: int) -> Candidates:
        """Draw `size` candidates and keep those that satisfy the conditions."""
        model = self._model
        codes = model.noise(key, size)
        condition = None if model.drivers is None else model.drivers.draw(key, size)
        if not self._tests:
            return _found(codes, condition, {})
        index = np.arange(size)
        if condition is not None and self._possible is not None:
            index = np.flatnonzero(self._possible[condition])
            codes, condition = codes[index], condition[index]
        return self._passing(codes, condition, Words(key, size, index))

    def _passing(self, codes: NDArray[np.uint8], condition: NDArray[np.intp] | None, words: "Words") -> Candidates:
        """Return those of some candidates that satisfy the conditions."""
        activations = self._model.network.hidden(codes, condition)
        cells: dict[str, ColumnArray] = {}
        for test, group in self._tests:
            (made,) = group.columns(activations, condition, words).values()
            passed = np.flatnonzero(test.satisfied(made))
            cells = {name: array.take(passed) for name, array in {**cells, test.column: made}.items()}
            codes, activations, words = codes[passed], activations[passed], words.at(passed)
            condition = None if condition is None else condition[passed]
        return _found(codes, condition, cells)

    def columns(self, found: Candidates, key: TileKey) -> dict[str, ColumnArray]:
        """Make the asked columns of candidates."""
        made = dict(found.cells)
        if self._rest.heads:
            codes: NDArray[np.uint8] = found.latents["codes"].view(np.uint8)
            condition = found.latents.get("condition")
            driven = None if condition is None else condition.astype(np.intp)
            made |= self._rest.columns_of(codes, driven, Words(key, found.size, None))
        return {name: made[name] for name in self._columns}


def _found(codes: NDArray[np.uint8], condition: NDArray[np.intp] | None, cells: dict[str, ColumnArray]) -> Candidates:
    latents: dict[str, NDArray[np.generic]] = {"codes": codes}
    if condition is not None:
        latents["condition"] = condition.astype(np.int32)
    return Candidates(len(codes), latents, cells)


@dataclass(frozen=True)
class Words:
    """Random words of some rows.

    Attributes:
        key: Keys them.
        size: Rows that words are drawn for.
        index: Which of them are asked for, ascending; None for all.
    """

    key: TileKey
    size: int
    index: NDArray[np.intp] | None

    def at(self, rows: NDArray[np.intp]) -> "Words":
        """Return the words of some of these rows."""
        return Words(self.key, self.size, rows if self.index is None else self.index[rows])

    def slots(self, head: ColumnHead) -> NDArray[np.uint32]:
        """Return the words that draw the slots of a column, shape (n,)."""
        words = head.slot_words(self.key, self.size)
        return words if self.index is None else words[self.index]

    def tails(self, head: ColumnHead) -> NDArray[np.uint64] | None:
        """Return the words that decode its rare categories, shape (n,), or None where none are needed."""
        words = head.extra_words(self.key, self.size)
        return words if words is None or self.index is None else words[self.index]

    def spreads(self, head: ColumnHead) -> NDArray[np.uint16]:
        """Return the words of the Gaussian spread of its scalar, shape (n,)."""
        words = self.key.words16(f"alpha:{head.index}", self.size)
        return words if self.index is None else words[self.index]


class Group:
    """Columns of a model that are made together, by one product. Immutable, thread-safe."""

    def __init__(self, model: LatentModel, names: Sequence[str]) -> None:
        self._model = model
        self.layout = SlotLayout([model.heads[name] for name in names])
        self.heads = self.layout.heads
        self.outputs = model.network.head(self.layout.outputs) if names else None
        self.scratch = model.network.scratch

    def columns_of(
        self, codes: NDArray[np.uint8], condition: NDArray[np.intp] | None, words: Words
    ) -> dict[str, ColumnArray]:
        """Return the columns of rows given by their input codes, shape (n, noise_width); see `columns`."""
        drawn = _Drawn(self, len(codes), words)
        for start in range(0, len(codes), ROWS_AT_ONCE):
            span = slice(start, start + ROWS_AT_ONCE)
            asked = None if condition is None else condition[span]
            drawn.add(span, self._model.network.hidden(codes[span], asked))
        return self._decode(drawn, condition, words)

    def columns(
        self, activations: NDArray[np.uint8], condition: NDArray[np.intp] | None, words: Words
    ) -> dict[str, ColumnArray]:
        """Return the columns by name, n cells each.

        Args:
            activations: What the output layer takes, shape (n, k).
            condition: Condition of each row, shape (n,), or None.
            words: Words of these n rows.
        """
        drawn = _Drawn(self, len(activations), words)
        drawn.add(slice(0, len(activations)), activations)
        return self._decode(drawn, condition, words)

    def _decode(self, drawn: "_Drawn", condition: NDArray[np.intp] | None, words: Words) -> dict[str, ColumnArray]:
        made: dict[str, ColumnArray] = {}
        for row, head in enumerate(self.heads):
            own, asked = self._model.forced(condition, head)
            slots = drawn.slots[row]
            slots[own] = asked
            alpha = None
            if head.codec.scalar:
                alpha = drawn.scalars[self.layout.scalar_of[head.column.name]]
                if self._model.spread:
                    alpha = self._model.noisy(head, alpha, words.spreads(head))
            made[head.column.name] = head.decode(slots, alpha, words.tails(head))
        return made


class _Drawn:
    """Slots and scalars of n rows of a group, being drawn, a few rows at a time."""

    def __init__(self, group: Group, count: int, words: Words) -> None:
        self._group = group
        self._words = np.empty((len(group.heads), count), np.uint32)
        for row, head in enumerate(group.heads):
            self._words[row] = words.slots(head)
        self.slots = np.empty((len(group.heads), count), np.uint16)
        self.scalars = np.empty((group.layout.scalars, count), np.int64)

    def add(self, span: slice, activations: NDArray[np.uint8]) -> None:
        """Draw the rows of `span`."""
        layout = self._group.layout
        outputs = self._group.outputs(activations) if self._group.outputs else np.zeros((0, 0), np.int16)
        self.slots[:, span] = layout.draw(outputs, self._words[:, span], self._group.scratch)
        self.scalars[:, span] = tables.tanh(outputs[: layout.scalars])
