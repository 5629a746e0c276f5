"""Rows by index: independent ones, and those of which several share a candidate: what stays and what is drawn again."""

import itertools
import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.artifact import Model, read_model
from rowmint.conditions import AnyOf, ColumnCondition, Predicate, canonical
from rowmint.errors import CancelledError
from rowmint.rng import StreamKey
from rowmint.sampling.plan import Plan, compile_plan
from rowmint.sampling.rows import CandidateCache, RowSource
from rowmint.schema import TableSchema
from rowmint.schema.arrays import ColumnArray
from rowmint.steps import finish
from rowmint.synthesizer import Candidates, Units, choose_kernel, join
from tests.golden.make import REJECTING, stored
from tests.seeds import seeded

WHERE = (Predicate("city", AnyOf(("Zürich",))), Predicate("grade", AnyOf((1, 2))))
NAMES = ("city", "grade", "age", "ratio", "flag", "seen", "id")
ROUNDS, POOL, BLOCK = 4, 512, 64


@pytest.fixture(scope="module", params=REJECTING)
def model(request):
    return read_model(*stored(request.param), choose_kernel("onnxruntime"))


@pytest.fixture(scope="module")
def plan(model):
    found = compile_plan(model.digest, model.synthesizer, canonical(WHERE, model.schema))
    return replace(
        found, block_size=BLOCK, pool_rows=POOL, most_reuse=ROUNDS, reuse=ROUNDS, tile_size=1024, tile_budget=64
    )


def rows(source, numbers, needed=BLOCK):
    return [source.block(number, needed) for number in numbers]


def raw(block, names=NAMES):
    return {name: (block.columns[name].values.tobytes(), block.columns[name].missing().tobytes()) for name in names}


def joined(blocks, name):
    return np.concatenate([block.columns[name].values for block in blocks])


class CountedCache(CandidateCache):
    """Counts what is kept."""

    def __init__(self, max_bytes):
        super().__init__(max_bytes)
        self.found = []

    def put(self, key, found):
        self.found.append(key)
        super().put(key, found)


def test_a_pool_has_candidates_of_its_own_and_repeats_them_in_order(model, plan):
    cache = CountedCache(1 << 26)
    source = RowSource(model, plan, 5, NAMES, cache)
    blocks = POOL // BLOCK
    whole = rows(source, range(2 * ROUNDS * blocks))
    assert [number for _, number in cache.found] == [*range(blocks), *range(ROUNDS * blocks, (ROUNDS + 1) * blocks)]
    first = whole[:blocks]
    for turn in range(1, ROUNDS):
        again = whole[turn * blocks : (turn + 1) * blocks]
        for one, other in zip(first, again, strict=True):
            assert raw(one, ("city", "grade")) == raw(other, ("city", "grade"))
            assert raw(one, ("flag",)) != raw(other, ("flag",))
            # Candidates are counted where they are first used.
            assert one.candidates > 0
            assert (other.candidates, other.accepted) == (0, 0)
    keys = joined(whole, "id")
    assert len(np.unique(keys)) == len(keys)


