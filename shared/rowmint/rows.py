"""Rows by index: from a model, a plan and a seed to the columns of any block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rowmint.artifact import Model
from rowmint.codecs import IdentityCodec
from rowmint.codecs.identity import identity_key
from rowmint.columns import ColumnArray, concatenate
from rowmint.errors import CancelledError, ConditionStarvedError
from rowmint.plan import Plan, pilot
from rowmint.rng import StreamKey

_STARVED_TILES = 8  # an error's wording is worth no more


@dataclass(frozen=True)
class Block:
    """Rows of one block.

    Attributes:
        first_row: Index of its first row.
        rows: Rows found, n; fewer than asked for where the conditions starved.
        candidates: Candidates drawn.
        accepted: Candidates that satisfied the conditions, those beyond the rows found included.
        columns: The asked columns, n cells each.
    """

    first_row: int
    rows: int
    candidates: int
    accepted: int
    columns: dict[str, ColumnArray]


class RowSource:
    """The rows of one stream, by block. Immutable, thread-safe.

    Args:
        model: The model.
        plan: The plan, compiled for that model.
        seed: 0 to 2**64 - 1.
        columns: Columns made, ids included; names exist.
    """

    def __init__(self, model: Model, plan: Plan, seed: int, columns: Sequence[str]) -> None:
        self._model = model
        self._plan = plan
        self._key = StreamKey(model.digest, plan.digest, seed)
        self._columns = tuple(columns)
        self._ids: dict[str, tuple[IdentityCodec, bytes]] = {
            name: (codec, identity_key(model.digest, "", name, seed))
            for name in columns
            if (codec := model.identities.get(name)) is not None
        }
        self._query = model.synthesizer.query(plan.conditions, [name for name in columns if name not in self._ids])

    def block(self, number: int, needed: int, stopped: Callable[[], bool] = lambda: False) -> Block:
        """Compute the first rows of block `number`; only as many tiles as they need.

        Args:
            number: The block, from 0.
            needed: Rows wanted, 1 to the plan's block size.
            stopped: Asked before each tile whether anybody still wants the rows.

        Raises:
            CancelledError: `stopped` said so.
            RowRangeError: An id column has no id for a row.
        """
        plan = self._plan
        first_row = number * plan.block_size
        ids = {name: ColumnArray(codec.values(first_row, needed, key)) for name, (codec, key) in self._ids.items()}
        parts: list[dict[str, ColumnArray]] = []
        accepted = tiles = 0
        while accepted < needed and tiles < plan.tile_budget:
            if stopped():
                raise CancelledError("nobody waits for these rows any more")
            tile = self._query.tile(self._key.tile(number, tiles), plan.tile_size)
            parts.append(tile.columns)
            accepted += tile.accepted
            tiles += 1
        rows = min(accepted, needed)
        columns: dict[str, ColumnArray] = {}
        for name in self._columns:
            array = ids[name] if name in ids else concatenate([part[name] for part in parts])
            columns[name] = array.take(slice(0, rows))
        return Block(first_row, rows, tiles * plan.tile_size, accepted, columns)

    def starved(self, block: Block) -> ConditionStarvedError:
        """Return the error for a block that its budget did not fill, naming the rarest condition."""
        rarest, share = "", np.inf
        for condition in self._plan.conditions:
            found, candidates = pilot(
                self._model.digest, self._plan.digest, self._model.synthesizer, [condition], _STARVED_TILES
            )
            if found / candidates < share:
                rarest, share = condition.column, found / candidates
        return ConditionStarvedError(
            f"{block.accepted} of {block.candidates} candidates satisfied the conditions, too few to make row"
            f" {block.first_row + block.rows}; the rarest condition is the one on {rarest!r} ({share:.2g} of rows by"
            " itself). Widen a condition, or allow a partial result",
            found=block.accepted,
            candidates=block.candidates,
            row=block.first_row + block.rows,
        )
