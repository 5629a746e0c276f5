"""Parsing of dates and instants in text, vectorised over columns."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.errors import InvalidFieldError

Micros = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_DAY = 86_400_000_000
FIRST_MICROS = -62_135_596_800_000_000
"""0001-01-01T00:00:00 in microseconds since 1970."""
LAST_MICROS = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999 in microseconds since 1970."""

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)
_DIRECTIVES = {
    "Y": r"(?P<Y>[0-9]{4})",
    "y": r"(?P<y>[0-9]{2})",
    "m": r"(?P<m>[0-9]{1,2})",
    "d": r"(?P<d>[0-9]{1,2})",
    "b": r"(?P<b>[A-Za-z]{3,9})",
    "B": r"(?P<b>[A-Za-z]{3,9})",
    "a": r"[A-Za-z]{3,9}",
    "A": r"[A-Za-z]{3,9}",
    "H": r"(?P<H>[0-9]{1,2})",
    "I": r"(?P<I>[0-9]{1,2})",
    "p": r"(?P<p>[AaPp][Mm])",
    "M": r"(?P<M>[0-9]{1,2})",
    "S": r"(?P<S>[0-9]{1,2})",
    "f": r"(?P<f>[0-9]{1,9})",
    "z": r"(?P<z>Z|[+-][0-9]{2}:?[0-9]{2})",
    "%": "%",
}
_SHORTHANDS = {"%T": "%H:%M:%S", "%F": "%Y-%m-%d", "%D": "%m/%d/%y", "%R": "%H:%M", "%h": "%b"}
_ISO_DAY = r"(?P<Y>[0-9]{4})-(?P<m>[0-9]{2})-(?P<d>[0-9]{2})"
_ISO_TIME = r"[T ](?P<H>[0-9]{2})(?::(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?)?"
_ISO_ZONE = r"(?P<z>Z|[+-][0-9]{2}(?::?[0-9]{2})?)"


@dataclass(frozen=True)
class DatetimeForm:
    """A format of days or instants.

    Fraction digits past the sixth are truncated. Years are 0001 to 9999; leap seconds are invalid.

    Attributes:
        format: Its strptime format, or empty for ISO 8601.
        pattern: A regular expression with a group for each part.
        has_time: Whether it contains a time of day.
        has_offset: Whether it contains an offset from UTC; values are then instants in UTC.
        quick: Arrow type whose own parser reads most columns of this form, or None.
    """

    format: str
    pattern: str
    has_time: bool
    has_offset: bool
    quick: pa.DataType | None = field(default=None, compare=False)

    @classmethod
    def of_format(cls, text: str, column: str) -> "DatetimeForm":
        """Parse a strptime format.

        Raises:
            InvalidFieldError: It has an unsupported directive, or does not contain a whole day.
        """
        where = f"datetime_format of column {column!r}"
        spelled = text
        for short, long in _SHORTHANDS.items():
            spelled = spelled.replace(short, long)
        parts, used, position = [], [], 0
        for match in re.finditer("%(.?)", spelled, re.DOTALL):
            directive = match[1]
            if directive not in _DIRECTIVES or (directive != "%" and directive in used):
                raise InvalidFieldError(
                    where, f"%{directive} in {text!r} is unknown or repeated; supported are %{' %'.join(_DIRECTIVES)}"
                )
            used.append(directive)
            parts += [re.escape(spelled[position : match.start()]), _DIRECTIVES[directive]]
            position = match.end()
        parts.append(re.escape(spelled[position:]))
        groups = {"b" if directive == "B" else directive for directive in used}
        if not (groups & {"Y", "y"} and groups & {"m", "b"} and "d" in groups) or {"Y", "y"} <= groups:
            raise InvalidFieldError(where, f"{text!r} must contain year, month and day, each once")
        if {"m", "b"} <= groups or {"H", "I"} <= groups or ("I" in groups) != ("p" in groups):
            raise InvalidFieldError(where, f"{text!r} contains a part twice, or %I without %p")
        return cls(text, f"^{''.join(parts)}$", bool(groups & {"H", "I"}), "z" in groups)

    def parse(self, texts: pa.Array) -> tuple[Micros, Mask]:
        """Parse a column of text.

        Args:
            texts: Strings, shape (n,); may be missing.

        Returns:
            Microseconds since 1970-01-01T00:00:00, shape (n,), and the mask of those that were parsed, shape (n,).
        """
        if self.quick is not None:
            try:
                read = texts.cast(self.quick)
            except pa.ArrowInvalid:
                pass  # Some value is not of this form, or in a variant that only the pattern supports.
            else:
                if pa.types.is_date32(self.quick):
                    read = read.cast(pa.timestamp("us"))
                ok = read.is_valid().to_numpy(zero_copy_only=False)
                micros = read.cast(pa.int64()).fill_null(0).to_numpy()
                return micros, ok & (micros >= FIRST_MICROS) & (micros <= LAST_MICROS)
        return self._parse_slowly(texts)

    def _parse_slowly(self, texts: pa.Array) -> tuple[Micros, Mask]:
        groups = pc.extract_regex(texts, self.pattern)
        ok = groups.is_valid().to_numpy(zero_copy_only=False)
        names = {child.name for child in groups.type}

        def text(name: str) -> pa.Array:
            return groups.field(name).fill_null("")

        def number(name: str, default: int = 0) -> Micros:
            if name not in names:
                return np.full(len(texts), default, dtype=np.int64)
            digits = text(name)
            filled: Any = pc.if_else(pc.equal(digits, ""), str(default), digits)
            return np.asarray(filled.cast(pa.int64()).to_numpy())

        year = number("Y")
        if "y" in names:
            short = number("y")
            year = np.where(short >= 69, 1900 + short, 2000 + short)
        month = number("m")
        if "b" in names:
            month, known = _month_numbers(text("b"))
            ok &= known
        day, hour, minute, second = number("d"), number("H"), number("M"), number("S")
        if "I" in names:
            clock = number("I")
            ok &= (clock >= 1) & (clock <= 12)
            afternoon = pc.equal(pc.ascii_lower(text("p")), "pm").to_numpy(zero_copy_only=False)
            hour = clock % 12 + np.where(afternoon, 12, 0)
        fraction = np.zeros(len(texts), dtype=np.int64)
        if "f" in names:
            padded = pc.utf8_slice_codeunits(pc.utf8_rpad(text("f"), 6, "0"), 0, 6)
            fraction = np.asarray(padded.cast(pa.int64()).to_numpy())
        ok &= (year >= 1) & (month >= 1) & (month <= 12) & (hour < 24) & (minute < 60) & (second < 60)
        leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
        length = _MONTH_DAYS[np.clip(month, 0, 12)] + ((month == 2) & leap)
        ok &= (day >= 1) & (day <= length)
        seconds = _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
        micros = seconds * 1_000_000 + fraction
        if "z" in names:
            minutes, known = _offset_minutes(text("z"))
            ok &= known
            micros = micros - minutes * 60_000_000
            ok &= (micros >= FIRST_MICROS) & (micros <= LAST_MICROS)
        return np.where(ok, micros, 0), ok


