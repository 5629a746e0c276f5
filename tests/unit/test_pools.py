"""Which rows share a candidate, and how many candidates rows rest on: against listing every row."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.sampling.pools import CandidateTally, Pools

POOLS = st.builds(lambda rows, rounds: Pools(2**rows, 2**rounds), st.integers(0, 6), st.integers(0, 4))


def uses(pools, rows):
    """How many of `rows` use each candidate, a candidate given by its period and its place in the pool."""
    return Counter((row // (pools.rows * pools.rounds), row % pools.rows) for row in rows)


@given(POOLS, st.integers(0, 3000), st.integers(0, 3000))
def test_counts_by_formula_are_those_of_a_list(pools, start, length):
    served = uses(pools, range(start, start + length))
    assert pools.distinct(start, start + length) == len(served)
    assert pools.most_shared(start, start + length) == max(served.values(), default=0)


@given(POOLS, st.integers(0, 3000))
def test_a_source_is_the_first_row_that_uses_the_candidate(pools, row):
    source = pools.source(row)
    assert 0 <= source <= row
    assert uses(pools, [source]) == uses(pools, [row])
    assert uses(pools, [source])[row // pools.period, row % pools.rows] == 1
    assert source % pools.period < pools.rows


@given(POOLS, st.integers(0, 500), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300)), max_size=12))
def test_a_tally_counts_what_was_delivered_and_no_gap(pools, start, ranges):
    tally, delivered = CandidateTally(pools), []
    for gap, length in ranges:
        start += gap
        tally.add(start, start + length)
        delivered += range(start, start + length)
        start += length
    served = uses(pools, delivered)
    assert (tally.distinct, tally.most_shared) == (len(served), max(served.values(), default=0))


@pytest.mark.parametrize("share", [2**-2, 2**-4, 2**-8])
def test_the_longest_streams_are_counted_at_once(share):
    pools = Pools(2**15, int(0.25 / share))
    assert 0 <= pools.distinct(0, 10**15) - 10**15 // pools.rounds <= pools.rows
    assert pools.most_shared(0, 10**15) == pools.rounds
