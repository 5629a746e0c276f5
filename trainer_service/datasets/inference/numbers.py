"""What the texts of a column say about it as a column of numbers: counts that can be added in any order."""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rowmint.schema.forms import Grouping, NegativeStyle
from rowmint.schema.forms.number_layouts import SEPARATORS, NumberLayout, Separators, number_layouts
from trainer_service.datasets.column_types import EXACT_DOUBLE
from trainer_service.datasets.shapes import ShapeGroup

NOT_A_NUMBER = ("NaN", "nan", "NAN")
INFINITY = tuple(f"{sign}{word}" for sign in ("", "+", "-") for word in ("inf", "Inf", "INF", "Infinity", "infinity"))

MAX_VARIANTS = 16
PRINTED_FROM, PRINTED_BELOW = 1e-4, 1e16
"""Numbers that a float prints without an exponent."""
_PRINTED_ZEROS = 4
_WORDS = frozenset([*NOT_A_NUMBER, *INFINITY])
_EXACT_DIGITS = 15
_INT64_HEAD, _INT64_TAIL = divmod(2**63, 10**9)


@dataclass
class NumberFacts:
    """Counts of rows, of texts that are read with the same separators.

    Attributes:
        rows: All.
        whole: Rows without a point and an exponent.
        fractions: Rows by digits of the fraction and whether the last of them is 0; without exponents.
        digits: Fewest and most digits before the point.
        leading_zeros: Rows with a 0 before other digits.
        affixes: Rows by prefix and suffix.
        negatives: Rows by how they say that they are below 0.
        signs_after_prefix: Rows with a sign between prefix or suffix and the digits.
        signs_before_prefix: Rows with a sign outside them.
        plus: Rows above 0 with a plus sign.
        plus_zeros: Rows of 0 with one.
        bare: Rows above 0 without a sign.
        bare_zeros: Rows of 0 without one.
        grouped: Rows with groups.
        ungrouped: Rows of at least five digits without groups.
        groupings: Ways of grouping that all groups fit.
        exponents: Rows by whether the exponent is in upper case, its digits, and its sign.
        padded: Rows by digits of an exponent that begins with 0.
        unscaled: Rows with an exponent and not just one digit before the point, other than 0; of 0, with one but 0.
        factors: Rows with an exponent by digits of the fraction before it and whether the last of them is 0.
        codes: Rows with an exponent without signs, after at least two digits without a point.
        pointed: Rows with an exponent and a point or a sign.
        leading_points: Rows that begin with the point.
        bare_points: Rows that end with it.
        tiny: Rows without an exponent of numbers that a float prints with one, as they are so small.
        needless: Rows with an exponent of numbers that a float prints without one.
        minus_zeros: Rows of 0 that say that they are below it.
        zero_points: Rows with the single digit 0 before the point.
        beyond_int64: Rows of integers beyond 64 bits.
        beyond_exact: Rows of integers that a double may not hold exactly.
        lossy: Rows of fractions of which a double loses digits.
        largest: About the largest number of more digits than a double always holds, without its sign.
    """

    rows: int = 0
    whole: int = 0
    fractions: Counter[tuple[int, bool]] = field(default_factory=Counter)
    digits: tuple[int, int] = (99, 0)
    leading_zeros: int = 0
    affixes: Counter[tuple[str, str]] = field(default_factory=Counter)
    negatives: Counter[NegativeStyle] = field(default_factory=Counter)
    signs_after_prefix: int = 0
    signs_before_prefix: int = 0
    plus: int = 0
    plus_zeros: int = 0
    bare: int = 0
    bare_zeros: int = 0
    grouped: int = 0
    ungrouped: int = 0
    groupings: frozenset[Grouping] = frozenset(Grouping)
    exponents: Counter[tuple[bool, int, str]] = field(default_factory=Counter)
    padded: Counter[int] = field(default_factory=Counter)
    unscaled: int = 0
    factors: Counter[tuple[int, bool]] = field(default_factory=Counter)
    codes: int = 0
    pointed: int = 0
    leading_points: int = 0
    bare_points: int = 0
    tiny: int = 0
    needless: int = 0
    minus_zeros: int = 0
    zero_points: int = 0
    beyond_int64: int = 0
    beyond_exact: int = 0
    lossy: int = 0
    largest: float = 0.0

    def merge(self, other: "NumberFacts") -> None:
        """Add the counts of other rows."""
        for name, value in vars(other).items():
            match value:
                case Counter():
                    getattr(self, name).update(value)
                case tuple():
                    self.digits = (min(self.digits[0], value[0]), max(self.digits[1], value[1]))
                case float():
                    self.largest = max(self.largest, value)
                case frozenset():
                    self.groupings &= value
                case _:
                    setattr(self, name, getattr(self, name) + value)

    def add(self, layout: NumberLayout, group: ShapeGroup, weights: NDArray[np.int64]) -> None:
        """Count the texts of a shape.

        Args:
            layout: How they are read.
            group: The texts.
            weights: Rows of each, shape (n,).
        """
        rows = int(weights.sum())
        self.rows += rows
        if len(self.affixes) <= MAX_VARIANTS:
            self.affixes[layout.prefix, layout.suffix] += rows
        self.digits = (min(self.digits[0], len(layout.whole)), max(self.digits[1], len(layout.whole)))
        self._add_sign(layout, group, weights, rows)
        self._add_groups(layout, rows)
        if len(layout.whole) > 1:
            self.leading_zeros += int(weights[group.digit(layout.whole[0]) == 0].sum())
        if layout.exponent:
            self._add_exponent(layout, group, weights, rows)
            _count_fraction(self.factors, layout, group, weights)
        else:
            self._add_fraction(layout, group, weights, rows)
        self._add_size(layout, group, weights)

    def _add_sign(self, layout: NumberLayout, group: ShapeGroup, weights: NDArray[np.int64], rows: int) -> None:
        if layout.negative is not None:
            self.negatives[layout.negative] += rows
        zeros = int(weights[group.zeros(layout.whole + layout.fraction)].sum())
        self.minus_zeros += zeros if layout.negative is not None else 0
        if layout.plus:
            self.plus += rows - zeros
            self.plus_zeros += zeros
        elif layout.negative is None:
            self.bare += rows - zeros
            self.bare_zeros += zeros
        if _shows_order(layout):
            self.signs_after_prefix += rows if layout.sign_after_prefix else 0
            self.signs_before_prefix += 0 if layout.sign_after_prefix else rows

    def _add_groups(self, layout: NumberLayout, rows: int) -> None:
        if layout.group:
            self.grouped += rows
            self.groupings &= layout.groupings
        elif len(layout.whole) > 4:
            self.ungrouped += rows

    def _add_exponent(self, layout: NumberLayout, group: ShapeGroup, weights: NDArray[np.int64], rows: int) -> None:
        self.exponents[layout.exponent_upper, len(layout.exponent), layout.exponent_sign] += rows
        self.padded[len(layout.exponent)] += int(weights[group.digit(layout.exponent[0]) == 0].sum())
        if len(layout.whole) != 1 or layout.point != bool(layout.fraction):
            self.unscaled += rows
        else:
            zero_head, zero = group.zeros(layout.whole), group.zeros(layout.whole + layout.fraction)
            other = (zero_head & ~zero) | (zero & ~group.zeros(layout.exponent))
            self.unscaled += int(weights[other].sum())
        signed = bool(layout.exponent_sign) or layout.plus or layout.negative is not None
        if layout.point or signed:
            self.pointed += rows
        if not layout.point and not layout.exponent_sign and len(layout.whole) > 1:
            self.codes += rows
        magnitudes = np.abs(group.spelled(plain(layout, group.shape)).cast(pa.float64()).to_numpy())
        ordinary = (magnitudes == 0) | ((magnitudes >= PRINTED_FROM) & (magnitudes < PRINTED_BELOW))
        self.needless += int(weights[ordinary].sum())

    def _add_fraction(self, layout: NumberLayout, group: ShapeGroup, weights: NDArray[np.int64], rows: int) -> None:
        if not layout.point:
            self.whole += rows
        _count_fraction(self.fractions, layout, group, weights)
        if layout.fraction:
            self.leading_points += 0 if layout.whole else rows
            first = layout.fraction[:_PRINTED_ZEROS]
            small = group.zeros(layout.whole + first) & ~group.zeros(layout.fraction)
            self.tiny += int(weights[small].sum())
            if len(layout.whole) == 1:
                self.zero_points += int(weights[group.digit(layout.whole[0]) == 0].sum())
        elif layout.point:
            self.bare_points += rows

    def _add_size(self, layout: NumberLayout, group: ShapeGroup, weights: NDArray[np.int64]) -> None:
        """Count the numbers that are too large, or have too many digits."""
        digits = layout.whole + layout.fraction
        if len(digits) <= _EXACT_DIGITS:
            return
        texts = group.spelled(plain(layout, group.shape))
        numbers = texts.cast(pa.float64())
        self.largest = max(self.largest, float(np.abs(numbers.to_numpy()).max()))
        if layout.point or layout.exponent:
            self.lossy += int(weights[_loses_digits(texts, numbers)].sum())
            return
        head, tail = group.number(digits[:-9][-18:]), group.number(digits[-9:])
        huge = ~group.zeros(digits[:-18]) & (len(digits) > 18) if len(digits) > 19 else np.zeros(len(group), np.bool_)
        edge = _INT64_TAIL + (layout.negative is not None)
        outside = huge | (head > _INT64_HEAD) | ((head == _INT64_HEAD) & (tail >= edge))
        self.beyond_int64 += int(weights[outside].sum())
        exact_head, exact_tail = divmod(EXACT_DOUBLE, 10**9)
        inexact = outside | (head > exact_head) | ((head == exact_head) & (tail > exact_tail))
        self.beyond_exact += int(weights[inexact].sum())


