"""What a family of types makes of a column, and what it reports."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.notices import Notice, NoticeCode, column_flag
from trainer_service.datasets.target import Target

_Variant = TypeVar("_Variant")
_MAX_SHOWN = 8


@dataclass(frozen=True)
class Decision:
    """What a column is taken for.

    Attributes:
        target: Its target; None if it is not of this family.
        notices: What to report.
    """

    target: Target | None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What the format and other columns of the table say about a column.

    Attributes:
        hints: What the format says.
        decimal: Decimal separator of other columns; empty if unknown or there are several.
        orders: Whether the day comes before the month, by the separator of days.
    """

    hints: FormatHints
    decimal: str
    orders: Mapping[str, bool]


class ColumnNotices:
    """Collects the notices of one column.

    Args:
        name: The column.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: list[Notice] = []

    def add(self, code: NoticeCode, message: str, flag: str = "", rows: int = 0) -> None:
        """Add one; see `Notice`."""
        self._found.append(Notice(code, self.name, message, flag, rows))

    def as_kind(self, kind: str) -> str:
        """Return the option that declares the column's kind, and maybe form."""
        return column_flag(self.name, kind)

    def all(self) -> tuple[Notice, ...]:
        """Return them in order."""
        return tuple(self._found)

    def commonest(self, counts: Counter[_Variant], shown: Callable[[_Variant], str]) -> _Variant:
        """Return the variant of most rows, and report if there are others.

        Args:
            counts: Rows by variant, at least one.
            shown: Returns what reports call a variant; of equally common ones the first by it is chosen.
        """
        order = sorted(counts, key=lambda variant: (-counts[variant], shown(variant)))
        if len(order) > 1:
            listed = ", ".join(f"{shown(variant)} ({counts[variant]} rows)" for variant in order[:_MAX_SHOWN])
            more = f" and {len(order) - _MAX_SHOWN} more" if len(order) > _MAX_SHOWN else ""
            self.add(
                NoticeCode.MIXED_FORMS,
                f"values are written in several ways, of which the first is used: {listed}{more}",
                self.as_kind("categorical"),
                counts.total() - counts[order[0]],
            )
        return order[0]
