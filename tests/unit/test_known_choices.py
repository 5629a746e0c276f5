"""What known cells are to a codec: shares, against those of conditions, densities, and the nearest possible number."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.codecs.category import integer_weights
from rowmint.codecs.shares import choice_shares
from rowmint.conditions import AnyOf, Predicate, canonical
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.synthesizer.circuit.known import KnownColumn
from rowmint.synthesizer.heads import ColumnHead
from tests.circuits import make_codec


def head_of(kind):
    column, codec = make_codec(kind, "c", np.random.default_rng(3))
    return ColumnHead(0, column, codec, 0)


def numbers(codec, data_type=DataType.INT64, decimals=0, nullable=False):
    domain = Domain(decimals=decimals, nullable=nullable)
    return ColumnHead(0, ColumnSpec("c", ColumnKind.NUMERICAL, data_type, domain), codec, 0)


def found_by(head, cells):
    """Return the shares of each cell's choices, and which cells stand for the nearest one."""
    found, moved = KnownColumn(head).alternatives(cells)
    shares = np.zeros((len(cells), head.codec.choices))
    shares[found.rows, found.choices] = found.shares
    assert (np.diff(found.rows) >= 0).all()
    return shares, moved.tolist()


@pytest.mark.parametrize("kind", ["category", "nullable", "rare", "pieces", "points"])
def test_shares_are_those_of_the_condition_that_a_cell_equals(kind):
    head = head_of(kind)
    cells = list(head.column.domain.categories)
    if isinstance(head.codec, NumericCodec):
        cells = [int(head.codec.natives(np.array([float(x)]))[0]) for x in range(21)]
    if head.codec.nullable:
        cells.append(None)
    shares, moved = found_by(head, cells)
    for cell, own, elsewhere in zip(cells, shares, moved, strict=True):
        where = canonical([Predicate("c", AnyOf((cell,)))], TableSchema((head.column,)))
        expected = choice_shares(head.codec, where[0]).of_choice
        assert elsewhere is not bool(expected.any())
        if not elsewhere:
            assert own.tolist() == expected.tolist()


def test_a_number_off_the_grid_has_a_density_but_at_points_and_bounds():
    head = head_of("double")  # components 0 +- 1, 2.5 +- 1.5, 5 +- 2; a point at 2
    shares, moved = found_by(head, [0.5, 1.0, 2.0, 3.5, 6.25, 7.0])
    third = 1 / 3
    expected = [
        [0.5, 0, 0, 0],
        [0.5, third, 0, 0],  # both at their edges
        [0, 0, 0, 1],
        [0, third, 0.25, 0],
        [0, 0, 0.25, 0],
    ]
    np.testing.assert_allclose(shares[:5], expected, rtol=1e-12)
    # At the upper bound alphas that pass it would be lowered to it; none does here, so that it is a density too.
    assert shares[5].tolist() == [0, 0, 0.25, 0]
    assert moved == [False] * 6
    cut = ColumnHead(0, head.column, replace(head.codec, upper=6.0), 0)
    (at_bound,), _ = found_by(cut, [6.0])
    assert at_bound[2] == pytest.approx(0.25, abs=1e-6)  # a quarter of the component lies beyond
    assert 0 < found_by(cut, [5.99])[0][0, 2] == 0.25


@pytest.mark.parametrize(
    ("cell", "nearest"), [(9, 10), (11, 10), (12, 13), (1000, 70), (-5, 10), (34, 34), (Decimal("34.0"), 34)]
)
def test_a_number_that_never_occurs_stands_for_the_nearest_that_does(cell, nearest):
    head = head_of("pieces")  # 10, 13, 16, ..., 70
    shares, moved = found_by(head, [cell, nearest])
    assert shares[0].tolist() == shares[1].tolist()
    assert shares[0].any()
    assert moved == [cell != nearest, False]


def test_a_number_between_components_stands_for_the_nearer_end():
    codec = NumericCodec(
        True, 0, 1, 0, True, False, 0.0, 50.0, np.array([5.0, 40.0]), np.array([2.4, 5.4]), np.zeros(0)
    )
    shares, moved = found_by(numbers(codec), [7, 8, 20, 22, 34, 35])
    assert (shares > 0).tolist() == [[True, False]] * 3 + [[False, True]] * 3
    assert moved == [False, True, True, True, True, False]


def test_a_component_of_more_numbers_than_alphas_gives_each_its_share():
    width = 2.0**40
    codec = NumericCodec(True, 0, 1, 0, True, False, -width, width, np.zeros(1), np.array([width]), np.zeros(0))
    shares, moved = found_by(numbers(codec), [0, 1, 12345, 2**40 - 7])
    assert shares[:, 0].tolist() == [0.5 / width] * 4
    assert moved == [False] * 4


def test_a_decimal_and_a_float_that_equals_it_are_two_numbers():
    points = np.array([1.0])
    codec = NumericCodec(True, 0, 1, 0, True, False, 0.0, 9.0, np.zeros(0), np.zeros(0), points)
    head = numbers(codec, DataType.DECIMAL, decimals=1)
    tenth = 0.1
    cells = [tenth, Decimal(tenth), Decimal("0.1")]
    assert found_by(head, cells)[1] == [False, True, False]


def test_a_rare_category_that_is_never_drawn_has_no_choice():
    weights = integer_weights(np.array([1.0, 0.0]))
    codec = CategoryCodec(3, 1, False, weights)
    head = ColumnHead(0, ColumnSpec("c", ColumnKind.CATEGORICAL, DataType.STRING, Domain(("a", "b", "c"))), codec, 0)
    assert found_by(head, ["a", "b", "c", None])[0].tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]


def test_what_is_remembered_changes_nothing():
    column = KnownColumn(head_of("pieces"), 8)
    cells = [10 + 3 * index for index in range(21)]
    whole, _ = KnownColumn(head_of("pieces")).alternatives(cells)
    for start in range(18):
        part, _ = column.alternatives(cells[start : start + 4])
        own = whole.of_rows(np.arange(start, start + 4))
        assert [array.tolist() for array in (part.rows, part.choices, part.shares)] == [
            array.tolist() for array in (own.rows, own.choices, own.shares)
        ]