def _count_fraction(
    counts: Counter[tuple[int, bool]], layout: NumberLayout, group: ShapeGroup, weights: NDArray[np.int64]
) -> None:
    """Count rows by digits of the fraction and whether the last of them is 0."""
    trailing = int(weights[group.digit(layout.fraction[-1]) == 0].sum()) if layout.fraction else 0
    for ends_in_zero, rows in ((True, trailing), (False, int(weights.sum()) - trailing)):
        if rows:
            counts[len(layout.fraction), ends_in_zero] += rows


def _shows_order(layout: NumberLayout) -> bool:
    """Return whether a sign stands on the side of a prefix or suffix, so that it is inside or outside."""
    match layout.negative:
        case NegativeStyle.PARENTHESES:
            return bool(layout.prefix or layout.suffix)
        case NegativeStyle.TRAILING_MINUS | NegativeStyle.CREDIT:
            return bool(layout.suffix)
        case None:
            return layout.plus and bool(layout.prefix)
        case _:
            return bool(layout.prefix)


def _loses_digits(texts: pa.Array, numbers: pa.Array) -> NDArray[np.bool_]:
    """Return which of the texts are not the shortest decimal of the double nearest to them, shape (n,)."""
    unequal = pc.invert(pc.equal(numbers.cast(pa.string()), texts))
    found = np.array(unequal.to_numpy(zero_copy_only=False), np.bool_)
    for index in np.flatnonzero(found):
        # Arrow may write it otherwise: with an exponent, or without the zeros at its end.
        number = numbers[int(index)].as_py()
        found[index] = np.isfinite(number) and Decimal(repr(number)) != Decimal(texts[int(index)].as_py())
    return found


