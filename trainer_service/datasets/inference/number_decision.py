"""From counts of numbers to the type of a column and the form its numbers are written in."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from rowmint.schema import DataType
from rowmint.schema.forms import ExponentStyle, Grouping, NegativeStyle, NumberForm, PlusSign, WrittenForm
from rowmint.schema.forms.number_layouts import Separators
from rowmint.schema.forms.validation import MAX_EXPONENT_DIGITS, MAX_FRACTION_DIGITS
from trainer_service.datasets.column_types import MAX_DECIMALS, MAX_SCALE
from trainer_service.datasets.inference.decision import ColumnNotices, Decision, Evidence
from trainer_service.datasets.inference.numbers import NumberFacts, NumberState
from trainer_service.datasets.notices import NoticeCode
from trainer_service.datasets.target import Target

_ID_SEPARATORS = (" ", "\u00a0", "\u202f", ".", "_")
_ID_DIGITS = 7
_ENOUGH = 20
_OUTLIER_ROWS = 1000
_OUTLIER_SHARE = 0.001
_UNITS = 0.99 * 2**63
"""Units of the last digit of a decimal that 64 bits hold, with some left for rounding."""
_SHORT = 4
"""Digits of integers whose plus sign is not that of a phone number; fraction digits that never need an exponent."""


@dataclass(frozen=True)
class Request:
    """What is declared of a column that may be numbers.

    Attributes:
        form: Its form; None if it is to be found.
        data_type: Its type; None if it is to be found.
        numerical: Whether it is numbers in any case, not text such as codes.
    """

    form: NumberForm | None
    data_type: DataType | None
    numerical: bool


def decide_number(name: str, state: NumberState, evidence: Evidence, request: Request) -> Decision:
    """Return the type of a column whose texts are all numbers.

    Args:
        name: The column.
        state: Its counts.
        evidence: What the format and other columns say.
        request: What is declared.
    """
    notices = ColumnNotices(name)
    separators = _separators(state, evidence, request.form, notices)
    if separators is None:
        return Decision(None)
    facts = state.facts(separators)
    known = request.numerical or request.form is not None
    if not facts.rows or (not known and _is_text(facts, separators, notices)):
        return Decision(None, notices.all())
    return Decision(_target(facts, state.words + state.passed_over, separators, request, notices), notices.all())


def _separators(
    state: NumberState, evidence: Evidence, declared: NumberForm | None, notices: ColumnNotices
) -> Separators | None:
    """Return the separators of the column; None if none fit."""
    possible, hints = state.separators, evidence.hints
    group = hints.group_separator if declared is None else declared.group_separator or None
    if group is not None:
        possible = frozenset(
            pair for pair in possible if (pair.group == group if group else not state.facts(pair).grouped)
        )
    chosen = hints.decimal if declared is None else declared.decimal_separator
    undecided = len({pair.decimal for pair in possible}) > 1
    if undecided and not chosen and state.ambiguous:
        chosen = evidence.decimal or ("," if hints.delimiter == ";" else ".")
        other = "," if chosen == "." else "."
        notices.add(
            NoticeCode.DECIMAL_COMMA,
            f"before three digits, {other!r} was taken to separate groups and {chosen!r} a fraction; no value says so",
            f"--decimal '{other}'",
        )
    if chosen and (declared is not None or undecided):
        possible = frozenset(pair for pair in possible if pair.decimal == chosen)
    # Pairs that all fit differ in separators that the column does not have.
    return min(possible, key=lambda pair: (pair.decimal != ".", pair.group != ",", pair.group), default=None)


def _is_text(facts: NumberFacts, separators: Separators, notices: ColumnNotices) -> bool:
    """Return whether numbers are better left as text, whose digits keep their places."""
    numerical = notices.as_kind("numerical")
    affixes = {(prefix.strip(), suffix.strip()) for prefix, suffix in facts.affixes}
    bare = affixes == {("", "")}
    if facts.leading_zeros:
        notices.add(NoticeCode.LEADING_ZEROS, "digits with leading zeros are text", numerical, facts.leading_zeros)
        return True
    if len(affixes - {("", "")}) > 1:
        shown = ", ".join(sorted(f"{prefix}0{suffix}" for prefix, suffix in affixes))
        notices.add(NoticeCode.MIXED_FORMS, f"numbers of several units or currencies are text: {shown}")
        return True
    zeros = facts.bare_zeros + facts.plus_zeros
    small = bool(facts.negatives) or zeros or facts.whole < facts.rows or facts.digits[0] <= _SHORT
    if bare and facts.plus and not small:
        message = "digits after a plus sign are text, as in phone numbers: none is 0, negative or short"
        notices.add(NoticeCode.LEADING_ZEROS, message, numerical, facts.plus)
        return True
    only_codes = facts.exponents.total() + facts.whole == facts.rows and not facts.pointed and not facts.negatives
    if facts.codes or (facts.exponents and only_codes):
        message = "digits with an e or E among them and neither point nor sign are text, as in codes"
        notices.add(NoticeCode.MIXED_FORMS, message, numerical, facts.exponents.total())
        return True
    same_width = facts.rows >= _ENOUGH and _ID_DIGITS <= facts.digits[0] == facts.digits[1]
    unsigned = bare and not facts.negatives and facts.grouped == facts.whole == facts.rows
    return unsigned and same_width and separators.group in _ID_SEPARATORS


def _target(
    facts: NumberFacts, others: int, separators: Separators, request: Request, notices: ColumnNotices
) -> Target | None:
    """Return the target; None if no numeric type holds the numbers."""
    scale = max((digits for digits, _ in facts.fractions), default=0)
    decimals = scale if scale <= MAX_DECIMALS else None
    if request.data_type is not None:
        data_type = request.data_type
    elif facts.whole == facts.rows and not others:
        if facts.beyond_int64 and not request.numerical:
            message = "integers beyond 64 bits are kept as text, digit by digit"
            notices.add(NoticeCode.BEYOND_INT64, message, rows=facts.beyond_int64)
            return None
        data_type = DataType.DOUBLE if facts.beyond_int64 else DataType.INT64
    elif not facts.lossy and not facts.beyond_exact:
        data_type = DataType.DOUBLE
    elif not facts.exponents and not others and scale <= MAX_SCALE and facts.largest * 10**scale < _UNITS:
        data_type, decimals = DataType.DECIMAL, scale
    elif facts.beyond_exact and not request.numerical:
        return None
    else:
        data_type = DataType.DOUBLE
        message = "digits beyond those that a double holds were dropped"
        notices.add(NoticeCode.DIGITS_DROPPED, message, notices.as_kind("categorical"), facts.lossy)
    form = _form(facts, data_type, decimals, separators, notices) if request.form is None else request.form
    if request.form is None:
        _note_respelled(facts, form, notices)
    _note_rounding(facts, notices)
    canonical = NumberForm(minimum_fraction_digits=decimals if data_type is DataType.DECIMAL else None)
    plain = form in (NumberForm(), canonical)
    return Target(
        data_type,
        WrittenForm() if plain else WrittenForm(form),
        decimals=None if data_type is DataType.INT64 else decimals,
        learned=data_type is DataType.DOUBLE and bool(facts.exponents),
        decimal=separators.decimal,
        group=separators.group,
        why=f"every value is {'an integer' if data_type is DataType.INT64 else 'a number'}"
        + ("" if plain else ", written in a form of its own"),
    )


def _form(
    facts: NumberFacts, data_type: DataType, decimals: int | None, separators: Separators, notices: ColumnNotices
) -> NumberForm:
    """Return the form of most rows."""
    prefix, suffix = notices.commonest(facts.affixes, lambda affix: f"{affix[0]}0{affix[1]}")
    negative = NegativeStyle.MINUS
    if facts.negatives:
        negative = notices.commonest(facts.negatives, str)
    grouping = _grouping(facts, notices)
    has_point = facts.whole < facts.rows - facts.exponents.total() or separators.group == "." == separators.decimal
    return NumberForm(
        prefix=prefix,
        suffix=suffix,
        grouping=grouping,
        group_separator=separators.group if grouping is not Grouping.NONE else "",
        decimal_separator=separators.decimal if has_point or grouping is not Grouping.NONE else ".",
        minimum_fraction_digits=_fewest_digits(facts, data_type, decimals, notices),
        plus=_plus(facts, notices),
        negative=negative,
        sign_after_prefix=facts.signs_after_prefix > facts.signs_before_prefix,
        leading_point=facts.leading_points > facts.zero_points,
        **_exponent(facts, data_type, decimals),
    )


def _grouping(facts: NumberFacts, notices: ColumnNotices) -> Grouping:
    if not facts.grouped:
        return Grouping.NONE
    fits = [grouping for grouping in Grouping if grouping in facts.groupings and grouping is not Grouping.NONE]
    counts = Counter({True: facts.grouped})
    if facts.ungrouped:
        counts[False] = facts.ungrouped
    grouped = notices.commonest(counts, lambda is_grouped: "with groups" if is_grouped else "without groups")
    return fits[0] if grouped and fits else Grouping.NONE


def _fewest_digits(facts: NumberFacts, data_type: DataType, decimals: int | None, notices: ColumnNotices) -> int | None:
    """Return the fewest digits of the fraction that agree with most rows.

    With m of them, a number has exactly m, or more of which the last is not 0.
    """
    fractions = facts.fractions or facts.factors
    if data_type is DataType.INT64 or not fractions:
        return None
    lengths = {digits for digits, _ in fractions}
    usual = decimals or 0 if data_type is DataType.DECIMAL else 1
    total = fractions.total()
    if len(lengths) == 1 and total >= _ENOUGH and max(lengths) <= MAX_DECIMALS:
        best = max(lengths)
    else:

        def agreeing(fewest: int) -> int:
            return sum(
                rows
                for (digits, round_), rows in fractions.items()
                if digits == fewest or (digits > fewest and not round_)
            )

        best = min(lengths | {usual}, key=lambda fewest: (-agreeing(fewest), fewest != usual, fewest))
        if agreeing(best) < total:
            spread = f"{min(lengths)} to {max(lengths)} digits"
            message = f"fractions have {spread} and some end in 0; they are written with {best} or as many as needed"
            notices.add(NoticeCode.MIXED_FORMS, message, notices.as_kind("categorical"), total - agreeing(best))
        best = min(best, MAX_FRACTION_DIGITS)
    return None if best == 1 and data_type is DataType.DOUBLE else best


def _plus(facts: NumberFacts, notices: ColumnNotices) -> PlusSign:
    if not facts.plus:
        return PlusSign.NOT_NEGATIVE if facts.plus_zeros and not facts.bare_zeros + facts.bare else PlusSign.NEVER
    counts = Counter({True: facts.plus})
    if facts.bare:
        counts[False] = facts.bare
    if not notices.commonest(counts, lambda plus: "with plus sign" if plus else "without sign"):
        return PlusSign.NEVER
    return PlusSign.NOT_NEGATIVE if facts.plus_zeros > facts.bare_zeros else PlusSign.POSITIVE


def _exponent(facts: NumberFacts, data_type: DataType, decimals: int | None) -> dict[str, Any]:
    """Return the fields of the exponent."""
    if not facts.exponents:
        # Python's repr has an exponent for small numbers on a fine grid, and for large ones.
        fine = decimals is not None and decimals > _SHORT
        plain = fine or facts.tiny or facts.digits[1] > MAX_DECIMALS
        return {"exponent": ExponentStyle.NEVER} if plain and data_type is DataType.DOUBLE else {}
    every = facts.exponents.total() == facts.rows
    signs = {sign for _, _, sign in facts.exponents}
    upper = sum(rows for (is_upper, _, _), rows in facts.exponents.items() if is_upper)
    return {
        "exponent": ExponentStyle.ALWAYS if every else ExponentStyle.SHORTEST,
        "exponent_digits": min(MAX_EXPONENT_DIGITS, *(digits for _, digits, _ in facts.exponents)),
        "exponent_upper": upper * 2 > facts.exponents.total(),
        "exponent_plus": "+" in signs,
    }


def _note_respelled(facts: NumberFacts, form: NumberForm, notices: ColumnNotices) -> None:
    """Report spellings that no form has: the numbers stay what they are."""
    flag = notices.as_kind("categorical")
    if facts.bare_points:
        message = "a point that no digit follows is left out"
        notices.add(NoticeCode.MIXED_FORMS, message, flag, facts.bare_points)
    if facts.minus_zeros:
        notices.add(NoticeCode.MIXED_FORMS, "zero is written without a minus sign", flag, facts.minus_zeros)
    if facts.exponents and not _has_one_exponent(facts, form):
        notices.add(NoticeCode.MIXED_FORMS, "exponents are written in several ways, of which one is used", flag)
    if facts.unscaled:
        message = "numbers with an exponent are written with one digit before the point, other than 0"
        notices.add(NoticeCode.MIXED_FORMS, message, flag, facts.unscaled)
    round_factors = sum(rows for (digits, round_), rows in facts.factors.items() if digits and round_)
    if form.exponent is ExponentStyle.SHORTEST and round_factors:
        notices.add(NoticeCode.MIXED_FORMS, "before an exponent no fraction ends in 0", flag, round_factors)
    other_zeros = facts.bare_zeros if form.plus is PlusSign.NOT_NEGATIVE else facts.plus_zeros
    if other_zeros:
        word = "with" if form.plus is PlusSign.NOT_NEGATIVE else "without"
        notices.add(NoticeCode.MIXED_FORMS, f"zero is written {word} a plus sign", flag, other_zeros)
    if form.exponent is ExponentStyle.SHORTEST and (changed := facts.needless + facts.tiny if facts.exponents else 0):
        message = "only numbers below 0.0001, and those from 10000000000000000 on, are written with an exponent"
        notices.add(NoticeCode.MIXED_FORMS, message, flag, changed)


def _has_one_exponent(facts: NumberFacts, form: NumberForm) -> bool:
    """Return whether all exponents have the case, the plus sign and the fewest digits of the form."""
    cases = {upper for upper, _, _ in facts.exponents}
    signs = {sign for _, _, sign in facts.exponents} - {"-"}
    widths = {digits for digits, rows in facts.padded.items() if rows}
    return len(cases) == 1 and len(signs) <= 1 and widths <= {form.exponent_digits}


def _note_rounding(facts: NumberFacts, notices: ColumnNotices) -> None:
    """Report if few rows have more digits after the point than the others."""
    total = facts.fractions.total() + facts.exponents.total()
    if total < _OUTLIER_ROWS:
        return
    rows = Counter[int]()
    for (digits, _), count in facts.fractions.items():
        rows[digits] += count
    beyond = facts.exponents.total()
    for digits in sorted(rows, reverse=True):
        if beyond + rows[digits] > _OUTLIER_SHARE * total:
            if beyond and beyond <= _OUTLIER_SHARE * total:
                message = f"few rows have more than {digits} digits after the point"
                notices.add(NoticeCode.ROUNDING, message, notices.as_kind(f"numerical::{digits}"), beyond)
            return
        beyond += rows[digits]
