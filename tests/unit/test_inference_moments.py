"""Spellings of days, times and moments: the type and the pattern of a column that has them."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from rowmint.schema import ColumnKind, ColumnSpec, DataType
from rowmint.schema.forms import DatetimeForm, NameCase, WrittenForm, ZoneStyle
from tests.inferring import infer, infer_table
from trainer_service.datasets.conversion import InfinityRule, convert
from trainer_service.datasets.limits import IngestLimits

DATE, TIMESTAMP, INT, STRING = DataType.DATE, DataType.TIMESTAMP, DataType.INT64, DataType.STRING
MINUTE = 60_000_000


def at(*fields: int) -> datetime:
    """A local time."""
    return datetime(*fields)  # type: ignore[arg-type] # noqa: DTZ001 - local times have no zone


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type, misc]


def form(pattern: str, **more: Any) -> DatetimeForm:
    return DatetimeForm(pattern, **more)


SPELLINGS: list[tuple[list[str], DataType, list[Any], DatetimeForm | None]] = [
    (["2020-02-29", "0001-01-01"], DATE, [date(2020, 2, 29), date(1, 1, 1)], None),
    (["2020/02/29"], DATE, [date(2020, 2, 29)], form("%Y/%m/%d")),
    (["2020.2.29", "2020.1.1"], DATE, [date(2020, 2, 29), date(2020, 1, 1)], form("%Y.%-m.%-d")),
    (["8/14/2022", "9/5/2021"], DATE, [date(2022, 8, 14), date(2021, 9, 5)], form("%-m/%-d/%Y")),
    (["08/14/2022", "09/05/2021"], DATE, [date(2022, 8, 14), date(2021, 9, 5)], form("%m/%d/%Y")),
    (["14/08/2022", "05/09/2021"], DATE, [date(2022, 8, 14), date(2021, 9, 5)], form("%d/%m/%Y")),
    (["08.10.2023", "01.02.2023"], DATE, [date(2023, 10, 8), date(2023, 2, 1)], form("%d.%m.%Y")),
    (["8.10.23", "31.12.99"], DATE, [date(2023, 10, 8), date(1999, 12, 31)], form("%-d.%m.%y")),
    (["5 Jan 2020", "12 Feb 2021"], DATE, [date(2020, 1, 5), date(2021, 2, 12)], form("%-d %b %Y")),
    (["01.02.23", "08.07.24"], DATE, [date(2023, 2, 1), date(2024, 7, 8)], form("%d.%m.%y")),
    (["05-JAN-20", "12-FEB-21"], DATE, [date(2020, 1, 5), date(2021, 2, 12)], form("%d-%b-%y", names=NameCase.UPPER)),
    (["January 5, 2020", "May 12, 2021"], DATE, [date(2020, 1, 5), date(2021, 5, 12)], form("%B %-d, %Y")),
    (["Jan 05, 2020", "May 12, 2021"], DATE, [date(2020, 1, 5), date(2021, 5, 12)], form("%b %d, %Y")),
    (["Sun, 05 Jan 2020"], DATE, [date(2020, 1, 5)], form("%a, %d %b %Y")),
    (["2020-Jan-05"], DATE, [date(2020, 1, 5)], form("%Y-%b-%d")),
    (["2020-01-01T05:06:07"], TIMESTAMP, [at(2020, 1, 1, 5, 6, 7)], None),
    (
        ["2020-01-01T05:06:07", "2020-01-01T05:06:07.120000"],
        TIMESTAMP,
        [at(2020, 1, 1, 5, 6, 7), at(2020, 1, 1, 5, 6, 7, 120_000)],
        None,
    ),
    (["2024-12-08 13:17"], TIMESTAMP, [at(2024, 12, 8, 13, 17)], form("%Y-%m-%d %H:%M")),
    (
        ["2024-12-08T13:17:43.018", "2024-12-08T13:17:00.120"],
        TIMESTAMP,
        [at(2024, 12, 8, 13, 17, 43, 18_000), at(2024, 12, 8, 13, 17, 0, 120_000)],
        form("%Y-%m-%dT%H:%M:%S.%3f"),
    ),
    (
        ["2020-01-01 00:00:00.5", "2020-01-01 00:00:00.25", "2020-01-01 00:00:01"],
        TIMESTAMP,
        [at(2020, 1, 1, 0, 0, 0, 500_000), at(2020, 1, 1, 0, 0, 0, 250_000), at(2020, 1, 1, 0, 0, 1)],
        form("%Y-%m-%d %H:%M:%S[.%f]"),
    ),
    (
        ["2020-01-01", "2020-01-02 05:06"],
        TIMESTAMP,
        [at(2020, 1, 1), at(2020, 1, 2, 5, 6)],
        form("%Y-%m-%d[ %H:%M]"),
    ),
    (
        ["2020-01-01 05:06", "2020-01-02 05:06:07"],
        TIMESTAMP,
        [at(2020, 1, 1, 5, 6), at(2020, 1, 2, 5, 6, 7)],
        form("%Y-%m-%d %H:%M[:%S]"),
    ),
    (
        ["8/14/2022 9:25 PM", "9/1/2022 12:05 AM", "9/1/2022 12:05 PM"],
        TIMESTAMP,
        [at(2022, 8, 14, 21, 25), at(2022, 9, 1, 0, 5), at(2022, 9, 1, 12, 5)],
        form("%-m/%-d/%Y %-I:%M %p"),
    ),
    (["14.08.2022 09:25:01pm"], TIMESTAMP, [at(2022, 8, 14, 21, 25, 1)], form("%d.%m.%Y %I:%M:%S%p", lower_half=True)),
    (["2020-01-01T05:06:07Z"], TIMESTAMP, [utc(2020, 1, 1, 5, 6, 7)], None),
    (
        ["2020-01-01 05:06:07 +02:00"],
        TIMESTAMP,
        [utc(2020, 1, 1, 3, 6, 7)],
        form("%Y-%m-%d %H:%M:%S %z", utc_offset_seconds=7200, zone=ZoneStyle.COLON),
    ),
    (
        ["2020-01-01T05:06:07-0500"],
        TIMESTAMP,
        [utc(2020, 1, 1, 10, 6, 7)],
        form("%Y-%m-%dT%H:%M:%S%z", utc_offset_seconds=-18_000, zone=ZoneStyle.COMPACT),
    ),
    (
        ["2020-01-01 05:06:07 UTC"],
        TIMESTAMP,
        [utc(2020, 1, 1, 5, 6, 7)],
        form("%Y-%m-%d %H:%M:%S %z", zone=ZoneStyle.UTC),
    ),
    (
        ["Mon, 06 Jan 2020 10:00:00 GMT"],
        TIMESTAMP,
        [utc(2020, 1, 6, 10)],
        form("%a, %d %b %Y %H:%M:%S %z", zone=ZoneStyle.GMT),
    ),
    (
        ["05/Jan/2020:10:00:00 +0000"],
        TIMESTAMP,
        [utc(2020, 1, 5, 10)],
        form("%d/%b/%Y:%H:%M:%S %z", zone=ZoneStyle.COMPACT),
    ),
    (["06:16", "23:59"], INT, [376 * MINUTE, 1439 * MINUTE], form("%H:%M")),
    (["6:16 AM", "11:59 PM"], INT, [376 * MINUTE, 1439 * MINUTE], form("%-I:%M %p")),
    (["06:16:00.5"], INT, [376 * MINUTE + 500_000], form("%H:%M:%S.%1f")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "data_type", "values", "expected"), SPELLINGS, ids=[cells[0] for cells, *_ in SPELLINGS]
)
def test_a_spelling_is_learned(
    cells: list[str], data_type: DataType, values: list[Any], expected: DatetimeForm | None
) -> None:
    target, _ = infer(cells)
    assert (target.data_type, target.form.form) == (data_type, expected)
    converted = convert(pa.array(cells), target, IngestLimits(), InfinityRule())
    assert converted.array.to_pylist() == values


@pytest.mark.parametrize(
    "cells",
    [
        ["2021-02-29"],
        ["2020-13-01"],
        ["24:00"],
        ["25:30", "01:10"],
        ["2020-01-01T05:00:60"],
        ["2020-01-01 13:00 PM"],
        ["2020-01-01T05:00:00Z", "2020-01-01T05:00:00"],
        ["2020-01-01", "01/13/2020"],
        ["30 Feb 2020"],
        ["000-00-0000"],
        ["555-12-3456"],
    ],
)
def test_text_stays_text(cells: list[str]) -> None:
    assert infer(cells)[0].data_type is STRING


@pytest.mark.parametrize(
    ("cells", "pattern"),
    [
        (["01/02/2020", "02/03/2020"], None),
        (["01/02/2020", "13/01/2020", "01/13/2020"], None),
        (["01-02-20", "02-03-21"], None),
        (["01/02/2020 5:06 PM", "02/03/2020 5:07 PM"], "%m/%d/%Y %-I:%M %p"),
        (["01.02.2020", "02.03.2020"], "%d.%m.%Y"),
        (["01/01/2020", "01/02/2020", "01/03/2020"], "%d/%m/%Y"),
        (["01/01/2020", "02/01/2020", "03/01/2020"], "%m/%d/%Y"),
    ],
)
def test_the_order_of_day_and_month_needs_evidence(cells: list[str], pattern: str | None) -> None:
    target, codes = infer(cells)
    found = target.form.form
    assert (found.pattern if isinstance(found, DatetimeForm) else None) == pattern
    assert codes == ["DAY_ORDER_UNKNOWN" if pattern is None else "DAY_ORDER"]


def test_monthly_days_say_what_is_the_day() -> None:
    # The first field is always 1 while the second varies: it is the day.
    target, _ = infer(["01/01/2020", "01/02/2020", "01/03/2020"])
    assert target.day_first is True


def test_another_column_says_what_the_order_is() -> None:
    targets, _ = infer_table({"a": ["01/02/2020"], "b": ["13/02/2020"]})
    assert (targets["a"].data_type, targets["a"].day_first) == (DATE, True)
    targets, _ = infer_table({"a": ["01/02/2020"], "b": ["13/02/2020"], "c": ["02/13/2020"]})
    assert targets["a"].data_type is STRING


def test_eight_digits_are_days_by_name_or_declaration() -> None:
    cells = ["20240105", "20231231"]
    assert infer(cells)[0].data_type is INT
    assert infer(cells, name="orderDate")[0].form.form == DatetimeForm("%Y%m%d")
    assert infer(["20240105", "20241399"], name="order_date")[0].data_type is INT
    declared = ColumnSpec("x", ColumnKind.DATETIME, datetime_format="%Y%m%d")
    target, _ = infer(cells, declared=declared)
    assert (target.data_type, target.datetime_format) == (DATE, "%Y%m%d")


@pytest.mark.parametrize(
    ("cells", "pattern", "rows"),
    [
        (["2020-01-01 05:06", "2020-01-01T05:07", "2020-01-01T05:08"], "%Y-%m-%dT%H:%M", 1),
        (["13/1/2020", "13/01/2020", "14/02/2020"], "%d/%m/%Y", 1),
        (["2020-01-01 00:00", "2020-01-01"], "%Y-%m-%d %H:%M", 1),
    ],
)
def test_the_form_of_most_rows_is_used(cells: list[str], pattern: str, rows: int) -> None:
    targets, notices = infer_table({"x": cells})
    assert targets["x"].form.form == DatetimeForm(pattern)
    assert [notice.rows for notice in notices if notice.code == "MIXED_FORMS"] == [rows]


def test_a_declared_format_learns_how_it_is_padded() -> None:
    declared = ColumnSpec("x", datetime_format="%d %b %y %I:%M %p")
    target, _ = infer(["2 Jan 99 3:04 pm", "12 Feb 99 11:04 am"], declared=declared)
    assert target.form.form == DatetimeForm("%-d %b %y %-I:%M %p", lower_half=True)
    assert target.datetime_format == "%d %b %y %I:%M %p"


def test_a_declared_form_is_completed() -> None:
    form = WrittenForm(DatetimeForm("%m/%d/%Y"))
    declared = ColumnSpec("x", ColumnKind.DATETIME, written_form=form)
    target, codes = infer(["1/2/2020", "11/12/2020"], declared=declared)
    assert (target.form.form, codes) == (DatetimeForm("%-m/%-d/%Y"), [])
    again, _ = infer(["1/2/2020", "11/12/2020"], declared=replace(declared, written_form=target.form))
    assert again.form == target.form
    zoned = ColumnSpec("x", written_form=WrittenForm(DatetimeForm("%d.%m.%Y %H:%M %z", zone=ZoneStyle.COLON)))
    target, _ = infer(["01.02.2020 05:06 +01:00"], declared=zoned)
    assert target.form.form == DatetimeForm("%d.%m.%Y %H:%M %z", utc_offset_seconds=3600, zone=ZoneStyle.COLON)


def test_names_that_come_back_otherwise_are_reported() -> None:
    targets, notices = infer_table(
        {"x": ["Sept 4, 2020", "Aug 14, 2020"], "y": ["Mon, 02 Mar 2020", "Mon, 03 Mar 2020"]}
    )
    assert [targets[name].form.form for name in "xy"] == [form("%b %-d, %Y"), form("%a, %d %b %Y")]
    assert [(notice.column, str(notice.code), notice.rows) for notice in notices] == [
        ("x", "MIXED_FORMS", 1),
        ("y", "MIXED_FORMS", 1),
    ]


def test_years_of_two_digits_are_reported() -> None:
    target, codes = infer(["16-JUL-68", "23-OCT-64", "01-FEB-71"])
    assert target.form.form == DatetimeForm("%d-%b-%y", names=NameCase.UPPER)
    assert codes == ["TWO_DIGIT_YEARS"]


def test_nanoseconds_are_reported() -> None:
    targets, notices = infer_table({"x": ["2020-01-01T00:00:00.123456789", "2020-01-01T00:00:00.123456000"]})
    assert targets["x"].form.form == DatetimeForm("%Y-%m-%dT%H:%M:%S.%9f")
    assert [(str(notice.code), notice.rows) for notice in notices] == [("DIGITS_DROPPED", 1)]


@pytest.mark.parametrize(
    ("cells", "declared", "words"),
    [
        (["true", "false"], False, None),
        (["True", "False"], False, ("True", "False")),
        (["TRUE"], False, ("TRUE", "FALSE")),
        (["yes", "no"], True, ("yes", "no")),
        (["Y", "N"], True, ("Y", "N")),
        (["0", "1"], True, ("1", "0")),
        (["Ja", "Nein"], True, ("Ja", "Nein")),
    ],
)
def test_words_of_truth(cells: list[str], words: tuple[str, str] | None, *, declared: bool) -> None:
    target, _ = infer(cells, declared=ColumnSpec("x", ColumnKind.BOOLEAN) if declared else None)
    assert target.data_type is DataType.BOOL
    assert target.form.to_json() == (
        {} if words is None else {"boolean": {"true_text": words[0], "false_text": words[1]}}
    )
    converted = convert(pa.array(cells), target, IngestLimits(), InfinityRule())
    truths = {"true", "yes", "y", "1", "ja"}
    assert converted.array.to_pylist() == [cell.lower() in truths for cell in cells]


def test_undeclared_words_stay_as_they_are() -> None:
    assert infer(["yes", "no"])[0].data_type is STRING
    assert infer(["0", "1"])[0].data_type is INT
    assert infer(["true", "1"])[0].data_type is STRING
