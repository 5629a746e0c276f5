"""Rows by index: from a model, a plan and a seed to the columns of any block.

Where conditions are rare, finding candidates that satisfy them is nearly all the cost. Given a candidate, its untested
columns are random still; so where a caller allows it, a candidate that was found serves up to `Plan.reuse` rows, whose
columns are drawn again. Every single row has the distribution that plain rejection gives, exactly; but rows that share
a candidate are not independent. Which rows do is said by `Plan.pools`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rowmint.artifact import Model
from rowmint.codecs import IdentityCodec
from rowmint.codecs.identity import identity_key
from rowmint.errors import AcceptanceTooLowError, CancelledError
from rowmint.rng import StreamKey
from rowmint.sampling.plan import Plan, pilot_steps
from rowmint.schema.arrays import ColumnArray
from rowmint.steps import Steps
from rowmint.synthesizer import Candidates, join

_SHARE_TILES = 8  # drawn for each condition that an error compares; its wording is worth no more
_MOST_SHARE_TILES = 64  # drawn for all of them
_OWN_CACHE_BYTES = 8 << 20
_ENTRY_BYTES = 4096  # about what the objects around the arrays take: of a small block more than the arrays do


@dataclass(frozen=True)
class _Found:
    """Candidates found for a block so far.

    Attributes:
        candidates: Those that satisfied the conditions, in order.
        accepted: How many of each tile did, in the tiles' order.
    """

    candidates: Candidates
    accepted: tuple[int, ...]

    def counted(self, needed: int) -> tuple[int, int]:
        """Return how many tiles `needed` candidates take, and how many candidates of these satisfied the conditions."""
        total = tiles = 0
        for accepted in self.accepted:
            if total >= needed:
                break
            total += accepted
            tiles += 1
        return tiles, total

    @property
    def size_bytes(self) -> int:
        """Bytes it counts for where it is kept."""
        return self.candidates.size_bytes + _ENTRY_BYTES


_Place = tuple[str, StreamKey]
"""Whose stream, and which."""


class CandidateCache:
    """Candidates found, by owner, stream, tested and block; the least recently used evicted first. Thread-safe.

    Args:
        max_bytes: Bytes kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[_Place, int], _Found] = OrderedDict()
        self._total = 0

    def get(self, key: tuple[_Place, int]) -> _Found | None:
        """Return what is kept under `key`, or None."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: tuple[_Place, int], found: _Found) -> None:
        """Keep `found`, which must not change any more."""
        with self._lock:
            before = self._kept.pop(key, None)
            self._total += found.size_bytes - (before.size_bytes if before else 0)
            self._kept[key] = found
            while self._total > self._max_bytes and self._kept:
                _, gone = self._kept.popitem(last=False)
                self._total -= gone.size_bytes


@dataclass(frozen=True)
class Block:
    """Rows of one block.

    Attributes:
        first_row: Index of its first row.
        rows: Rows found, n; fewer than needed where the candidate budget was exhausted.
        candidates: Candidates drawn.
        accepted: Candidates that satisfied the conditions, those beyond the rows found included.
        columns: The requested columns, n cells each.
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
        kept: Where candidates that serve several rows are kept; None for a small place of its own.
        owner: Whose rows they are; candidates found for one owner serve no other.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        seed: int,
        columns: Sequence[str],
        kept: CandidateCache | None = None,
        *,
        owner: str = "",
    ) -> None:
        self._model = model
        self._kept = CandidateCache(_OWN_CACHE_BYTES) if kept is None else kept
        self._plan = plan
        self._key = StreamKey(model.digest, plan.key, seed)
        self._place = owner, self._key
        self._columns = tuple(columns)
        self._ids: dict[str, tuple[IdentityCodec, bytes]] = {
            name: (codec, identity_key(model.digest, "", name, seed))
            for name in columns
            if (codec := model.identities.get(name)) is not None
        }
        self._proposal = plan.proposal.requesting([name for name in columns if name not in self._ids])

    def block(self, number: int, needed: int, stopped: Callable[[], bool] = lambda: False) -> Block:
        """Compute the first rows of block `number`; only as many tiles as they need.

        Args:
            number: The block, from 0.
            needed: Rows wanted, 1 to the plan's block size.
            stopped: Called before each tile; returns whether the rows are not needed any more.

        Raises:
            CancelledError: `stopped` returned True.
            RowRangeError: An id column has no id for a row.
        """
        first_row = number * self._plan.block_size
        ids = {name: codec.cells(first_row, needed, key) for name, (codec, key) in self._ids.items()}
        source = self._plan.pools.source(first_row) // self._plan.block_size
        found = self._find(source, needed, stopped)
        candidates = found.candidates.first(needed)
        made = self._proposal.finish(candidates, self._key.tile(number, 0)).columns
        columns = {
            name: ids[name].take(slice(0, candidates.size)) if name in ids else made[name] for name in self._columns
        }
        # Candidates are counted where they are first used.
        counted = source == number or candidates.size < needed
        tiles, accepted = found.counted(needed) if counted else (0, 0)
        drawn = accepted if self._plan.acceptance == 1 else tiles * self._plan.tile_size
        return Block(first_row, candidates.size, drawn, accepted, columns)

    def _find(self, number: int, needed: int, stopped: Callable[[], bool]) -> _Found:
        """Return the first candidates of block `number` that satisfy the conditions, `needed` or more.

        No tile is drawn that they do not need; fewer are there only where the candidate budget is exhausted.
        """
        plan = self._plan
        reused = plan.reuse > 1
        kept = self._kept.get((self._place, number)) if reused else None
        parts = [] if kept is None else [kept.candidates]
        accepted = [] if kept is None else list(kept.accepted)
        found = sum(accepted)
        while found < needed and len(accepted) < plan.tile_budget:
            if stopped():
                raise CancelledError("the caller does not wait for these rows any more")
            # Where all candidates satisfy the conditions, none is drawn that no row needs.
            size = min(plan.tile_size, needed - found) if plan.acceptance == 1 else plan.tile_size
            parts.append(self._proposal.candidates(self._key.tile(number, len(accepted)), size))
            accepted.append(parts[-1].size)
            found += parts[-1].size
        if kept is not None and len(accepted) == len(kept.accepted):
            return kept
        # No row of the block uses a candidate beyond its size.
        whole = _Found(join(parts).first(plan.block_size), tuple(accepted))
        if reused:
            self._kept.put((self._place, number), whole)
        return whole

    def acceptance_too_low(self, block: Block) -> Steps[AcceptanceTooLowError]:
        """Work out the error for a block whose candidate budget was exhausted, naming the rarest condition."""
        rarest, share = "", np.inf
        conditions = self._plan.conditions
        tiles = max(min(_SHARE_TILES, _MOST_SHARE_TILES // max(len(conditions), 1)), 1)
        for condition in conditions:
            alone = yield from self._model.synthesizer.propose_steps([condition])
            found, candidates = yield from pilot_steps(self._model.digest, self._plan.key, alone, tiles)
            if found / candidates < share:
                rarest, share = condition.column, found / candidates
        return AcceptanceTooLowError(
            f"{block.accepted} of {block.candidates} candidates satisfied the conditions, too few to make row"
            f" {block.first_row + block.rows}; the rarest condition is the one on {rarest!r} ({share:.2g} of rows by"
            " itself). Widen a condition, or allow a partial result",
            found=block.accepted,
            candidates=block.candidates,
            row=block.first_row + block.rows,
        )
