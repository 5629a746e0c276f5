"""What the texts of a column say about it as a column of moments: counts that can be added in any order."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowmint.schema.forms import NameCase, ZoneStyle
from rowmint.schema.forms.moment_layouts import COMPACT_DAY, MomentLayout, moment_layouts, pattern_layout
from trainer_service.datasets.datetimes import Moments
from trainer_service.datasets.shapes import ShapeGroup

MAX_CLOCKS = 32
"""Ways of writing the clock in one column, from which on it is text."""
_PADDED = "md12H"


class Clock(NamedTuple):
    """How the clock of a moment is written; all empty for a day.

    Attributes:
        template: Its template, from `MomentLayout.clock`.
        fraction: Digits of the fraction.
        zone: How the offset is written.
        halves: Whether it has halves of the day.
        lower_half: Whether those are in lower case.
    """

    template: str
    fraction: int
    zone: ZoneStyle
    halves: bool
    lower_half: bool


@dataclass
class MomentFacts:
    """Counts of rows, of texts with one template of the day.

    Attributes:
        clocks: Rows by how the clock is written.
        zero_clocks: Rows by that whose clock is midnight.
        zero_seconds: Rows by that whose seconds and fraction are 0.
        zero_fractions: Rows by that whose fraction is 0.
        round_fractions: Rows whose fraction ends in 0.
        fine: Rows with digits past the microsecond other than 0.
        unpadded: Rows by field that has one digit.
        padded: Rows by field that begins with 0.
        months: Rows by whether the month's name is written out; May counts as neither.
        days: Rows by whether the day's name is written out.
        sept: Rows whose month is Sept.
        other_days: Rows with the name of another day than theirs.
        names: Rows by case of names.
        offsets: Rows by offset from UTC in minutes.
        day_first: Rows that are moments only if the day precedes the month.
        month_first: Rows that are moments only if the month precedes the day.
        seen: The values of the two fields before the year, a bit each.
    """

    clocks: Counter[Clock] = field(default_factory=Counter)
    zero_clocks: Counter[Clock] = field(default_factory=Counter)
    zero_seconds: Counter[Clock] = field(default_factory=Counter)
    zero_fractions: Counter[Clock] = field(default_factory=Counter)
    round_fractions: int = 0
    fine: int = 0
    unpadded: Counter[str] = field(default_factory=Counter)
    padded: Counter[str] = field(default_factory=Counter)
    months: Counter[bool] = field(default_factory=Counter)
    days: Counter[bool] = field(default_factory=Counter)
    sept: int = 0
    other_days: int = 0
    names: Counter[NameCase] = field(default_factory=Counter)
    offsets: Counter[int] = field(default_factory=Counter)
    day_first: int = 0
    month_first: int = 0
    seen: tuple[int, int] = (0, 0)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.clocks.total()

    def add(self, layout: MomentLayout, group: ShapeGroup, weights: NDArray[np.int64]) -> bool:
        """Count the texts of a shape.

        Args:
            layout: How they are read.
            group: The texts.
            weights: Rows of each, shape (n,).

        Returns:
            Whether all of them are moments.
        """
        moments, rows = Moments(group, layout), int(weights.sum())
        if "1" in layout.spans:
            by_day, by_month = moments.micros(day_first=True)[1], moments.micros(day_first=False)[1]
            valid = bool((by_day | by_month).all())
            self.day_first += int(weights[~by_month].sum())
            self.month_first += int(weights[~by_day].sum())
            first, second = (int(np.bitwise_or.reduce(np.int64(1) << moments.field(name).clip(0, 32))) for name in "12")
            self.seen = (self.seen[0] | first, self.seen[1] | second)
        else:
            valid = bool(moments.micros()[1].all())
        if not valid:
            return False
        if layout.weekday is not None and {"Y", "y"} & layout.spans.keys() and "1" not in layout.spans:
            self.other_days += int(weights[moments.weekday() != layout.weekday].sum())
        self._add_clock(layout, moments, group, weights, rows)
        self._add_names(layout, rows)
        for name in _PADDED:
            if name in layout.spans:
                begin, end = layout.spans[name]
                if end - begin == 1:
                    self.unpadded[name] += rows
                else:
                    self.padded[name] += int(weights[group.digit(begin) == 0].sum())
        return True

    def _add_clock(
        self, layout: MomentLayout, moments: Moments, group: ShapeGroup, weights: NDArray[np.int64], rows: int
    ) -> None:
        begin, end = layout.spans.get("f", (0, 0))
        clock = Clock(layout.clock, end - begin, layout.zone, layout.afternoon is not None, layout.lower_half)
        self.clocks[clock] += rows
        if "H" in layout.spans:
            micros, _ = moments.clock()
            self.zero_clocks[clock] += int(weights[micros == 0].sum())
            self.zero_seconds[clock] += int(weights[micros % 60_000_000 == 0].sum())
            self.zero_fractions[clock] += int(weights[micros % 1_000_000 == 0].sum())
        if end > begin:
            self.round_fractions += int(weights[group.digit(end - 1) == 0].sum())
            self.fine += int(weights[~group.zeros(tuple(range(begin + 6, end)))].sum())
        if "z" in layout.spans:
            minutes, _ = moments.offset()
            values, places = np.unique(minutes, return_inverse=True)
            for value, count in zip(values.tolist(), np.bincount(places, weights).astype(int).tolist(), strict=True):
                self.offsets[value] += count
        elif layout.zone is not ZoneStyle.NONE:
            self.offsets[0] += rows

    def _add_names(self, layout: MomentLayout, rows: int) -> None:
        if layout.names is not None:
            self.names[layout.names] += rows
        if layout.name_width and layout.month != 5:
            sept = layout.month == 9 and layout.name_width == 4
            self.months[layout.name_width > 3 and not sept] += rows
            self.sept += rows if sept else 0
        if layout.day_width:
            self.days[layout.day_width > 3] += rows


class MomentState:
    """Which templates of the day all texts of a column agree with, and the facts under each.

    Args:
        pattern: A declared pattern, which is the only template; empty: all that are recognised.
        compact: Whether eight digits may be a day.
        lenient: Whether texts that are no moment are passed over: the column is declared, and they are errors.

    Attributes:
        facts: By template; without one the column is not days, times or moments.
        passed_over: Rows that are no moment, if lenient.
    """

    def __init__(self, pattern: str, *, compact: bool, lenient: bool) -> None:
        self._pattern = pattern
        self._compact = compact
        self._lenient = lenient
        self._dead = False
        self.passed_over = 0
        self.facts: dict[str, MomentFacts] = {}

    @property
    def alive(self) -> bool:
        """Whether a template is left."""
        return not self._dead

    def add(self, group: ShapeGroup, weights: NDArray[np.int64]) -> None:
        """Take in the texts of one shape; `weights` are rows of each, shape (n,)."""
        if self._dead:
            return
        fresh, kept = not self.facts, {}
        for layout in self._layouts(group.shape):
            facts = MomentFacts() if fresh else self.facts.get(layout.date)
            if facts is not None and facts.add(layout, group, weights) and len(facts.clocks) <= MAX_CLOCKS:
                kept[layout.date] = facts
        if not kept and self._lenient:
            self.passed_over += int(weights.sum())
            return
        self.facts, self._dead = kept, not kept

    def _layouts(self, shape: str) -> tuple[MomentLayout, ...]:
        if self._pattern:
            layout = pattern_layout(self._pattern, shape)
            return () if layout is None else (layout,)
        found = moment_layouts(shape)
        if self._compact:
            return found
        return tuple(layout for layout in found if (layout.date, layout.clock) != (COMPACT_DAY, ""))
