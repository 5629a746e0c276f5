"""Plans: made of model and conditions alone, with blocks as small as the conditions are rare."""

import inspect
import itertools
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from rowmint.conditions import AnyOf, Predicate, Range, canonical
from rowmint.sampling.plan import BLOCK_SIZE, compile_plan, grid_rows, pilot_steps, plan_key, plan_steps
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.arrays import ColumnArray
from rowmint.steps import finish
from rowmint.synthesizer import Candidates, propose
from rowmint.synthesizer.interface import TILE_SIZE

COLUMN = ColumnSpec("n", ColumnKind.NUMERICAL, DataType.INT64, Domain(minimum=0, maximum=9))
OTHER = replace(COLUMN, name="m")
SCHEMA = TableSchema((COLUMN, OTHER))
MODEL = bytes(range(32))
WHERE = canonical([Predicate("n", Range(3, 5))], SCHEMA)


class FixedSynthesizer:
    """Accepts a fixed share of each tile's candidates."""

    schema = SCHEMA
    tile_size = TILE_SIZE

    def __init__(self, share, plan_inputs=None, exact=False):
        self.share = share
        self.tiles = []
        self.plan_inputs = plan_inputs or {}
        self.acceptance = None
        self._exact = exact

    def propose_steps(self, tests, weights=None):
        yield
        self.acceptance = 1.0 if self._exact or not tests else None
        self.probability = 0.25 if self._exact else None
        return self

    def requesting(self, columns):
        return self

    def candidates(self, key, size):
        self.tiles.append((key, size))
        before, after = (int(self.share * size * count) for count in (len(self.tiles) - 1, len(self.tiles)))
        return Candidates(after - before, {}, {})


def test_what_a_proposal_says_that_rows_depend_on_enters_the_key():
    plain = compile_plan(MODEL, FixedSynthesizer(0.5), WHERE).key
    assert plain == plan_key(MODEL, WHERE)
    found = {compile_plan(MODEL, FixedSynthesizer(0.5, {"kernel": kernel}), WHERE).key for kernel in "ab"}
    assert len(found | {plain}) == 3
    assert plan_key(MODEL, WHERE, {"kernel": "a"}) in found


def test_conditions_that_are_met_by_construction_need_no_pilot():
    synthesizer = FixedSynthesizer(0.5, exact=True)
    plan = compile_plan(MODEL, synthesizer, WHERE)
    assert (synthesizer.tiles, plan.acceptance, plan.tile_budget, plan.most_reuse) == ([], 1.0, 1, 1)
    assert (plan.conditions, plan.key, plan.digest) == (WHERE, plan_key(MODEL, WHERE), plan_key(MODEL, WHERE))
    assert (plan.probability, compile_plan(MODEL, FixedSynthesizer(0.5), WHERE).probability) == (0.25, None)


def test_the_key_depends_on_model_and_conditions_only():
    assert set(inspect.signature(compile_plan).parameters) == {"model_digest", "synthesizer", "conditions", "weights"}
    digests = [
        plan_key(MODEL, ()),
        plan_key(bytes(32), ()),
        plan_key(MODEL, WHERE),
        plan_key(MODEL, canonical([Predicate("m", Range(3, 5))], SCHEMA)),
        plan_key(MODEL, canonical([Predicate("n", Range(3, 6))], SCHEMA)),
        plan_key(MODEL, canonical([Predicate("n", Range(3, 5)), Predicate("m", AnyOf((1,)))], SCHEMA)),
    ]
    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {32}
    same = canonical([Predicate("n", AnyOf((5, 4, 3))), Predicate("n", Range(2, None, minimum_exclusive=True))], SCHEMA)
    assert plan_key(MODEL, same) == plan_key(MODEL, WHERE)
    # What was observed has no part in it.
    assert {compile_plan(MODEL, FixedSynthesizer(share), WHERE).key for share in (1.0, 0.5, 1e-4, 0)} == {digests[2]}


