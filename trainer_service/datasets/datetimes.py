"""Reading of days, times and moments in text, vectorised over the texts of one shape."""

import numpy as np
import numpy.typing as npt

from rowmint.schema.forms.moment_layouts import MomentLayout
from trainer_service.datasets.shapes import ShapeGroup

Micros = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DAY_MICROS = 86_400_000_000
FIRST_MICROS = -62_135_596_800_000_000
"""0001-01-01 in microseconds since 1970."""
LAST_MICROS = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999 in microseconds since 1970."""

_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)
_PIVOT = 69
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday


class Moments:
    """The fields of the texts of one shape.

    Fraction digits past the sixth are truncated. Years are 0001 to 9999; leap seconds are invalid.

    Args:
        group: The texts.
        layout: How they are read.
    """

    def __init__(self, group: ShapeGroup, layout: MomentLayout) -> None:
        self._group = group
        self._layout = layout
        self._size = len(group)

    def field(self, name: str) -> Micros:
        """Return the number of a field of digits, shape (n,); 0 where the layout lacks it."""
        span = self._layout.spans.get(name)
        return self._group.number(range(*span)) if span is not None else np.zeros(self._size, np.int64)

    def year(self) -> Micros:
        """Return the year; of two digits, those from 69 on are of the last century."""
        if "y" not in self._layout.spans:
            return self.field("Y")
        short = self.field("y")
        return np.where(short >= _PIVOT, 1900 + short, 2000 + short)

    def days(self, *, day_first: bool | None = None) -> tuple[Micros, Mask]:
        """Return days since 1970 and which of them exist, both shape (n,).

        Args:
            day_first: Whether the first of two fields before the year is the day.
        """
        spans, year = self._layout.spans, self.year()
        if "j" in spans:
            ordinal = self.field("j")
            leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
            first = days_since_1970(year, np.ones_like(year), np.ones_like(year))
            return first + ordinal - 1, (year >= 1) & (ordinal >= 1) & (ordinal <= 365 + leap)
        if "1" in spans:
            day, month = self.field("1" if day_first else "2"), self.field("2" if day_first else "1")
        else:
            day = self.field("d")
            month = np.full(self._size, self._layout.month) if self._layout.month else self.field("m")
        return days_since_1970(year, month, day), _is_day(year, month, day)

    def weekday(self) -> Micros:
        """Return the day of the week of the days shown, which exist, shape (n,); Monday is 0."""
        return (self.days()[0] + _FIRST_WEEKDAY) % 7

    def clock(self) -> tuple[Micros, Mask]:
        """Return microseconds since midnight, of the clock shown, and which of them exist, both shape (n,)."""
        hour, minute, second = self.field("H"), self.field("M"), self.field("S")
        ok = (hour < 24) & (minute < 60) & (second < 60)
        if self._layout.afternoon is not None:
            ok &= (hour >= 1) & (hour <= 12)
            hour = hour % 12 + (12 if self._layout.afternoon else 0)
        return ((hour * 60 + minute) * 60 + second) * 1_000_000 + self.fraction(), ok

    def fraction(self) -> Micros:
        """Return the microseconds of the fraction, shape (n,)."""
        span = self._layout.spans.get("f")
        if span is None:
            return np.zeros(self._size, np.int64)
        digits = range(span[0], min(span[1], span[0] + 6))
        return self._group.number(digits) * np.int64(10 ** (6 - len(digits)))

    def offset(self) -> tuple[Micros, Mask]:
        """Return minutes east of UTC and which of them exist, both shape (n,)."""
        span = self._layout.spans.get("z")
        if span is None:
            return np.zeros(self._size, np.int64), np.ones(self._size, np.bool_)
        text = self._group.shape[slice(*span)]
        hours = self._group.number(range(span[0], span[0] + 2))
        minutes = self._group.number(range(span[1] - 2, span[1])) if len(text) > 2 else np.zeros_like(hours)
        total = hours * 60 + minutes
        return -total if self._layout.west else total, (hours < 24) & (minutes < 60)

    def micros(self, *, day_first: bool | None = None) -> tuple[Micros, Mask]:
        """Return microseconds since 1970, in UTC where there is an offset, and which of them exist, both shape (n,).

        Without a day they are microseconds since midnight.

        Args:
            day_first: Whether the first of two fields before the year is the day.
        """
        if "s" in self._layout.spans:
            begin, end = self._layout.spans["s"]
            west = self._group.shape[begin] == "-"
            seconds = self._group.number(range(begin + west, end))
            micros = (-seconds if west else seconds) * 1_000_000
            return micros, (micros >= FIRST_MICROS) & (micros <= LAST_MICROS)
        micros, ok = self.clock()
        if self._layout.spans.keys() & {"Y", "y"}:
            days, exist = self.days(day_first=day_first)
            east, known = self.offset()
            micros = days * DAY_MICROS + micros - east * 60_000_000
            ok = ok & exist & known & (micros >= FIRST_MICROS) & (micros <= LAST_MICROS)
        return np.where(ok, micros, 0), ok


def whole_days(micros: Micros) -> tuple[npt.NDArray[np.int32], Mask]:
    """Return days since 1970, and the mask of values that are midnights."""
    days = np.floor_divide(micros, DAY_MICROS)
    return days.astype(np.int32), days * DAY_MICROS == micros


def days_since_1970(year: Micros, month: Micros, day: Micros) -> Micros:
    """Return days since 1970-01-01 in the proleptic Gregorian calendar; years are counted from March."""
    shifted = year - (month <= 2)
    era = np.floor_divide(shifted, 400)
    of_era = shifted - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days: Micros = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return days


def _is_day(year: Micros, month: Micros, day: Micros) -> Mask:
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    known = (year >= 1) & (month >= 1) & (month <= 12)
    length = _MONTH_DAYS[np.where(known, month, 0)] + ((month == 2) & leap)
    found: Mask = known & (day >= 1) & (day <= length)
    return found