def test_no_two_rows_of_a_pools_first_round_share_a_candidate(model, plan):
    source = RowSource(model, plan, 5, NAMES)
    latents = [source._find(number, BLOCK, lambda: False).candidates.latents for number in range(POOL // BLOCK)]
    for name in latents[0]:
        drawn = np.concatenate([found[name] for found in latents]).reshape(POOL, -1)
        assert name == "condition" or len(np.unique(drawn, axis=0)) == POOL


def test_a_block_is_the_same_whatever_was_kept(model, plan):
    numbers = [0, 9, 17, 25, 8, 31, 33, 1]
    warm = RowSource(model, plan, 5, NAMES, CandidateCache(1 << 26))
    expected = [raw(block) for block in rows(warm, numbers)]
    assert [raw(block) for block in rows(warm, numbers)] == expected
    for most in (0, 13_000):  # nothing is kept; hardly anything is
        assert [
            raw(block) for block in rows(RowSource(model, plan, 5, NAMES, CandidateCache(most)), numbers)
        ] == expected
    for number, block in zip(numbers, expected, strict=True):
        assert raw(RowSource(model, plan, 5, NAMES).block(number, BLOCK)) == block
    assert raw(RowSource(model, plan, 6, NAMES).block(0, BLOCK)) != expected[0]


def test_fewer_rows_are_the_first_of_more(model, plan):
    source = RowSource(model, plan, 5, NAMES)
    for number in (0, 11):
        few, many = source.block(number, 7), source.block(number, BLOCK)
        assert few.rows == 7
        for name in NAMES:
            assert few.columns[name].values.tolist() == many.columns[name].values[:7].tolist()


def test_threads_may_share_a_source(model, plan):
    expected = [raw(block) for block in rows(RowSource(model, plan, 5, NAMES), range(24))]
    source = RowSource(model, plan, 5, NAMES, CandidateCache(20_000))
    found = {}

    def work(numbers):
        for number in numbers:
            found[number] = raw(source.block(number, BLOCK))

    threads = [threading.Thread(target=work, args=(range(start, 24, 4),)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(24)] == expected


def test_a_cache_keeps_to_its_bound(model, plan):
    cache = CountedCache(20_000)
    source = RowSource(model, plan, 5, NAMES, cache)
    rows(source, range(POOL // BLOCK))
    assert len(cache.found) == POOL // BLOCK
    assert cache._total <= 20_000
    assert cache._total == sum(found.size_bytes for found in cache._kept.values())
    assert 0 < len(cache._kept) < POOL // BLOCK


COMPARED = 48  # blocks


@pytest.fixture(scope="module", params=seeded((5, 77), (6, 78), (7, 79)))
def samples(model, plan, request):
    """Rows of the last rounds of some pools, none of which share a candidate, and plainly rejected ones."""
    seed, other_seed = request.param
    plain = plan.allowing(None)
    blocks = POOL // BLOCK
    pools = range(COMPARED // blocks)
    later = [((pool + 1) * ROUNDS - 1) * blocks + place for pool in pools for place in range(blocks)]
    one = rows(RowSource(model, plan, seed, NAMES), later)
    assert {block.candidates for block in one} == {0}
    return one, rows(RowSource(model, plain, other_seed, NAMES), range(COMPARED))


@pytest.mark.parametrize("name", ["age", "ratio", "flag", "seen"])
def test_rows_of_later_rounds_are_distributed_like_plain_rejection(samples, name):
    one, other = (joined(blocks, name) for blocks in samples)
    assert len(one) == len(other) == COMPARED * BLOCK
    # The largest distance of two distribution functions (Kolmogorov and Smirnov), at a level of one in ten thousand.
    edges = np.unique(np.concatenate([one, other]))
    distance = max(
        abs(np.searchsorted(np.sort(one), edges, "right") - np.searchsorted(np.sort(other), edges, "right"))
    ) / len(one)
    assert distance < 2.23 * np.sqrt(2 / len(one))


@pytest.mark.parametrize(
    "names", list(itertools.combinations(("grade", "age", "ratio", "flag", "seen"), 2)), ids="-".join
)
def test_columns_of_later_rounds_depend_on_each_other_as_in_plain_rejection(samples, names):
    def codes(name):
        """Small codes of the cells of both samples, a missing one's own."""
        values = [joined(blocks, name) for blocks in samples]
        missing = [np.concatenate([block.columns[name].missing() for block in blocks]) for blocks in samples]
        if values[0].dtype == np.int32:
            return [cells + 1 for cells in values]
        edges = np.quantile(values[1], [0.25, 0.5, 0.75])
        return [
            np.where(absent, 0, np.searchsorted(edges, cells) + 1)
            for cells, absent in zip(values, missing, strict=True)
        ]

    left, right = (codes(name) for name in names)
    tables = np.array([np.bincount(a * 8 + b, minlength=64) for a, b in zip(left, right, strict=True)], float)
    tables = tables[:, tables.sum(axis=0) > 0]
    # The chi-square distance of two samples of one size; 4.5 standard deviations above its mean is one in ten thousand.
    statistic = float(((tables[0] - tables[1]) ** 2 / tables.sum(axis=0)).sum())
    freedom = tables.shape[1] - 1
    assert statistic < freedom + 4.5 * np.sqrt(2 * max(freedom, 1))


# --- independent rows ------------------------------------------------------------------------------------------------

PAIRS = 2**14
LAGS = {"next": 1, "block": BLOCK, "pool": POOL, "second pool": 2 * POOL, "last round": 63 * POOL}


def independent_cells(model, plan, seed, start):
    """Codes of `PAIRS` rows from `start` on, the rows along the first axis and the columns along the second."""
    source = RowSource(model, plan, seed, COMPARED_COLUMNS)
    blocks = [source.block(number, BLOCK) for number in range(start // BLOCK, -(-(start + PAIRS) // BLOCK))]
    codes = []
    for name in COMPARED_COLUMNS:
        missing = np.concatenate([block.columns[name].missing() for block in blocks])
        cells = joined(blocks, name).astype(float)
        median = np.median(cells[~missing])
        codes.append(np.where(missing, 0, np.where(cells > median, 2, 1)))
    return np.stack(codes, axis=1)[start % BLOCK : start % BLOCK + PAIRS].astype(float)


COMPARED_COLUMNS = ("grade", "age", "ratio", "flag", "seen")


@pytest.fixture(scope="module", params=seeded(11, 12, 13))
def first_rows(model, plan, request):
    """A seed, and the codes of its first rows."""
    return request.param, independent_cells(model, plan.allowing(None), request.param, 0)


@pytest.mark.parametrize("lag", LAGS)
def test_no_cell_of_a_row_depends_on_a_cell_of_another(model, plan, first_rows, lag):
    seed, first = first_rows
    later = independent_cells(model, plan.allowing(None), seed, LAGS[lag])
    for one, other in itertools.product(range(len(COMPARED_COLUMNS)), repeat=2):
        left, right = first[:, one], later[:, other]
        if min(np.ptp(left), np.ptp(right)) == 0:
            continue
        # Of independent rows the correlation is normal with deviation 1 / sqrt(n): 4.5 of them are one in 150,000.
        assert abs(np.corrcoef(left, right)[0, 1]) < 4.5 / np.sqrt(PAIRS)


def test_the_same_test_finds_that_reused_candidates_are_not_independent(model, plan):
    blocks = range(POOL // BLOCK)
    first, again = (
        joined(rows(RowSource(model, plan, 11, COMPARED_COLUMNS), [start + number for number in blocks]), "grade")
        for start in (0, POOL // BLOCK)
    )
    assert np.corrcoef(first, again)[0, 1] == pytest.approx(1)


def test_without_conditions_nothing_is_kept(model):
    cache = CountedCache(1 << 26)
    source = RowSource(model, compile_plan(model.digest, model.synthesizer, ()), 5, NAMES, cache)
    block = source.block(0, 100)
    assert cache.found == []
    assert isinstance(block.columns["age"], ColumnArray)
    assert len(block.columns["age"]) == 100


# --- against an oracle: candidates that carry their number ----------------------------------------------------------

DIGEST = bytes(range(32))
TILE = 16


class Numbered:
    """Every third candidate or so is accepted; columns have the candidate's number, and the word a row was drawn by."""

    schema = TableSchema(())

    def __init__(self):
        self.tiles = []

    def propose_steps(self, tests, weights=None):
        yield from ()
        return self

    def requesting(self, columns):
        return self

    def candidates(self, key, size):
        self.tiles.append((key.block, key.tile))
        return found_in(key, size)

    def finish(self, found, key):
        drawn = key.words32("drawn", found.size).astype(np.int64)
        latent = ColumnArray(found.latents["who"])
        return Units({"tested": found.cells["tested"], "latent": latent, "drawn": ColumnArray(drawn)})


def found_in(key, size):
    places = np.flatnonzero(key.words32("test", size) % 3 == 0)
    who = (key.block << 12) + (key.tile << 4) + places
    return Candidates(len(places), {"who": who}, {"tested": ColumnArray(-who)})


def numbered_plan(block, pool, reuse, budget=64):
    return Plan(DIGEST, (), TILE, block, budget, pool, reuse, 1 / 3, Numbered(), reuse)


def numbered_source(plan, seed=5, kept=None, synthesizer=None):
    synthesizer = synthesizer or Numbered()
    model = Model(DIGEST, TableSchema(()), 1, synthesizer, {}, 0)
    plan = replace(plan, proposal=synthesizer)
    return RowSource(model, plan, seed, ("tested", "latent", "drawn"), kept)


def expected_row(plan, row, seed=5):
    """The row by the definition: whose candidate it has, and the word that draws it."""
    stream = StreamKey(DIGEST, DIGEST, seed)
    period = plan.pool_rows * plan.reuse
    first = row // period * period + row % plan.pool_rows
    block, place = divmod(first, plan.block_size)
    accepted = itertools.chain.from_iterable(
        found_in(stream.tile(block, tile), TILE).latents["who"].tolist() for tile in range(plan.tile_budget)
    )
    who = next(itertools.islice(accepted, place, None))
    word = stream.tile(row // plan.block_size, 0).words32("drawn", plan.block_size)[row % plan.block_size]
    return (-who, who, int(word))


def cells(block):
    return list(zip(*[block.columns[name].values.tolist() for name in ("tested", "latent", "drawn")], strict=True))


@settings(max_examples=60)
@given(st.data(), st.integers(0, 4), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0, 10_000, 1 << 20]))
def test_any_row_is_what_its_index_says(data, block, pool, reuse, kept):
    plan = numbered_plan(2**block, 2 ** (block + pool), 2**reuse)
    period = plan.pool_rows * plan.reuse // plan.block_size
    number = st.one_of(st.integers(0, 3 * period), st.integers(10**12, 10**12 + period))
    source = numbered_source(plan, kept=CandidateCache(kept))
    requested = data.draw(st.lists(st.tuples(number, st.integers(1, plan.block_size)), max_size=12))
    for chosen, needed in requested:
        found = source.block(chosen, needed)
        start = chosen * plan.block_size
        assert (found.first_row, found.rows) == (start, needed)
        assert cells(found) == [expected_row(plan, row) for row in range(start, start + needed)]


def test_a_candidate_serves_as_many_rows_as_the_plan_says_one_a_round():
    plan = numbered_plan(4, 16, 8)
    source = numbered_source(plan)
    every = [row for number in range(2 * 16 * 8 // 4) for row in cells(source.block(number, 4))]
    served = {}
    for index, (_, who, _) in enumerate(every):
        served.setdefault(who, []).append(index)
    assert len(served) == 2 * 16
    assert all(len(indices) == 8 for indices in served.values())
    assert {after - before for indices in served.values() for before, after in itertools.pairwise(indices)} == {16}
    assert len({drawn for _, _, drawn in every}) == len(every)


def test_streams_of_other_seeds_share_a_cache_but_no_candidate():
    plan, kept = numbered_plan(4, 16, 4), CandidateCache(1 << 20)
    expected = [[expected_row(plan, row, seed) for row in range(80)] for seed in (5, 6)]
    sources = [numbered_source(plan, seed, kept) for seed in (5, 6)]
    found = [[], []]
    for number in range(20):
        for rows_found, source in zip(found, sources, strict=True):
            rows_found.extend(cells(source.block(number, 4)))
    assert found == expected


def test_candidates_are_drawn_once_while_they_are_kept():
    plan, synthesizer = numbered_plan(4, 8, 4), Numbered()
    source = numbered_source(plan, synthesizer=synthesizer)
    blocks = [source.block(number, 4) for number in range(8)]
    assert len(set(synthesizer.tiles)) == len(synthesizer.tiles)
    assert {block for block, _ in synthesizer.tiles} == {0, 1}
    assert sum(block.candidates for block in blocks) == len(synthesizer.tiles) * TILE
    assert [block.candidates > 0 for block in blocks] == [True] * 2 + [False] * 6
    # Another columns' stream of the same rows finds them there.
    assert cells(numbered_source(plan, kept=source._kept).block(5, 4)) == cells(blocks[5])


def effective_sample_size(block_rows):
    """Kish's: the rows, weighted by how many of them each candidate serves."""
    served = Counter(who for _, who, _ in block_rows)
    return sum(served.values()) ** 2 / sum(count**2 for count in served.values())


def test_the_effective_sample_size_of_independent_rows_is_their_number():
    plan = numbered_plan(4, 16, 64)
    expected = {64: 16, 4: 256, None: 1024}
    found = {}
    for max_reuse in expected:
        source = numbered_source(plan.allowing(max_reuse))
        found[max_reuse] = effective_sample_size(
            [row for number in range(256) for row in cells(source.block(number, 4))]
        )
    assert found == expected
    assert {reuse: plan.allowing(reuse).pools.distinct(0, 1024) for reuse in expected} == expected


@pytest.mark.parametrize("max_reuse", [None, 4])
def test_a_row_draws_its_own_tiles_only(max_reuse):
    plan, synthesizer = numbered_plan(64, 128, 4).allowing(max_reuse), Numbered()
    source = numbered_source(plan, synthesizer=synthesizer)
    stream = StreamKey(DIGEST, DIGEST, 5)
    drawn = [found_in(stream.tile(0, tile), TILE).size for tile in range(64)]
    one = source.block(0, 1)
    needed = next(tile for tile in range(1, 64) if sum(drawn[:tile]) >= 1)
    assert synthesizer.tiles == [(0, tile) for tile in range(needed)]
    assert (one.rows, one.candidates, one.accepted) == (1, needed * TILE, sum(drawn[:needed]))
    more = source.block(0, 20)
    tiles = next(tile for tile in range(1, 64) if sum(drawn[:tile]) >= 20)
    # What was kept is continued; what is counted is what these rows take, whatever was kept.
    again = [] if max_reuse else [(0, tile) for tile in range(needed)]
    assert synthesizer.tiles == [
        *[(0, tile) for tile in range(needed)],
        *again,
        *[(0, t) for t in range(needed, tiles)],
    ]
    assert (more.rows, more.candidates, more.accepted) == (20, tiles * TILE, sum(drawn[:tiles]))
    assert cells(more) == [expected_row(plan, row) for row in range(20)]
    fewer = source.block(0, 1)
    assert (cells(fewer), fewer.candidates) == (cells(one), one.candidates)


def test_plain_rejection_keeps_nothing_and_draws_no_tile_too_many():
    plan, synthesizer = numbered_plan(16, 16, 1), Numbered()
    source = numbered_source(plan, synthesizer=synthesizer)
    one = source.block(3, 1)
    assert (synthesizer.tiles, one.candidates) == ([(3, 0)], TILE)
    source.block(3, 16)
    assert synthesizer.tiles[1:] == [(3, tile) for tile in range(len(synthesizer.tiles) - 1)]
    assert len(source._kept._kept) == 0


def test_a_block_that_exhausts_its_budget_is_equally_short_in_every_round():
    plan = numbered_plan(16, 32, 4, budget=1)
    source = numbered_source(plan)
    accepted = found_in(StreamKey(DIGEST, DIGEST, 5).tile(0, 0), TILE).size
    for number in (0, 2, 6):
        block = source.block(number, 16)
        assert (block.rows, block.candidates, block.accepted) == (accepted, TILE, accepted)
        assert len(cells(block)) == accepted
    # An exhausted budget changes no row that is there.
    assert (source.block(2, 3).rows, source.block(2, 3).candidates) == (3, 0)


def test_an_error_names_the_rarest_condition_after_a_bounded_number_of_tiles():
    for count, tiles in ((1, 8), (8, 64), (20, 60), (64, 64)):
        conditions = tuple(ColumnCondition(f"c{number}", null=True) for number in range(count))
        synthesizer = Numbered()
        source = numbered_source(
            replace(numbered_plan(16, 16, 1, budget=1), conditions=conditions), synthesizer=synthesizer
        )
        block = source.block(0, 16)
        drawn = len(synthesizer.tiles)
        steps = source.acceptance_too_low(block)
        assert sum(1 for _ in steps) == len(synthesizer.tiles) - drawn == tiles
        error = finish(source.acceptance_too_low(block))
        assert (error.metadata["found"], error.metadata["candidates"]) == (str(block.accepted), str(TILE))


def test_rows_of_a_cancelled_call_are_neither_drawn_nor_cached():
    source = numbered_source(numbered_plan(4, 8, 4))
    with pytest.raises(CancelledError):
        source.block(0, 4, lambda: True)
    assert len(source._kept._kept) == 0
    requested = []
    assert cells(source.block(0, 4, lambda: bool(requested.append(1)))) == [
        expected_row(source._plan, row) for row in range(4)
    ]
    assert requested
    # What was found needs no more tiles.
    assert source.block(2, 4, lambda: True).rows == 4


# --- candidates ------------------------------------------------------------------------------------------------------


def numbers(first, count):
    values = np.arange(first, first + count)
    return Candidates(count, {"a": values.reshape(-1, 1)}, {"c": ColumnArray(values * 2, values % 3 > 0)})


def shown(found):
    cell = found.cells["c"]
    return found.size, found.latents["a"].ravel().tolist(), cell.values.tolist(), (~cell.missing()).tolist()


def test_candidates_join_in_order_and_are_cut_from_the_front():
    whole = join([numbers(0, 3), numbers(3, 0), numbers(3, 4)])
    assert shown(whole) == shown(numbers(0, 7))
    for count in (0, 2, 7):
        assert shown(whole.first(count)) == shown(numbers(0, count))
    assert whole.first(8) is whole
    one = numbers(5, 2)
    assert join([one]) is one


def test_bytes_are_those_of_latents_cells_and_validity():
    assert numbers(0, 10).size_bytes == 10 * (8 + 8 + 1)
    assert Candidates(10, {}, {"c": ColumnArray(np.zeros(10, np.int32))}).size_bytes == 40
    assert Candidates(10, {}, {}).size_bytes == 0


# --- the cache -------------------------------------------------------------------------------------------------------


def entry(number):
    return (StreamKey(DIGEST, DIGEST, 0), number)


def found_of(count):
    """Candidates of a row of 8 bytes each."""
    source = numbered_source(numbered_plan(4096, 4096, 2, budget=1))
    found = source._find(0, 1, lambda: False)
    return replace(found, candidates=Candidates(count, {"who": np.zeros(count, np.int64)}, {}))


def test_the_least_recently_used_goes_first():
    one = found_of(1000)
    cache = CandidateCache(3 * one.size_bytes)
    for number in range(3):
        cache.put(entry(number), one)
    assert cache.get(entry(0)) is one
    cache.put(entry(3), one)
    assert [cache.get(entry(number)) is one for number in range(4)] == [True, False, True, True]


def test_what_is_put_twice_counts_once_and_what_is_too_large_is_not_kept():
    one, larger = found_of(1000), found_of(2000)
    cache = CandidateCache(2 * one.size_bytes)
    for found in (one, larger, one, one):
        cache.put(entry(0), found)
    cache.put(entry(1), one)
    assert [cache.get(entry(number)) is one for number in range(2)] == [True, True]
    cache.put(entry(2), found_of(100_000))
    assert cache.get(entry(2)) is None
    cache.put(entry(3), one)
    assert cache.get(entry(3)) is one


def test_entries_without_a_byte_are_bounded_too():
    # A model of no latents, or a block that found nothing: the objects around empty arrays are what takes memory.
    nothing, cache = found_of(0), CandidateCache(1 << 20)
    for number in range(2000):
        cache.put(entry(number), nothing)
    assert len(cache._kept) == (1 << 20) // nothing.size_bytes <= 1024


def test_threads_may_share_a_cache():
    one = found_of(100)
    cache = CandidateCache(10 * one.size_bytes)

    def work(start):
        for number in range(start, start + 200):
            cache.put(entry(number % 37), one)
            cache.get(entry((number * 7) % 37))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache._kept) == 10
    assert cache._total == 10 * one.size_bytes
