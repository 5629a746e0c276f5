"""Cells as their column writes and reads them."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from rowmint.schema import Cell, ColumnKind, ColumnSpec, DataType, Domain
from rowmint.schema.forms import CANONICAL, BooleanForm, DatetimeForm, Grouping, NumberForm, WrittenForm, ZoneStyle
from rowmint.schema.forms.cells import example, read, written

GERMAN = NumberForm(grouping=Grouping.THOUSANDS, group_separator=".", decimal_separator=",")


def _column(data_type: DataType, form: WrittenForm = CANONICAL, **more: object) -> ColumnSpec:
    return ColumnSpec("c", data_type=data_type, written_form=form, **more)  # type: ignore[arg-type]


CELLS: list[tuple[ColumnSpec, Cell, str]] = [
    (_column(DataType.DOUBLE, WrittenForm(GERMAN)), 1234.5, "1.234,5"),
    (_column(DataType.INT64, WrittenForm(NumberForm(prefix="$"))), -5, "-$5"),
    (_column(DataType.DECIMAL, WrittenForm(NumberForm(minimum_fraction_digits=2))), Decimal("1.5"), "1.50"),
    (_column(DataType.BOOL, WrittenForm(BooleanForm("yes", "no"))), False, "no"),
    (_column(DataType.BOOL, WrittenForm(BooleanForm("T", "t"))), False, "t"),
    (_column(DataType.DATE, WrittenForm(DatetimeForm("%d.%m.%Y"))), date(2023, 10, 8), "08.10.2023"),
    (
        _column(DataType.TIMESTAMP, WrittenForm(DatetimeForm("%Y-%m-%d %H:%M"))),
        datetime.fromisoformat("2024-12-08T13:17"),
        "2024-12-08 13:17",
    ),
    (
        _column(
            DataType.TIMESTAMP, WrittenForm(DatetimeForm("%H:%M %d/%m/%Y %z", 3600, ZoneStyle.COLON)), time_zone="UTC"
        ),
        datetime(2024, 12, 8, 13, 17, tzinfo=UTC),
        "14:17 08/12/2024 +01:00",
    ),
    (_column(DataType.INT64, WrittenForm(DatetimeForm("%-I:%M %p"))), 22_560_000_000, "6:16 AM"),
    (_column(DataType.INT64, WrittenForm(pad_width=6)), 42, "    42"),
    (_column(DataType.STRING, WrittenForm(pad_width=4)), "ab", "  ab"),
    (_column(DataType.STRING), " ab ", " ab "),
    (_column(DataType.DOUBLE), 0.5, "0.5"),
    (_column(DataType.BOOL), True, "true"),
    (_column(DataType.DATE, datetime_format="%d/%m/%Y"), date(2023, 10, 8), "08/10/2023"),
    (_column(DataType.TIMESTAMP, time_zone="UTC"), datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00Z"),
]


@pytest.mark.parametrize(("column", "cell", "text"), CELLS)
def test_a_cell_is_written_and_read_in_its_columns_form(column: ColumnSpec, cell: Cell, text: str) -> None:
    assert written(cell, column) == text
    assert read(text, column) == cell


@pytest.mark.parametrize(
    ("column", "text", "cell"),
    [
        (_column(DataType.DOUBLE, WrittenForm(GERMAN)), "1.234", 1234.0),
        (_column(DataType.DOUBLE, WrittenForm(GERMAN)), "1.23", 1.23),
        (_column(DataType.BOOL, WrittenForm(BooleanForm("yes", "no"))), "YES", True),
        (_column(DataType.BOOL, WrittenForm(BooleanForm("yes", "no"))), "true", True),
        (_column(DataType.BOOL), "False", False),
        (_column(DataType.DATE, WrittenForm(DatetimeForm("%d.%m.%Y"))), "2023-10-08", date(2023, 10, 8)),
        (_column(DataType.DATE, datetime_format="%d/%m/%Y"), "2023-10-08", date(2023, 10, 8)),
        (_column(DataType.TIMESTAMP), "2023-10-08", datetime.fromisoformat("2023-10-08T00:00")),
        (_column(DataType.TIMESTAMP, time_zone="UTC"), "2023-10-08", datetime(2023, 10, 8, tzinfo=UTC)),
        (_column(DataType.INT64), " 1e3 ", 1000),
        (_column(DataType.DECIMAL), "0.10", Decimal("0.10")),
    ],
)
def test_canonical_texts_are_read_in_every_column(column: ColumnSpec, text: str, cell: Cell) -> None:
    assert read(text, column) == cell
    assert type(read(text, column)) is type(cell)


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        (_column(DataType.DOUBLE, WrittenForm(GERMAN)), "1,2,3", "in the form of '-1.234,5', nor double in its canon"),
        (_column(DataType.BOOL, WrittenForm(BooleanForm("yes", "no"))), "maybe", "neither 'yes' nor 'no', nor bool"),
        (_column(DataType.INT64), "1.5", "not an integer of 64 bits"),
        (_column(DataType.INT64), "1e400", "not an integer of 64 bits"),
        (_column(DataType.INT64), "9223372036854775808", "not an integer of 64 bits"),
        (_column(DataType.DOUBLE), "1e400", "beyond binary64"),
        (_column(DataType.DOUBLE), "nan", "not a finite number"),
        (_column(DataType.DOUBLE), "9" * 600, "600 characters"),
        (_column(DataType.DATE, WrittenForm(DatetimeForm("%d.%m.%Y"))), "31.02.2023", "no day 31, nor date in its"),
        (_column(DataType.DATE), "soon", "Invalid isoformat"),
    ],
)
def test_what_is_no_cell_is_refused(column: ColumnSpec, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text, column)


def test_a_cell_of_another_type_is_not_written() -> None:
    for column, cell in (
        (_column(DataType.INT64, WrittenForm(NumberForm())), True),
        (_column(DataType.BOOL, WrittenForm(BooleanForm("yes", "no"))), 1),
        (_column(DataType.DATE, WrittenForm(DatetimeForm("%d.%m.%Y"))), "text"),
        (_column(DataType.STRING), None),
    ):
        with pytest.raises(ValueError, match=r"not of the type|neither a date|no text"):
            written(cell, column)


def test_examples_are_made_from_the_form_alone() -> None:
    def real(value: Cell) -> Domain:
        return Domain(categories=(value,), minimum=None, maximum=None, decimals=2)

    columns = [column for column, _, _ in CELLS]
    columns.append(ColumnSpec("id", ColumnKind.ID, DataType.STRING, id_pattern="N[0-9]{5}"))
    columns.append(ColumnSpec("c", ColumnKind.CATEGORICAL, DataType.STRING, real("a secret")))
    for column in columns:
        texts = [example(column, index) for index in range(6)]
        assert len(set(texts)) > 1
        assert "a secret" not in texts
        for text in texts:
            assert written(read(text, column), column) == text
    money = NumberForm(prefix="$", grouping=Grouping.THOUSANDS, group_separator=",", minimum_fraction_digits=2)
    column = ColumnSpec("m", ColumnKind.NUMERICAL, DataType.DOUBLE, Domain(decimals=2), written_form=WrittenForm(money))
    assert [example(column, index) for index in range(2)] == ["$1,234.37", "$87.72"]
