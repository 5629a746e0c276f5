"""Alias tables draw exactly what their weights say."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.rng import StreamKey
from rowmint.synthesizer.circuit.alias import FULL, equal_rows, ragged_rows, whole_shares
from tests.seeds import seeded
from tests.unit.circuit_oracle import row_of

WEIGHTS = st.lists(
    st.lists(st.integers(0, 2**20) | st.just(0), min_size=1, max_size=9).filter(any), min_size=1, max_size=6
)


def whole(weights: list[int]) -> np.ndarray:
    return whole_shares(np.array([weights]) / sum(weights))[0]


@settings(max_examples=200)
@given(WEIGHTS)
def test_rows_of_any_lengths_stand_for_their_weights(rows: list[list[int]]) -> None:
    made = [whole(row) for row in rows]
    outcomes = [np.arange(len(row))[::-1] + 7 for row in rows]
    lengths = np.array([len(row) for row in rows])
    table = ragged_rows(lengths, [(np.concatenate(made), np.concatenate(outcomes))])
    for number, (weights, own) in enumerate(zip(made, outcomes, strict=True)):
        expected = {
            int(outcome): Fraction(int(weight), FULL) for outcome, weight in zip(own, weights, strict=True) if weight
        }
        assert row_of(table, number) == expected


def test_rows_of_one_length_stand_for_their_weights() -> None:
    shares = np.random.default_rng(3).dirichlet(np.full(129, 0.3), 40)
    weights = whole_shares(shares)
    table = equal_rows(weights)
    for number, row in enumerate(weights.tolist()):
        assert row_of(table, number) == {
            outcome: Fraction(weight, FULL) for outcome, weight in enumerate(row) if weight
        }


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(any))
def test_whole_shares_are_within_one(weights: list[float]) -> None:
    shares = np.array([weights]) / sum(weights)
    found = whole_shares(shares)
    assert found.sum() == FULL
    assert (np.abs(found - shares * FULL) <= 1).all()
    assert not found[shares == 0].any()


def test_a_word_chooses_a_cell_and_a_side() -> None:
    table = equal_rows(np.array([[FULL // 2, FULL // 4, FULL // 4]]))
    words = np.array([0, 2**32 // 3, 2**32 // 3 + 1, 2**32 - 1], np.uint32)
    # Cells of a third each: 0 whole; 1 and 2 up to three quarters of their own, then 0.
    assert table.draw(None, words).tolist() == [0, 0, 1, 0]
    edge = (2**32 * 7 // 4) // 3  # where the low bits of the second cell pass its threshold
    assert table.draw(None, np.array([edge, edge + 1], np.uint32)).tolist() == [1, 0]


def test_no_share_is_off_by_more_than_a_word() -> None:
    """Cells of 16-bit words were off by up to .2 % where the number of cells is not a power of two."""
    length = 97
    table = equal_rows(np.full((1, length), FULL // length) + (np.arange(length) < FULL % length))
    # Where each cell's words begin; between these it is the only one.
    starts = -(-np.arange(length + 1) * FULL // length)
    assert np.abs(np.diff(starts) - FULL / length).max() <= 1
    words = np.concatenate([starts[:-1], starts[1:] - 1]).astype(np.uint32)
    drawn = table.draw(None, words)
    cells = np.concatenate([np.arange(length)] * 2)
    own, alias = table.cells[cells] >> np.uint64(16) & np.uint64(0xFFFF), table.cells[cells] & np.uint64(0xFFFF)
    assert ((drawn == own) | (drawn == alias)).all()


def test_rows_of_different_lengths_are_drawn_by_row() -> None:
    table = ragged_rows(np.array([1, 2]), [(np.array([FULL, FULL, 0]), np.array([4, 5, 6]))])
    words = np.array([0, 2**31, 2**32 - 1], np.uint32)
    assert table.draw(np.array([0, 1, 1]), words).tolist() == [4, 5, 5]
    assert table.size_bytes == 3 * 8 + 2 * 2 * 8
    with pytest.raises(ValueError, match="drawn from by row"):
        table.draw(None, words)


@pytest.mark.parametrize("seed", seeded(1, 2, 3))
def test_draws_follow_the_weights(seed: int) -> None:
    weights = whole_shares(np.random.default_rng(seed).dirichlet(np.full(11, 0.5), 3))
    table = equal_rows(weights)
    count = 200_000
    words = StreamKey(bytes(32), bytes(32), seed).tile(0, 0).words32("test", count)
    for row, expected in enumerate(weights / FULL):
        drawn = np.bincount(table.draw(np.full(count, row), words), minlength=11)
        deviation = np.sqrt(count * expected * (1 - expected)) + 1e-9
        assert np.abs((drawn - count * expected) / deviation).max() < 5
