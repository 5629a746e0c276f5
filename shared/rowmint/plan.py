"""What a sample stream is made of: plan digest, blocks, tiles.

Output row i is accepted candidate (i mod R) of block (i div R), whose candidates are those of tiles (b, 0), (b, 1), ...
in order. A plan fixes R, the tile size T and the tile budget K; it is compiled from (model digest, canonical
conditions, algorithm number) alone, never from what was asked of the stream, so every call about the same rows means
the same rows.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import rfc8785

from rowmint.conditions import ColumnCondition
from rowmint.rng import StreamKey
from rowmint.schema import ColumnKind, TableSchema
from rowmint.synthesizer.interface import Synthesizer

ALGORITHM = 1
"""Number of the way rows are computed from a model; a change of any row is a new number."""

TILE_SIZE = 4096
BLOCK_SIZE = 4096
_BLOCK_CANDIDATES = 16 * TILE_SIZE  # aimed at: a block is what a resumed stream may have to compute again
_MAX_TILES = 1024
_PILOT_TILES = 8
_PILOT_TILES_RARE = 64
_PILOT_ENOUGH = 32


@dataclass(frozen=True)
class Plan:
    """How the rows of a stream are computed.

    Attributes:
        digest: SHA-256 of what it was compiled from, 32 bytes.
        conditions: Canonical conditions.
        tile_size: Candidates of a tile, T.
        block_size: Rows of a block, R, a power of two.
        tile_budget: Tiles a block may use, K.
        acceptance: Share of candidates that satisfied the conditions in a pilot, 0 to 1.
    """

    digest: bytes
    conditions: tuple[ColumnCondition, ...]
    tile_size: int
    block_size: int
    tile_budget: int
    acceptance: float


def plan_digest(model_digest: bytes, conditions: Sequence[ColumnCondition]) -> bytes:
    """Return the digest of the plan for `conditions` (canonical), 32 bytes."""
    body = {
        "algorithm": ALGORITHM,
        "model": model_digest.hex(),
        "where": [condition.to_json() for condition in conditions],
    }
    return hashlib.sha256(b"rowmint/plan/1\0" + rfc8785.dumps(body)).digest()


def compile_plan(model_digest: bytes, synthesizer: Synthesizer, conditions: tuple[ColumnCondition, ...]) -> Plan:
    """Compile the plan for `conditions`; a pilot with a fixed seed estimates how many candidates satisfy them.

    Args:
        model_digest: 32 bytes.
        synthesizer: The model.
        conditions: Canonical conditions.
    """
    digest = plan_digest(model_digest, conditions)
    if not conditions:
        return Plan(digest, conditions, TILE_SIZE, BLOCK_SIZE, 1, 1.0)
    accepted, candidates = pilot(model_digest, digest, synthesizer, conditions)
    # Half a row stands for none: the estimate only sets sizes, and 0 would set none.
    share = max(accepted, 0.5) / candidates
    block = BLOCK_SIZE
    while block > 1 and block > share * _BLOCK_CANDIDATES:
        block //= 2
    budget = math.ceil((4 * block + 64) / (share * TILE_SIZE))
    return Plan(digest, conditions, TILE_SIZE, block, min(budget, _MAX_TILES), accepted / candidates)


def pilot(
    model_digest: bytes, digest: bytes, synthesizer: Synthesizer, conditions: Sequence[ColumnCondition]
) -> tuple[int, int]:
    """Return how many of how many candidates satisfy `conditions`, with fixed keys no stream uses."""
    query = synthesizer.query(conditions, ())
    key = StreamKey(model_digest, hashlib.sha256(b"pilot\0" + digest).digest(), 0)
    accepted = candidates = 0
    for tile in range(_PILOT_TILES_RARE):
        if tile >= _PILOT_TILES and accepted >= _PILOT_ENOUGH:
            break
        accepted += query.tile(key.tile(0, tile), TILE_SIZE).accepted
        candidates += TILE_SIZE
    return accepted, candidates


def grid_rows(schema: TableSchema) -> int:
    """Return the rows of a grid cell: the greatest power of two, 64 to 8,192, that keeps one under 512 KiB."""
    width = 0.0
    for column in schema.columns:
        if column.kind is ColumnKind.ID:
            width += 4 + max(8, len(column.id_pattern))
        else:
            width += 8.125
    grid = 8192
    while grid > 64 and grid * width > 512 * 1024:
        grid //= 2
    return grid