def plain(layout: NumberLayout, shape: str) -> list[int | str]:
    """Return what writes the numbers of a layout plainly, such as -1234.5e-3, for `ShapeGroup.spelled`."""
    pieces: list[int | str] = ["-"] if layout.negative is not None else []
    pieces += layout.whole or ["0"]
    if layout.fraction:
        pieces += [".", *layout.fraction]
    if layout.exponent:
        pieces += ["e", *shape[layout.exponent[0] - len(layout.exponent_sign) : layout.exponent[0]], *layout.exponent]
    return pieces


class NumberState:
    """Which separators all texts of a column agree with, and the facts under each.

    Args:
        lenient: Whether texts that are no number are passed over: the column is declared numbers, and they are errors.

    Attributes:
        separators: The pairs of separators under which every text is a number; without one the column is not numbers.
        words: Rows that are not a number or infinite.
        passed_over: Rows that are no number, if lenient.
    """

    def __init__(self, *, lenient: bool) -> None:
        self._lenient = lenient
        self.separators: frozenset[Separators] = SEPARATORS
        self.words = 0
        self.passed_over = 0
        self._facts: dict[frozenset[Separators], NumberFacts] = {}

    def add(self, group: ShapeGroup, weights: NDArray[np.int64]) -> None:
        """Take in the texts of one shape; `weights` are rows of each, shape (n,)."""
        if group.shape in _WORDS:
            self.words += int(weights.sum())
            return
        layouts = number_layouts(group.shape)
        if not layouts and self._lenient:
            self.passed_over += int(weights.sum())
            return
        # No first group begins with 0: in 0,125 the comma separates the fraction.
        likely = [layout for layout in layouts if not (layout.group and (group.digit(layout.whole[0]) == 0).any())]
        layouts = tuple(likely) or layouts
        self.separators &= frozenset().union(*(layout.separators for layout in layouts))
        for key in [key for key in self._facts if not key & self.separators]:
            del self._facts[key]
        for layout in layouts:
            if layout.separators & self.separators:
                self._facts.setdefault(layout.separators, NumberFacts()).add(layout, group, weights)

    @property
    def ambiguous(self) -> bool:
        """Whether some text is another number with another decimal separator."""
        return len({pair.decimal for pair in self.separators}) > 1 and any(
            len({pair.decimal for pair in key}) == 1 for key in self._facts
        )

    @property
    def decimal(self) -> str:
        """The decimal separator that the texts leave no choice about; empty if they do."""
        decimals = {pair.decimal for pair in self.separators}
        return decimals.pop() if len(decimals) == 1 else ""

    def facts(self, separators: Separators) -> NumberFacts:
        """Return the facts under a pair of separators."""
        total = NumberFacts()
        for key, facts in self._facts.items():
            if separators in key:
                total.merge(facts)
        return total