ONE = "6d16d5d8ded86383e5f7c156dfe9941adcab2a3cc962ee180da559ed8cdf1691"
TWO = "aa75f89eb7106fe2b067d6538d4b02e7b2e8ceb3ea803f47f08c5f8ccf94dc45"
FOUR = "b02d2106f376b61dd4fc78d2e9a9e48807ee3490e5289457e920537e96641ed4"
KEY = "07e1c6e59f0108c0813507d6c065553d9cf14a39faff6d4b4cf4d5475a2bf2df"


def test_the_digest_is_frozen():
    digest = plan_key(MODEL, WHERE).hex()
    assert digest == KEY


@pytest.mark.parametrize(
    ("share", "max_reuse", "reuse", "digest"),
    [
        # Common conditions: no caller's wish has an effect, and the digest is that of before there was one.
        (0.3, None, 1, KEY),
        (0.3, 64, 1, KEY),
        # Rare ones: independent rows are other rows than those of before, and have a digest of their own.
        (1e-3, None, 1, ONE),
        (1e-3, 1, 1, ONE),
        (1e-3, 4, 4, FOUR),
        (1e-3, 64, 64, KEY),
        # As much as the conditions make worth while is as much as possible, which has always been the key.
        (0.06, 4, 4, KEY),
        (0.06, 64, 4, KEY),
        (0.06, 2, 2, TWO),
    ],
)
def test_the_digest_covers_the_reuse_where_it_has_an_effect(share, max_reuse, reuse, digest):
    plan = compile_plan(MODEL, FixedSynthesizer(share), WHERE).allowing(max_reuse)
    assert (plan.reuse, plan.digest.hex()) == (reuse, digest)
    # The random words are those of the key: what is allowed changes which candidate a row has, and nothing else.
    assert plan.key.hex() == KEY


def test_a_digest_of_before_reuse_was_requested_stands_for_the_reuse_that_it_covers():
    plan = compile_plan(MODEL, FixedSynthesizer(1e-3), WHERE)
    assert plan.allowing(None, plan.key) == plan.allowing(64)
    assert plan.allowing(None, plan.key).digest == plan.key
    assert plan.allowing(None, plan.allowing(1).digest) == plan.allowing(1)
    # A caller that requests a reuse gets that, whatever it expects.
    assert plan.allowing(1, plan.key) == plan.allowing(1)


def test_a_plan_without_conditions_needs_no_pilot():
    synthesizer = FixedSynthesizer(1.0)
    plan = compile_plan(MODEL, synthesizer, ())
    assert (plan.tile_size, plan.block_size, plan.tile_budget, plan.acceptance) == (TILE_SIZE, BLOCK_SIZE, 1, 1.0)
    assert (plan.pool_rows, plan.most_reuse) == (BLOCK_SIZE, 1)
    assert synthesizer.tiles == []


@pytest.mark.parametrize(
    "share", [1.0, 0.9, 0.5, 0.26, 0.25, 0.2, 0.126, 0.125, 0.1, 0.06, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 0.0]
)
def test_rare_conditions_get_small_blocks_and_large_budgets(share):
    plan = compile_plan(MODEL, FixedSynthesizer(share), WHERE)
    assert plan.block_size & (plan.block_size - 1) == 0
    assert 1 <= plan.block_size <= BLOCK_SIZE
    assert 1 <= plan.tile_budget <= 1024
    assert plan.acceptance == pytest.approx(share, abs=3 / (8 * TILE_SIZE))
    assert plan.reuse == 1
    assert plan.most_reuse & (plan.most_reuse - 1) == 0
    assert 1 <= plan.most_reuse <= 64
    assert plan.pool_rows & (plan.pool_rows - 1) == 0
    assert plan.block_size <= plan.pool_rows <= max(plan.block_size, 2**15)
    assert plan.pool_rows % plan.block_size == 0
    if share >= 0.25:
        assert (plan.most_reuse, plan.pool_rows) == (1, plan.block_size)
    elif share > 1e-4:
        # What a row costs in candidates, over a whole pool, is four to eight, or bounded by the most reuse.
        assert plan.most_reuse == 64 or 0.125 < plan.most_reuse * share <= 0.25
        assert plan.pool_rows == 2**15 or plan.pool_rows <= share * 2**20
    if share:
        # A block is aimed at 16 tiles at most, and its budget at four times what it needs.
        assert plan.block_size == 1 or plan.block_size <= share * 16 * TILE_SIZE
        assert plan.tile_budget == 1024 or plan.tile_budget * TILE_SIZE * share >= 4 * plan.block_size


