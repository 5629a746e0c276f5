"""Notices and findings: what was decided about a table that its owner may want otherwise.

None of them holds a cell of the data: a message may name a format, a count or an option, never a value.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

MAX_NOTICES = 1000
"""Most notices of one dataset."""
MAX_COLUMN_NOTICES = 4
"""Most notices of one column."""
_BARE = re.compile(r"[^=,:\"'`]+")


class NoticeCode(StrEnum):
    """Kind of a decision."""

    DAY_ORDER = "DAY_ORDER"
    """Days were read as day first or month first."""
    DAY_ORDER_UNKNOWN = "DAY_ORDER_UNKNOWN"
    """No value says whether the day or the month comes first; the column stays text."""
    TWO_DIGIT_YEARS = "TWO_DIGIT_YEARS"
    """Years of two digits were read as those from 1969 to 2068."""
    MIXED_FORMS = "MIXED_FORMS"
    """Values are written in several ways; the form of most rows is used."""
    DIGITS_DROPPED = "DIGITS_DROPPED"
    """Digits beyond microseconds were dropped."""
    UNIQUE_NUMBER = "UNIQUE_NUMBER"
    """A number that no two rows share is numerical, not a key."""
    ROW_NUMBER = "ROW_NUMBER"
    """The column counts the rows."""
    LIKELY_KEY = "LIKELY_KEY"
    """The column was taken for the primary key, or looks like one."""
    NEAR_UNIQUE = "NEAR_UNIQUE"
    """Most values of a text column occur once; it is an id, so that none is published."""
    LEADING_ZEROS = "LEADING_ZEROS"
    """Digits with leading zeros or a plus sign are text."""
    DIALECT = "DIALECT"
    """The dialect of a CSV file was seen from the file."""
    HEADER = "HEADER"
    """The header could be a row."""
    EMPTY_COLUMN = "EMPTY_COLUMN"
    """An empty last column without a name was left out."""
    QUOTED_EMPTY = "QUOTED_EMPTY"
    """What a quoted field without characters is was seen from the file."""
    DECIMAL_COMMA = "DECIMAL_COMMA"
    """A comma or a point could separate groups of digits or the fraction."""
    BEYOND_INT64 = "BEYOND_INT64"
    """Integers beyond 64 bits are text."""
    STORAGE = "STORAGE"
    """Values came in another type than they are kept in."""
    ROUNDING = "ROUNDING"
    """Few rows have more digits than the others."""
    PADDING = "PADDING"
    """Spaces around values were removed."""
    INFINITE = "INFINITE"
    """Infinite numbers became missing or were clipped."""


@dataclass(frozen=True)
class Notice:
    """One decision.

    Attributes:
        code: Its kind.
        column: The column concerned; empty for the table.
        message: What was decided and why.
        flag: Option of the command that decides otherwise; empty if none does.
        rows: Number of rows concerned; 0 if all are.
    """

    code: NoticeCode
    column: str
    message: str
    flag: str = ""
    rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the notice as JSON values."""
        return {**asdict(self), "code": str(self.code)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the notice that `to_json` wrote."""
        return cls(**{**body, "code": NoticeCode(body["code"])})


def column_flag(name: str, kind: str) -> str:
    """Return the option of the command that declares a column's kind, quoted for a shell.

    Args:
        name: The column.
        kind: Its kind, and maybe its form after a colon.
    """
    quoted = name if _BARE.fullmatch(name) else '"' + name.replace('"', '""') + '"'
    return f"--column {shlex.quote(f'{quoted}={kind}')}"


def key_flag(name: str) -> str:
    """Return the option of the command that declares the primary key, quoted for a shell."""
    return f"--primary-key {shlex.quote(name)}"


class Notices:
    """The notices of a table, in the order in which they were added; bounded."""

    def __init__(self) -> None:
        self._notices: dict[tuple[NoticeCode, str, str], Notice] = {}
        self._of_column: dict[str, int] = {}

    def add(self, notice: Notice) -> None:
        """Add a notice; rows of equal notices are added up, and those past the bounds are dropped."""
        key = (notice.code, notice.column, notice.message)
        known = self._notices.get(key)
        if known is not None:
            self._notices[key] = replace(known, rows=known.rows + notice.rows)
            return
        count = self._of_column.get(notice.column, 0)
        if len(self._notices) >= MAX_NOTICES or (notice.column and count >= MAX_COLUMN_NOTICES):
            return
        self._of_column[notice.column] = count + 1
        self._notices[key] = notice

    def extend(self, notices: Iterable[Notice]) -> None:
        """Add several."""
        for notice in notices:
            self.add(notice)

    def all(self) -> tuple[Notice, ...]:
        """Return them."""
        return tuple(self._notices.values())


@dataclass(frozen=True)
class Finding:
    """What was found of one column.

    Attributes:
        column: Its name.
        why: Why it has its kind, type and form.
        flag: Option of the command that decides otherwise; empty if none does.
        missing: Number of missing cells.
        distinct: Number of distinct values.
        distinct_exact: Whether `distinct` is exact, not only a lower bound.
    """

    column: str
    why: str
    flag: str
    missing: int
    distinct: int
    distinct_exact: bool

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the finding that `to_json` wrote."""
        return cls(**body)