def whole_days(micros: Micros) -> tuple[npt.NDArray[np.int32], Mask]:
    """Return days since 1970, and the mask of values that are midnights."""
    days = np.floor_divide(micros, _DAY)
    return days.astype(np.int32), days * _DAY == micros


def _days(year: Micros, month: Micros, day: Micros) -> Micros:
    """Return days since 1970-01-01 in the proleptic Gregorian calendar; years are counted from March."""
    shifted = year - (month <= 2)
    era = np.floor_divide(shifted, 400)
    of_era = shifted - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days: Micros = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return days


def _month_numbers(names: pa.Array) -> tuple[Micros, Mask]:
    lower = pc.ascii_lower(names)
    whole, short = pa.array(_MONTHS), pa.array([month[:3] for month in _MONTHS])
    found = pc.coalesce(pc.index_in(lower, value_set=short), pc.index_in(lower, value_set=whole))
    known = found.is_valid().to_numpy(zero_copy_only=False)
    return np.asarray(found.fill_null(0).cast(pa.int64()).to_numpy()) + 1, known


def _offset_minutes(zones: pa.Array) -> tuple[Micros, Mask]:
    digits = pc.replace_substring_regex(zones, "[^0-9]", "")
    padded = pc.utf8_rpad(digits, 4, "0")
    hours = np.asarray(pc.utf8_slice_codeunits(padded, 0, 2).cast(pa.int64()).to_numpy())
    minutes = np.asarray(pc.utf8_slice_codeunits(padded, 2, 4).cast(pa.int64()).to_numpy())
    west = pc.starts_with(zones, "-").to_numpy(zero_copy_only=False)
    total = hours * 60 + minutes
    return np.where(west, -total, total), (hours < 24) & (minutes < 60)


ISO_DATE = DatetimeForm("", f"^{_ISO_DAY}$", has_time=False, has_offset=False, quick=pa.date32())
ISO_LOCAL = DatetimeForm("", f"^{_ISO_DAY}(?:{_ISO_TIME})?$", has_time=True, has_offset=False, quick=pa.timestamp("us"))
ISO_OFFSET = DatetimeForm(
    "", f"^{_ISO_DAY}{_ISO_TIME}{_ISO_ZONE}$", has_time=True, has_offset=True, quick=pa.timestamp("us", "UTC")
)
YEAR_FIRST = DatetimeForm.of_format("%Y/%m/%d", "")
MONTH_FIRST = DatetimeForm.of_format("%m/%d/%Y", "")
DAY_FIRST = DatetimeForm.of_format("%d/%m/%Y", "")

RECOGNISED = (ISO_DATE, ISO_LOCAL, ISO_OFFSET, YEAR_FIRST, MONTH_FIRST, DAY_FIRST)
"""Forms that are recognised without a declaration, the narrowest first."""
