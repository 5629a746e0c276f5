"""Days and times in their written form: patterns, texts, and every form reads back what it writes."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.errors import InvalidFieldError
from rowmint.schema.forms import DatetimeForm, NameCase, ZoneStyle
from rowmint.schema.forms.cells import moment_of
from rowmint.schema.forms.moments import (
    DAY,
    FIRST_MOMENT,
    LAST_MOMENT,
    form_of_strptime,
    has_day,
    is_time_of_day,
    moment_text,
    parse_pattern,
    read_moment,
    strptime_of,
)

EVENING = moment_of(datetime(2022, 8, 14, 21, 5, 7, 43_018, UTC))
MIDNIGHT = moment_of(date(2020, 2, 29))


@pytest.mark.parametrize(
    ("moment", "form", "text"),
    [
        (EVENING, DatetimeForm("%-m/%-d/%Y %-I:%M %p"), "8/14/2022 9:05 PM"),
        (EVENING, DatetimeForm("%m/%d/%y %I:%M:%S %p", lower_half=True), "08/14/22 09:05:07 pm"),
        (EVENING, DatetimeForm("%Y-%m-%dT%H:%M:%S.%3f"), "2022-08-14T21:05:07.043"),
        (EVENING, DatetimeForm("%Y-%m-%d %H:%M:%S[.%f]"), "2022-08-14 21:05:07.043018"),
        (EVENING, DatetimeForm("%H:%M:%S.%9f"), "21:05:07.043018000"),
        (EVENING, DatetimeForm("%a, %d %b %Y", names=NameCase.UPPER), "SUN, 14 AUG 2022"),
        (EVENING, DatetimeForm("%A, %-d. %B %Y", names=NameCase.LOWER), "sunday, 14. august 2022"),
        (
            EVENING,
            DatetimeForm("%Y-%m-%dT%H:%M%z", utc_offset_seconds=7200, zone=ZoneStyle.COLON),
            "2022-08-14T23:05+02:00",
        ),
        (
            EVENING,
            DatetimeForm("%d.%m.%Y %H:%M %z", utc_offset_seconds=-12_600, zone=ZoneStyle.COMPACT),
            "14.08.2022 17:35 -0330",
        ),
        (EVENING, DatetimeForm("%H%z", utc_offset_seconds=-18_000, zone=ZoneStyle.HOURS), "16-05"),
        (EVENING, DatetimeForm("%H:%M %z", zone=ZoneStyle.GMT), "21:05 GMT"),
        (EVENING, DatetimeForm("%H:%M%z", zone=ZoneStyle.Z), "21:05Z"),
        (EVENING, DatetimeForm("%s.%6f"), "1660511107.043018"),
        (EVENING, DatetimeForm("%Y%j"), "2022226"),
        (EVENING, DatetimeForm("%e %b %%%[%]"), "14 Aug %[]"),
        (EVENING, DatetimeForm("%F %T"), "2022-08-14 21:05:07"),
        (MIDNIGHT, DatetimeForm("%Y-%m-%d[ %H:%M[:%S]]"), "2020-02-29"),
        (MIDNIGHT + 3_600_000_000, DatetimeForm("%Y-%m-%d[ %H:%M[:%S]]"), "2020-02-29 01:00"),
        (MIDNIGHT + 1_000_000, DatetimeForm("%Y-%m-%d[ %H:%M[:%S]]"), "2020-02-29 00:00:01"),
        (MIDNIGHT, DatetimeForm("%-d/%-m/%Y %I:%M %p"), "29/2/2020 12:00 AM"),
        (MIDNIGHT + DAY // 2, DatetimeForm("%I:%M %p"), "12:00 PM"),
        (FIRST_MOMENT, DatetimeForm("%Y-%m-%d"), "0001-01-01"),
        (LAST_MOMENT, DatetimeForm("%Y-%m-%d %H:%M:%S.%6f"), "9999-12-31 23:59:59.999999"),
        (-1, DatetimeForm("%Y-%m-%d %H:%M:%S.%6f"), "1969-12-31 23:59:59.999999"),
    ],
)
def test_a_moment_in_a_form(moment: int, form: DatetimeForm, text: str) -> None:
    assert moment_text(moment, form) == text


@pytest.mark.parametrize(
    ("text", "form", "moment"),
    [
        ("08/4/2022 9:05 pm", DatetimeForm("%m/%d/%Y %I:%M %p"), moment_of(datetime(2022, 8, 4, 21, 5, tzinfo=UTC))),
        ("4 sept 69", DatetimeForm("%d %b %y"), moment_of(date(1969, 9, 4))),
        ("4 March 68", DatetimeForm("%d %b %y"), moment_of(date(2068, 3, 4))),
        ("2020-060", DatetimeForm("%Y-%j"), MIDNIGHT),
        ("Jan  5, 2020", DatetimeForm("%b %e, %Y"), moment_of(date(2020, 1, 5))),
        (
            "2020-01-01T00:00:00Z",
            DatetimeForm("%Y-%m-%dT%H:%M:%S%z", 7200, ZoneStyle.COLON),
            moment_of(date(2020, 1, 1)),
        ),
        ("01:02", DatetimeForm("%H:%M[:%S]"), 3_720_000_000),
        ("1583000000", DatetimeForm("%s"), 1_583_000_000_000_000),
        ("20200229", DatetimeForm("%Y%m%d"), MIDNIGHT),
    ],
)
def test_a_text_is_read_in_a_form(text: str, form: DatetimeForm, moment: int) -> None:
    assert read_moment(text, form) == moment


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("2021-02-29", "%Y-%m-%d"),
        ("2021-13-01", "%Y-%m-%d"),
        ("0000-01-01", "%Y-%m-%d"),
        ("2021-01-00", "%Y-%m-%d"),
        ("2021-366", "%Y-%j"),
        ("5 Foo 2020", "%d %b %Y"),
        ("24:00", "%H:%M"),
        ("13:00 PM", "%I:%M %p"),
        ("00:60", "%H:%M"),
        ("00:00:00.1234567", "%H:%M:%S.%f"),
        ("0001-01-01 00:00+02:00", "%Y-%m-%d %H:%M%z"),
        ("2020-01-01 00:00+24:00", "%Y-%m-%d %H:%M%z"),
        ("x" * 1000, "%Y"),
    ],
)
def test_what_is_no_moment_of_the_form_is_refused(text: str, pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is not|is finer|has no"):
        read_moment(text, DatetimeForm(pattern, zone=ZoneStyle.COLON if "%z" in pattern else ZoneStyle.NONE))


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "%",
        "%Q",
        "%Y %Y",
        "%Y %y",
        "%d %e",
        "%m %b",
        "%H %I %p",
        "%I",
        "%p",
        "%-Y",
        "%3S",
        "%Y[ %H",
        "%Y] %H",
        "%Y[ %m]",
        "[[[[[%H]]]]]",
        "%Y\n",
        "\ud800",
        "%Y" + "-" * 200,
    ],
)
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        parse_pattern(pattern)
    assert [violation.field for violation in refused.value.violations] == ["written_form.datetime.pattern"]


def test_patterns_say_what_they_hold() -> None:
    assert [has_day(pattern) for pattern in ("%Y-%m-%d", "%s", "%y%j", "%d %b %Y", "%H:%M", "%Y-%m", "%m-%d")] == [
        True,
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert [is_time_of_day(pattern) for pattern in ("%H:%M[:%S]", "%I %p", "%Y-%m-%d %H", "%M:%S", "%H%z")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_strptime_formats_become_forms_and_back() -> None:
    form = form_of_strptime("[%d/%m/%Y] %H:%M:%S.%f%z")
    assert form == DatetimeForm("%[%d/%m/%Y%] %H:%M:%S.%6f%z", zone=ZoneStyle.COMPACT)
    assert strptime_of(form) == "[%d/%m/%Y] %H:%M:%S.%f%z"
    assert strptime_of(DatetimeForm("%-m/%e/%Y[ %-I:%M %p][.%3f] %%z")) == "%m/%d/%Y %I:%M %p.%f %%z"
    assert form_of_strptime("%Y-%m-%d %%z").zone is ZoneStyle.NONE


@given(
    moment=st.integers(0, moment_of(date(2068, 12, 31))),  # two-digit years are of 1969 to 2068
    day=st.sampled_from(
        ["%Y-%m-%d", "%-m/%-d/%y", "%d.%m.%Y", "%b %e, %Y", "%A %-d %B %Y", "%Y-%j", "%Y%m%d", "%d-%b-%y"]
    ),
    time=st.sampled_from(["%H:%M:%S.%6f", "%-I:%M:%S[.%f] %p", "[%H:%M:%S][.%f]", "%T.%9f", "%-H h %-M m %-S.%f"]),
    zone=st.sampled_from(ZoneStyle),
    offset=st.integers(-1439, 1439),
    lower=st.booleans(),
    names=st.sampled_from(NameCase),
)
def test_every_form_of_moments_reads_back_what_it_writes(  # noqa: PLR0917 - one argument a field of the form
    moment: int, day: str, time: str, zone: ZoneStyle, offset: int, lower: bool, names: NameCase
) -> None:
    if zone in (ZoneStyle.Z, ZoneStyle.GMT, ZoneStyle.UTC, ZoneStyle.NONE):
        offset = 0
    pattern = f"{day} {time}" + ("" if zone is ZoneStyle.NONE else " %z")
    form = DatetimeForm(pattern, offset * 60, zone, lower, names)
    assert read_moment(moment_text(moment, form), form) == moment


@given(moment=st.datetimes())
def test_the_calendar_is_that_of_the_standard_library(moment: datetime) -> None:
    exact = moment_of(moment)
    for pattern in ("%m-%d %H:%M:%S.%6f %A", "%j", "%B %I%p"):
        expected = moment.strftime(pattern.replace("%6f", "%f"))
        assert moment_text(exact, DatetimeForm(f"%Y {pattern}")) == f"{moment.year:04d} {expected}"
