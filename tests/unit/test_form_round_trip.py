"""Columns come back in the form they came in: what a form writes is read as what it was, and the form is learned."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rowmint.schema import ColumnSpec, DataType
from rowmint.schema.forms import (
    DatetimeForm,
    ExponentStyle,
    Grouping,
    NameCase,
    NegativeStyle,
    NumberForm,
    PlusSign,
    WrittenForm,
    ZoneStyle,
)
from rowmint.schema.forms.cells import read, written
from tests.inferring import infer
from tests.unit.target_columns import column_of
from trainer_service.datasets.conversion import InfinityRule, convert
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.target import Target

GROUPED = [
    *((style, ",", ".") for style in Grouping if style is not Grouping.NONE),
    (Grouping.THOUSANDS, ".", ","),
    (Grouping.THOUSANDS, "'", "."),
    (Grouping.THOUSANDS, "\u202f", ","),
    (Grouping.NONE, "", "."),
    (Grouping.NONE, "", ","),
]


@st.composite
def number_forms(draw: st.DrawFn) -> NumberForm:
    grouping, group, point = draw(st.sampled_from(GROUPED))
    prefix, suffix = draw(st.sampled_from([("", ""), ("$", ""), ("EUR ", ""), ("", "%"), ("", " €"), ("R$ ", "")]))
    return NumberForm(
        prefix=prefix,
        suffix=suffix,
        grouping=grouping,
        group_separator=group,
        decimal_separator=point,
        minimum_fraction_digits=draw(st.sampled_from([0, 1, 2, 3])),
        plus=draw(st.sampled_from(PlusSign)),
        negative=draw(st.sampled_from(NegativeStyle)),
        sign_after_prefix=bool(prefix) and draw(st.booleans()),
        exponent=ExponentStyle.NEVER,
        leading_point=draw(st.booleans()),
    )


def values_of(texts: list[str], target: Target) -> list[Any]:
    converted = convert(pa.array(texts), target, IngestLimits(), InfinityRule())
    assert not converted.bad.any()
    values: list[Any] = converted.array.to_pylist()
    return values


@given(number_forms(), st.lists(st.decimals(-(10**9), 10**9, places=3), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_numbers_come_back_as_they_came(form: NumberForm, numbers: list[Decimal]) -> None:
    # Enough numbers to show every part of the form, without doubt about the decimal separator.
    numbers = [*numbers, *(Decimal(text) for text in ("1234567.25", "-1234567.75", "0.05", "-12345678.5", "0.125"))]
    source = ColumnSpec("x", data_type=DataType.DECIMAL, written_form=WrittenForm(form))
    texts = [written(number, source) for number in numbers]
    target, _ = infer(texts)
    assert target.data_type is DataType.DOUBLE
    values = values_of(texts, target)
    assert values == [float(number) for number in numbers]
    column = column_of(target)
    assert [written(value, column) for value in values] == texts
    # The scalar oracle reads what is read by columns.
    assert [read(text, column) for text in texts] == values


DAYS = ("%Y-%m-%d", "%m/%d/%Y", "%-m/%-d/%Y", "%d.%m.%Y", "%-d %b %Y", "%B %-d, %Y", "%a, %d %b %Y", "%d-%b-%y")
CLOCKS = ("", " %H:%M", "T%H:%M:%S", " %H:%M:%S.%3f", " %-I:%M %p", " %I:%M:%S %p", "T%H:%M:%S.%6f", "[ %H:%M]")


@st.composite
def datetime_forms(draw: st.DrawFn) -> DatetimeForm:
    day, clock = draw(st.sampled_from(DAYS)), draw(st.sampled_from(CLOCKS))
    pattern, zone, offset = day + clock, ZoneStyle.NONE, 0
    if clock and not clock.startswith("["):
        zone = draw(st.sampled_from(ZoneStyle))
        if zone is not ZoneStyle.NONE:
            pattern += draw(st.sampled_from(["%z", " %z"]))
        if zone in (ZoneStyle.COLON, ZoneStyle.COMPACT, ZoneStyle.HOURS):
            offset = draw(st.sampled_from([0, 7200, -18_000]))
    return DatetimeForm(
        pattern,
        utc_offset_seconds=offset,
        zone=zone,
        lower_half="%p" in clock and draw(st.booleans()),
        names=draw(st.sampled_from(NameCase)) if "%b" in day.lower() else NameCase.TITLE,
    )


@given(datetime_forms(), st.lists(st.integers(0, 3 * 10**15), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_moments_come_back_as_they_came(form: DatetimeForm, moments: list[int]) -> None:
    # Days past the twelfth, days and months of one digit, noon, and days without a clock where those are left out.
    known = [datetime(2001, 3, 25, 23, 5), datetime(2010, 11, 7, 9, 30, 5), datetime(2010, 1, 8, 12, 1)]  # noqa: DTZ001
    start = datetime(1970, 1, 1)  # noqa: DTZ001 - local times have no zone
    times = [*known, *(start + timedelta(microseconds=moment) for moment in moments)]
    if form.pattern.endswith("]"):
        times.append(datetime(2003, 4, 28))  # noqa: DTZ001
    source = ColumnSpec("x", data_type=DataType.TIMESTAMP, written_form=WrittenForm(form))
    texts = [written(time, source) for time in times]
    # Where all months have names of three letters they may be either.
    assume("%B" not in form.pattern or any("March" in text.title() for text in texts))
    target, _ = infer(texts)
    values = values_of(texts, target)
    column = column_of(target)
    assert [written(value, column) for value in values] == texts
    assert [read(text, column) for text in texts] == values
