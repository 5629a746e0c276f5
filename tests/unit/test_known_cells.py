"""Known cells of rows: kept as they came, and not remembered where that takes memory."""

import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from rowmint.errors import ColumnNotFoundError, InvalidConditionError, ValueNotFoundError
from rowmint.sampling.known_cells import KnownCells
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema


def known_cells(kind, data_type, time_zone="", **domain):
    column = ColumnSpec("c", kind, data_type, Domain(nullable=True, **domain), time_zone=time_zone)
    return KnownCells(TableSchema((column,)))


@pytest.mark.parametrize(
    ("data_type", "cells", "written"),
    [
        (DataType.DOUBLE, [0.0, -0.0, 0, Decimal("0.00"), 0.0], repr),
        (DataType.DECIMAL, [Decimal("1.0"), Decimal("1.00"), 1, Decimal("1.0")], repr),
        (
            DataType.TIMESTAMP,
            [
                datetime(2020, 1, 1, 10, tzinfo=UTC),
                datetime(2020, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
                datetime(2020, 1, 1, 10, tzinfo=UTC),
            ],
            datetime.isoformat,
        ),
    ],
    ids=["zeros", "decimals", "instants"],
)
def test_a_cell_is_kept_as_it_came_whatever_equal_ones_came_before(data_type, cells, written):
    zone = "UTC" if data_type is DataType.TIMESTAMP else ""
    known = known_cells(ColumnKind.NUMERICAL, data_type, zone, decimals=2 if data_type is DataType.DECIMAL else None)
    actual = [written(known.checked(row, [{"c": cell}])[0]["c"]) for row, cell in enumerate(cells)]
    assert actual == [written(cell) for cell in cells]


def held_by(known, cells):
    """Return the bytes that are held of cells that were sent and forgotten by the caller."""
    tracemalloc.start()
    try:
        for row, cell in enumerate(cells):
            known.checked(row, [{"c": cell}])
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "data_type", "cells"),
    [
        (ColumnKind.ID, DataType.STRING, lambda: (f"{row:08d}" + "x" * 10_000 for row in range(100))),
        (ColumnKind.ID, DataType.INT64, lambda: range(1_000, 3_000)),
        (ColumnKind.NUMERICAL, DataType.DECIMAL, lambda: (Decimal(f"{row}.{0:0900}") for row in range(1_000))),
    ],
    ids=["texts", "integers", "long numbers"],
)
def test_ids_and_long_cells_are_not_remembered(kind, data_type, cells):
    assert held_by(known_cells(kind, data_type), cells()) < 50_000


def test_as_many_numbers_are_remembered_as_take_little():
    known = known_cells(ColumnKind.NUMERICAL, DataType.INT64)
    assert held_by(known, range(200_000)) < 16 << 20


def test_the_first_row_that_has_a_wrong_cell_is_named():
    known = KnownCells(
        TableSchema(
            (
                ColumnSpec("a", ColumnKind.NUMERICAL, DataType.INT64, Domain()),
                ColumnSpec("b", ColumnKind.CATEGORICAL, DataType.STRING, Domain(("x", "y"), nullable=True)),
            )
        )
    )
    rows = [{"b": "x", "a": 1}, {"a": 2}, {"b": None}, {"b": "y", "a": 2**63 - 1}, {}]
    assert [list(row.items()) for row in known.checked(5, rows)] == [
        [("a", 1), ("b", "x")],
        [("a", 2)],
        [("b", None)],
        [("a", 2**63 - 1), ("b", "y")],
        [],
    ]
    wrong = [
        ({"a": True}, InvalidConditionError, "row 10, column 'a'"),
        ({"a": 2**63}, InvalidConditionError, "row 10, column 'a'"),
        ({"b": "z"}, ValueNotFoundError, "row 10: "),
        ({"c": 1}, ColumnNotFoundError, "row 10: "),
        ({"b": "z", "a": None}, InvalidConditionError, "row 10, column 'a'"),
        ({"a": None, "c": 1}, ColumnNotFoundError, "row 10: "),
    ]
    for cells, error, named in wrong:
        for more in ({"a": "1"}, {"b": "?"}, {"d": 1}):
            with pytest.raises(error) as raised:
                known.checked(5, [*rows, cells, more])
            assert raised.value.message.startswith(named)
            assert raised.value.metadata["row"] == "10"
