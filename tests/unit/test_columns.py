"""Columns as arrays: native numbers are exact, and cells come back from them."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain
from rowmint.schema.arrays import (
    ColumnArray,
    column_cells,
    concatenate,
    is_coded,
    native_cell,
    native_number,
    nearest_double,
)

INT = ColumnSpec("a", ColumnKind.NUMERICAL, DataType.INT64)
DOUBLE = ColumnSpec("a", ColumnKind.NUMERICAL, DataType.DOUBLE)
CENTS = ColumnSpec("a", ColumnKind.NUMERICAL, DataType.DECIMAL, Domain(decimals=2))
DAY = ColumnSpec("a", ColumnKind.DATETIME, DataType.DATE)
LOCAL = ColumnSpec("a", ColumnKind.DATETIME, DataType.TIMESTAMP)
ZONED = ColumnSpec("a", ColumnKind.DATETIME, DataType.TIMESTAMP, time_zone="Europe/Berlin")
TEXT = ColumnSpec("a", ColumnKind.CATEGORICAL, DataType.STRING, Domain(categories=("x", "y", "")))

INT64 = st.integers(-(2**63), 2**63 - 1)
CELLS = [
    (INT, INT64),
    (DOUBLE, st.floats(allow_nan=False, allow_infinity=False)),
    (CENTS, INT64.map(lambda units: Decimal(units).scaleb(-2))),
    (DAY, st.dates()),
    (LOCAL, st.datetimes()),
    (ZONED, st.datetimes(timezones=st.just(UTC))),
]


@given(st.data())
def test_a_cell_is_restored_from_its_native_number(data):
    column, cells = data.draw(st.sampled_from(CELLS))
    cell = data.draw(cells)
    native = native_number(cell, column)
    assert native_cell(float(native) if column is DOUBLE else int(native), column) == cell
    assert column is DOUBLE or native.denominator == 1


@pytest.mark.parametrize(
    ("cell", "column", "native"),
    [
        (2.5, INT, Fraction(5, 2)),
        (2**63 - 1, DOUBLE, Fraction(2**63 - 1)),
        (0.1, CENTS, Fraction(10)),
        (0.1, DOUBLE, Fraction(0.1)),
        (Decimal("0.005"), CENTS, Fraction(1, 2)),
        (date(1970, 1, 2), DAY, Fraction(1)),
        (date(1969, 12, 31), LOCAL, Fraction(-86_400_000_000)),
        (date(1970, 1, 2), ZONED, Fraction(86_400_000_000)),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), ZONED, Fraction(0)),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999), LOCAL, Fraction(253_402_300_799_999_999)),  # noqa: DTZ001
    ],
)
def test_native_numbers(cell, column, native):
    assert native_number(cell, column) == native


@pytest.mark.parametrize(
    ("cell", "column"),
    [
        (True, INT),
        ("1", INT),
        (None, INT),
        (math.nan, DOUBLE),
        (math.inf, CENTS),
        (Decimal("NaN"), CENTS),
        (Decimal("-Infinity"), CENTS),
        (Decimal("9" * 1_000_000), CENTS),
        (Decimal("1E+1000000"), DOUBLE),
        (Decimal("1E-1000000"), DOUBLE),
        (date(1970, 1, 1), INT),
        (datetime(1970, 1, 1), DAY),  # noqa: DTZ001
        (1, DAY),
        (1, LOCAL),
        (datetime(1970, 1, 1, tzinfo=UTC), LOCAL),
        (datetime(1970, 1, 1), ZONED),  # noqa: DTZ001
        ("x", TEXT),
    ],
)
def test_a_cell_of_another_type_is_refused(cell, column):
    with pytest.raises(ValueError, match=r".+"):
        native_number(cell, column)


def test_the_nearest_double_of_what_is_too_large_is_infinite():
    assert nearest_double(Fraction(10**400)) == math.inf
    assert nearest_double(Fraction(-(10**400))) == -math.inf
    assert nearest_double(Fraction(1, 10)) == 0.1


def test_missing_cells():
    assert ColumnArray(np.array([0, -1, 2], np.int32)).missing().tolist() == [False, True, False]
    assert ColumnArray(np.array([0, -1, 2], np.int64)).missing().tolist() == [False, False, False]
    valid = np.array([True, False])
    assert ColumnArray(np.zeros(2), valid).missing().tolist() == [False, True]


def test_parts_with_and_without_missing_cells_are_joined():
    whole = ColumnArray(np.array([1, 2], np.int64))
    holed = ColumnArray(np.array([0, 4], np.int64), np.array([False, True]))
    joined = concatenate([whole, holed])
    assert joined.values.tolist() == [1, 2, 0, 4]
    assert joined.missing().tolist() == [False, False, True, False]
    assert concatenate([whole, whole]).valid is None
    codes = concatenate([ColumnArray(np.array([-1], np.int32)), ColumnArray(np.array([3], np.int32))])
    assert (codes.values.dtype, codes.missing().tolist()) == (np.int32, [True, False])


def test_some_cells_are_taken():
    array = ColumnArray(np.array([1, 0, 3], np.int64), np.array([True, False, True]))
    assert column_cells(array.take(np.array([2, 1])), INT) == [3, None]
    assert len(array.take(slice(0, 0))) == 0


def test_cells_of_codes_and_numbers():
    assert is_coded(TEXT)
    assert not is_coded(INT)
    assert column_cells(ColumnArray(np.array([2, -1, 0], np.int32)), TEXT) == ["", None, "x"]
    array = ColumnArray(np.array([150, 0], np.int64), np.array([True, False]))
    assert column_cells(array, CENTS) == [Decimal("1.50"), None]
