"""What a sample stream is made of: plan digest, blocks, tiles.

Output row i is accepted candidate (i mod R) of block (i div R), whose candidates are those of tiles (b, 0), (b, 1), ...
in order. A plan fixes R, the tile size T and the tile budget K; it is compiled from (model digest, canonical
conditions, algorithm number) alone, never from which rows are requested, so every call about the same rows means
the same rows. Rows are independent unless a caller allows candidates to be reused, which makes another plan.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import rfc8785

from rowmint.conditions import ColumnCondition, ColumnWeights
from rowmint.rng import StreamKey
from rowmint.sampling.limits import MAX_REUSE
from rowmint.sampling.pools import Pools
from rowmint.schema import ColumnKind, DataType, TableSchema, cell_text
from rowmint.schema.arrays import is_coded
from rowmint.schema.forms.cells import written
from rowmint.schema.forms.id_pattern import parse_id_pattern
from rowmint.schema.forms.size import most_bytes
from rowmint.steps import Steps, finish
from rowmint.synthesizer.interface import TILE_SIZE, Proposal, Synthesizer

ALGORITHM = 2
"""Number of the algorithm that computes rows from a model; a change of any row is a new number."""

BLOCK_SIZE = 4096
_BLOCK_CANDIDATES = 16 * TILE_SIZE  # aimed at: a block is what a resumed stream may have to compute again
_MAX_TILES = 1024
_REUSE_FROM = 0.25  # acceptance from which on plain rejection is cheap enough
_POOL_CANDIDATES = 1 << 20  # drawn for a pool: half a second of work
_MAX_POOL = 1 << 15  # a few megabytes of candidates
_PILOT_TILES = 8
_PILOT_TILES_RARE = 64
_PILOT_ENOUGH = 32


@dataclass(frozen=True)
class Plan:
    """How the rows of a stream are computed.

    Attributes:
        key: SHA-256 of what it was compiled from, 32 bytes; part of the key of all random words.
        conditions: Canonical conditions.
        tile_size: Candidates of a tile, T.
        block_size: Rows of a block, R, a power of two.
        tile_budget: Tiles a block may use, K.
        pool_rows: Rows that have candidates of their own before candidates repeat, a multiple of the block size.
        most_reuse: Rows that a candidate serves where as much reuse as possible is allowed, a power of two: 1 where
            the conditions are so common that plain rejection is cheap.
        acceptance: Share of candidates that satisfied the conditions in a pilot, 0 to 1.
        reuse: Rows that a candidate serves, a power of two up to `most_reuse`; 1 for independent rows.
        weights: Shares that values of a column have among the rows; None for those of the model.
        proposal: Draws rows that satisfy the conditions; no column is requested yet.
    """

    key: bytes
    conditions: tuple[ColumnCondition, ...]
    tile_size: int
    block_size: int
    tile_budget: int
    pool_rows: int
    most_reuse: int
    acceptance: float
    proposal: Proposal = field(compare=False, repr=False)
    reuse: int = 1
    weights: ColumnWeights | None = None

    @property
    def probability(self) -> float | None:
        """Probability that a row of the model satisfies the conditions; see `Proposal`."""
        return self.proposal.probability

    @property
    def digest(self) -> bytes:
        """What identifies the rows together with model digest and seed, 32 bytes: the key, and the reuse.

        With as much reuse as possible it is the key itself. So it was before reuse was requested, when every plan had
        the most: a digest that names rows of then names the same rows now.
        """
        if self.reuse == self.most_reuse:
            return self.key
        body = rfc8785.dumps({"plan": self.key.hex(), "reuse": self.reuse})
        return hashlib.sha256(b"rowmint/plan/2\0" + body).digest()

    @property
    def pools(self) -> Pools:
        """Which rows share a candidate."""
        return Pools(self.pool_rows, self.reuse)

    def allowing(self, max_reuse: int | None, expected_digest: bytes = b"") -> "Plan":
        """Return the plan in which a candidate serves up to `max_reuse` rows.

        Args:
            max_reuse: A power of two, 1 to `MAX_REUSE`; None for 1. With None, a digest of before reuse was requested
                stands for the reuse that it covers: a stream that began then is resumed with the same rows.
            expected_digest: The digest that the caller expects; empty for any.
        """
        if max_reuse is None:
            max_reuse = MAX_REUSE if expected_digest == self.key else 1
        return replace(self, reuse=min(max_reuse, self.most_reuse))


def plan_key(
    model_digest: bytes,
    conditions: Sequence[ColumnCondition],
    inputs: Mapping[str, Any] = MappingProxyType({}),
    weights: ColumnWeights | None = None,
) -> bytes:
    """Return the key of the plans for `conditions` and `weights` (canonical), 32 bytes.

    Args:
        model_digest: 32 bytes.
        conditions: Canonical conditions.
        inputs: What the family's rows depend on beside these; see `Proposal.plan_inputs`.
        weights: Canonical weights; None for none.
    """
    body: dict[str, Any] = {
        "algorithm": ALGORITHM,
        "model": model_digest.hex(),
        "where": [condition.to_json() for condition in conditions],
    }
    if inputs:
        body["inputs"] = dict(inputs)
    if weights is not None:
        body["weights"] = weights.to_json()
    return hashlib.sha256(b"rowmint/plan/1\0" + rfc8785.dumps(body)).digest()


def compile_plan(
    model_digest: bytes,
    synthesizer: Synthesizer,
    conditions: tuple[ColumnCondition, ...],
    weights: ColumnWeights | None = None,
) -> Plan:
    """Compile the plan of independent rows for `conditions`, at once; see `plan_steps`."""
    return finish(plan_steps(model_digest, synthesizer, conditions, weights))


def plan_steps(
    model_digest: bytes,
    synthesizer: Synthesizer,
    conditions: tuple[ColumnCondition, ...],
    weights: ColumnWeights | None = None,
) -> Steps[Plan]:
    """Compile the plan of independent rows for `conditions`; a pilot estimates how many candidates satisfy them.

    Args:
        model_digest: 32 bytes.
        synthesizer: The model.
        conditions: Canonical conditions.
        weights: Canonical weights; None for none.

    Raises:
        InvalidConditionError: The family cannot meet them, or knows that no row can.
    """
    proposal = yield from synthesizer.propose_steps(conditions, weights)
    key = plan_key(model_digest, conditions, proposal.plan_inputs, weights)
    if proposal.acceptance == 1:
        tile = proposal.tile_size  # a block of one tile
        return Plan(key, conditions, tile, tile, 1, tile, 1, 1.0, proposal, weights=weights)
    accepted, candidates = yield from pilot_steps(model_digest, key, proposal)
    # Half a row stands for none: the estimate only sets sizes, and 0 would set none.
    share = max(accepted, 0.5) / candidates
    block = BLOCK_SIZE
    while block > 1 and block > share * _BLOCK_CANDIDATES:
        block //= 2
    budget = min(math.ceil((4 * block + 64) / (share * TILE_SIZE)), _MAX_TILES)
    most = min(_power_below(_REUSE_FROM / share), MAX_REUSE)
    pool = min(max(_power_below(share * _POOL_CANDIDATES), block), _MAX_POOL) if most > 1 else block
    return Plan(
        key,
        conditions,
        TILE_SIZE,
        block,
        budget,
        pool,
        most,
        accepted / candidates,
        proposal,
        weights=weights,
    )


def pilot_steps(
    model_digest: bytes, key: bytes, proposal: Proposal, most: int = _PILOT_TILES_RARE
) -> Steps[tuple[int, int]]:
    """Count how many of how many candidates satisfy some conditions, with fixed keys no stream uses; a step is a tile.

    Args:
        model_digest: 32 bytes.
        key: The plan's key, 32 bytes.
        proposal: Draws candidates that satisfy the conditions.
        most: Tiles drawn where few candidates satisfy them, at least 1.
    """
    stream = StreamKey(model_digest, hashlib.sha256(b"pilot\0" + key).digest(), 0)
    accepted = candidates = 0
    for tile in range(most):
        if tile >= _PILOT_TILES and accepted >= _PILOT_ENOUGH:
            break
        accepted += proposal.candidates(stream.tile(0, tile), TILE_SIZE).size
        candidates += TILE_SIZE
        yield
    return accepted, candidates


def _power_below(number: float) -> int:
    """Return the greatest power of two that is not above `number`, at least 1."""
    return 1 << max(0, math.floor(math.log2(number)))


def grid_rows(schema: TableSchema) -> int:
    """Return the rows of a batch, a power of two.

    It is the greatest, 1 to 8,192, that keeps one under 512 KiB of Arrow and about 2 MiB of text, the longest
    categories and NDJSON's column names counted in every row.
    """
    arrow = text = 0.0
    for column in schema.columns:
        letters = max(32, most_bytes(column.written_form))
        width = 16.125 if column.data_type is DataType.DECIMAL else 8.125
        if column.kind is ColumnKind.ID and column.id_pattern:
            letters = sum(len(max(alphabet).encode()) for alphabet in parse_id_pattern(column.id_pattern).layouts[-1])
            width = 4.0 + letters
        elif is_coded(column):
            present = (cell for cell in column.domain.categories if cell is not None)
            spelled = partial(written, column=column) if column.written_form else cell_text
            letters = max((len(spelled(cell).encode()) for cell in present), default=0)
        arrow += width
        text += letters + len(column.name.encode()) + 6  # quotes, colon, comma
    grid = 8192
    while grid > 1 and (grid * arrow > 512 * 1024 or grid * text > 2 * 1024 * 1024):
        grid //= 2
    return grid