def test_the_rarer_the_smaller():
    plans = [compile_plan(MODEL, FixedSynthesizer(share), WHERE) for share in (1.0, 0.05, 1e-2, 1e-3, 1e-5)]
    sizes = [plan.block_size for plan in plans]
    budgets = [plan.tile_budget for plan in plans]
    assert sizes == sorted(sizes, reverse=True)
    assert budgets == sorted(budgets)
    assert (sizes[0], sizes[-1]) == (BLOCK_SIZE, 1)


def test_a_plan_compiled_in_steps_is_the_same_one_tile_at_a_time():
    synthesizer = FixedSynthesizer(1e-3)
    compiling = plan_steps(MODEL, synthesizer, WHERE)
    drawn = [len(synthesizer.tiles) for _ in itertools.islice(compiling, 6)]
    assert drawn == list(range(6))
    assert finish(compiling) == compile_plan(MODEL, FixedSynthesizer(1e-3), WHERE)
    assert len(synthesizer.tiles) == 8


def test_a_pilot_has_words_of_its_own_and_stops_when_it_has_seen_enough():
    often, never = FixedSynthesizer(0.5), FixedSynthesizer(0)
    digest = plan_key(MODEL, WHERE)

    def counts(synthesizer, *most):
        return finish(pilot_steps(MODEL, digest, propose(synthesizer, WHERE, ()), *most))

    assert counts(often) == (4 * TILE_SIZE, 8 * TILE_SIZE)
    assert counts(never) == (0, 64 * TILE_SIZE)
    assert counts(never, 8) == (0, 8 * TILE_SIZE)
    keys = [key for key, _ in often.tiles]
    assert len(set(keys)) == len(keys)
    assert {key.stream.model_digest for key in keys} == {MODEL}
    assert digest not in {key.stream.plan_digest for key in keys}


# --- the grid --------------------------------------------------------------------------------------------------------


def _wide(count, column):
    return TableSchema(tuple(replace(column, name=f"c{index}") for index in range(count)))


@pytest.mark.parametrize(
    ("schema", "rows"),
    [
        (TableSchema((COLUMN,)), 8192),
        (_wide(7, COLUMN), 4096),
        (_wide(100, COLUMN), 512),
        (_wide(3000, COLUMN), 16),
        (TableSchema((ColumnSpec("t", ColumnKind.CATEGORICAL, DataType.STRING, Domain(("x" * 1000,))),)), 2048),
        (TableSchema((ColumnSpec("t", ColumnKind.CATEGORICAL, DataType.STRING, Domain(("ü" * 65536,))),)), 8),
        (TableSchema((ColumnSpec("b", ColumnKind.BOOLEAN, DataType.BOOL, Domain((False, True))),)), 8192),
        (TableSchema((ColumnSpec("i", ColumnKind.ID, DataType.STRING, id_pattern="[a-z]{2}x{99}x{99}"),)), 2048),
        (TableSchema((ColumnSpec("i", ColumnKind.ID, DataType.INT64),)), 8192),
        (TableSchema((ColumnSpec("d" * 256, ColumnKind.NUMERICAL, DataType.DECIMAL),)), 4096),
    ],
)
def test_a_grid_cell_is_a_power_of_two_of_bounded_size(schema, rows):
    assert grid_rows(schema) == rows


def test_the_most_decimal_columns_keep_under_a_mebibyte():
    schema = _wide(60, replace(COLUMN, data_type=DataType.DECIMAL, domain=Domain(minimum=Decimal(0), decimals=2)))
    assert grid_rows(schema) * 60 * 16 < 2**20
    assert len(ColumnArray(np.zeros(grid_rows(schema)))) == grid_rows(schema)
