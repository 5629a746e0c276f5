"""Rows by index where a candidate serves several of them: whose turn it is, what stays and what is drawn anew."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from rowmint.artifact import read_model
from rowmint.columns import ColumnArray
from rowmint.conditions import AnyOf, Predicate, canonical
from rowmint.plan import compile_plan
from rowmint.rows import CandidateCache, RowSource
from rowmint.synthesizer import choose_kernel
from tests.golden.make import FAMILIES, stored

WHERE = (Predicate("city", AnyOf(("Zürich",))), Predicate("grade", AnyOf((1, 2))))
NAMES = ("city", "grade", "age", "ratio", "flag", "seen", "id")
ROUNDS, POOL, BLOCK = 4, 512, 64


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return read_model(*stored(request.param), choose_kernel("onnxruntime"))


@pytest.fixture(scope="module")
def plan(model):
    found = compile_plan(model.digest, model.synthesizer, canonical(WHERE, model.schema))
    return replace(found, block_size=BLOCK, pool_rows=POOL, reuse=ROUNDS, tile_size=1024, tile_budget=64)


def rows(source, numbers, needed=BLOCK):
    return [source.block(number, needed) for number in numbers]


def raw(block, names=NAMES):
    return {name: (block.columns[name].values.tobytes(), block.columns[name].missing().tobytes()) for name in names}


def joined(blocks, name):
    return np.concatenate([block.columns[name].values for block in blocks])


class CountedCache(CandidateCache):
    """Counts what is kept anew."""

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


def test_a_block_is_the_same_whatever_was_kept(model, plan):
    numbers = [0, 9, 17, 25, 8, 31, 33, 1]
    warm = RowSource(model, plan, 5, NAMES, CandidateCache(1 << 26))
    expected = [raw(block) for block in rows(warm, numbers)]
    assert [raw(block) for block in rows(warm, numbers)] == expected
    for most in (0, 3000):  # nothing is kept; hardly anything is
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
    cache = CountedCache(50_000)
    source = RowSource(model, plan, 5, NAMES, cache)
    rows(source, range(POOL // BLOCK))
    assert len(cache.found) == POOL // BLOCK
    assert cache._total <= 50_000
    assert cache._total == sum(found.candidates.size_bytes for found in cache._kept.values())


@pytest.mark.parametrize("name", ["age", "ratio", "flag", "seen"])
def test_rows_of_later_rounds_are_distributed_like_plain_rejection(model, plan, name):
    plain = replace(plan, reuse=1, pool_rows=BLOCK)
    count = 48  # blocks of a comparison
    later = [number for pool in range(count // 8) for number in range(pool * 32 + 24, pool * 32 + 32)]
    one = joined(rows(RowSource(model, plan, 5, NAMES), later), name)
    other = joined(rows(RowSource(model, plain, 77, NAMES), range(count)), name)
    assert len(one) == len(other) == count * BLOCK
    # The largest distance of two distribution functions (Kolmogorov and Smirnov), at a level of one in ten thousand.
    edges = np.unique(np.concatenate([one, other]))
    distance = max(
        abs(np.searchsorted(np.sort(one), edges, "right") - np.searchsorted(np.sort(other), edges, "right"))
    ) / len(one)
    assert distance < 2.23 * np.sqrt(2 / len(one))


def test_without_conditions_nothing_is_kept(model):
    cache = CountedCache(1 << 26)
    source = RowSource(model, compile_plan(model.digest, model.synthesizer, ()), 5, NAMES, cache)
    block = source.block(0, 100)
    assert cache.found == []
    assert isinstance(block.columns["age"], ColumnArray)
    assert len(block.columns["age"]) == 100
