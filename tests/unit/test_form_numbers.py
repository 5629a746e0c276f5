"""Numbers in their written form: a table of spellings, and every form reads back what it writes."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.schema.forms import ExponentStyle, Grouping, NegativeStyle, NumberForm, PlusSign
from rowmint.schema.forms.numbers import number_text, read_number

COMMA = NumberForm(grouping=Grouping.THOUSANDS, group_separator=",")
GERMAN = NumberForm(grouping=Grouping.THOUSANDS, group_separator=".", decimal_separator=",")
SWISS = NumberForm(grouping=Grouping.THOUSANDS, group_separator="\N{RIGHT SINGLE QUOTATION MARK}")


@pytest.mark.parametrize(
    ("number", "form", "text"),
    [
        (5786.95, NumberForm(prefix="$", grouping=Grouping.THOUSANDS, group_separator=","), "$5,786.95"),
        (58.1, NumberForm(suffix="%"), "58.1%"),
        (2.0, NumberForm(minimum_fraction_digits=2), "2.00"),
        (2.0, NumberForm(minimum_fraction_digits=0), "2"),
        (2.0, NumberForm(), "2.0"),
        (2, NumberForm(), "2"),
        (Decimal("12.50"), NumberForm(), "12.5"),
        (Decimal("12.50"), NumberForm(minimum_fraction_digits=2), "12.50"),
        (12.345, NumberForm(minimum_fraction_digits=2), "12.345"),
        (-33.0, NumberForm(negative=NegativeStyle.PARENTHESES, minimum_fraction_digits=2), "(33.00)"),
        (-33.0, NumberForm(prefix="$", negative=NegativeStyle.PARENTHESES), "($33.0)"),
        (-33.0, NumberForm(prefix="$", negative=NegativeStyle.PARENTHESES, sign_after_prefix=True), "$(33.0)"),
        (-12, NumberForm(negative=NegativeStyle.TRAILING_MINUS), "12-"),
        (-12, NumberForm(suffix=" kg", negative=NegativeStyle.TRAILING_MINUS, sign_after_prefix=True), "12- kg"),
        (-12, NumberForm(negative=NegativeStyle.CREDIT, minimum_fraction_digits=2), "12.00CR"),
        (-12, NumberForm(negative=NegativeStyle.UNICODE_MINUS), "\N{MINUS SIGN}12"),
        (-5, NumberForm(prefix="$"), "-$5"),
        (-5, NumberForm(prefix="$", sign_after_prefix=True), "$-5"),
        (5, NumberForm(plus=PlusSign.POSITIVE), "+5"),
        (0, NumberForm(plus=PlusSign.POSITIVE), "0"),
        (0, NumberForm(plus=PlusSign.NOT_NEGATIVE), "+0"),
        (-0.0, NumberForm(negative=NegativeStyle.PARENTHESES), "0.0"),
        (123, COMMA, "123"),
        (1234, COMMA, "1,234"),
        (-1234567, COMMA, "-1,234,567"),
        (1234567.5, GERMAN, "1.234.567,5"),
        (1234567.5, SWISS, "1\N{RIGHT SINGLE QUOTATION MARK}234\N{RIGHT SINGLE QUOTATION MARK}567.5"),
        (123456789, NumberForm(grouping=Grouping.INDIAN, group_separator=","), "12,34,56,789"),
        (123456789, NumberForm(grouping=Grouping.MYRIAD, group_separator=","), "1,2345,6789"),
        (7, NumberForm(minimum_integer_digits=4), "0007"),
        (-7, NumberForm(minimum_integer_digits=4), "-0007"),
        (0.5, NumberForm(leading_point=True), ".5"),
        (0.0, NumberForm(leading_point=True, minimum_fraction_digits=0), "0"),
        (1.5e-07, NumberForm(), "1.5e-07"),
        (1e16, NumberForm(exponent_plus=True), "1e+16"),
        (1e16, NumberForm(exponent=ExponentStyle.NEVER, minimum_fraction_digits=0), "10000000000000000"),
        (1.5e-07, NumberForm(exponent=ExponentStyle.NEVER), "0.00000015"),
        (100000.0, NumberForm(exponent=ExponentStyle.ALWAYS, exponent_upper=True, exponent_digits=1), "1E5"),
        (0.0, NumberForm(exponent=ExponentStyle.ALWAYS, minimum_fraction_digits=2), "0.00e00"),
        (Decimal(12345678901234567890123456789012345678), NumberForm(), "12345678901234567890123456789012345678"),
    ],
)
def test_a_number_in_a_form_and_back(number: float | Decimal, form: NumberForm, text: str) -> None:
    assert number_text(number, form) == text
    assert read_number(text, form) == Decimal(repr(number) if isinstance(number, float) else number)


@pytest.mark.parametrize(
    ("text", "form", "number"),
    [
        ("5786.95", NumberForm(prefix="$", grouping=Grouping.THOUSANDS, group_separator=","), "5786.95"),
        ("$ 5,786", NumberForm(prefix="$", grouping=Grouping.THOUSANDS, group_separator=","), "5786"),
        ("-58.1", NumberForm(suffix="%"), "-58.1"),
        ("58.1 %", NumberForm(suffix="%"), "58.1"),
        ("-5", NumberForm(negative=NegativeStyle.PARENTHESES), "-5"),
        (".5", NumberForm(), "0.5"),
        ("5.", NumberForm(), "5"),
        ("1e3", NumberForm(), "1000"),
    ],
)
def test_what_people_leave_out_may_be_missing(text: str, form: NumberForm, number: str) -> None:
    assert read_number(text, form) == Decimal(number)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", NumberForm()),
        (".", NumberForm()),
        ("$", NumberForm(prefix="$")),
        ("1,23", COMMA),
        ("12,34", COMMA),
        ("1,2345", COMMA),
        ("1.23", GERMAN),
        ("(5)", NumberForm()),
        ("(5", NumberForm(negative=NegativeStyle.PARENTHESES)),
        ("5)", NumberForm(negative=NegativeStyle.PARENTHESES)),
        ("-(5)", NumberForm(negative=NegativeStyle.PARENTHESES)),
        ("-5-", NumberForm(negative=NegativeStyle.TRAILING_MINUS)),
        ("--5", NumberForm()),
        ("٣", NumberForm()),
        ("nan", NumberForm()),
        ("1e99999", NumberForm()),
        ("9" * 600, NumberForm()),
    ],
)
def test_what_is_not_of_the_form_is_refused(text: str, form: NumberForm) -> None:
    with pytest.raises(ValueError, match=r"not a number|not read|signs"):
        read_number(text, form)


AFFIXES = st.sampled_from(["", "$", "EUR ", " kg", "%", "\N{EURO SIGN}"])
SEPARATORS = st.sampled_from(
    [(",", "."), (".", ","), (" ", ","), ("\N{NO-BREAK SPACE}", ","), ("'", "."), ("_", "."), (",", "\N{MIDDLE DOT}")]
)


@st.composite
def number_forms(draw: st.DrawFn) -> NumberForm:
    """Return a valid form."""
    grouping = draw(st.sampled_from(Grouping))
    separator, point = draw(SEPARATORS)
    return NumberForm(
        prefix=draw(AFFIXES),
        suffix=draw(AFFIXES),
        grouping=grouping,
        group_separator="" if grouping is Grouping.NONE else separator,
        decimal_separator=point,
        minimum_fraction_digits=draw(st.none() | st.integers(0, 12)),
        minimum_integer_digits=draw(st.integers(0, 12)),
        plus=draw(st.sampled_from(PlusSign)),
        negative=draw(st.sampled_from(NegativeStyle)),
        sign_after_prefix=draw(st.booleans()),
        exponent=draw(st.sampled_from(ExponentStyle)),
        exponent_digits=draw(st.integers(1, 4)),
        exponent_upper=draw(st.booleans()),
        exponent_plus=draw(st.booleans()),
        leading_point=draw(st.booleans()),
    )


@given(
    form=number_forms(),
    number=st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**9), 10**9).map(lambda units: units / 100)
    | st.decimals(allow_nan=False, allow_infinity=False, places=6),
)
def test_every_form_reads_back_what_it_writes(form: NumberForm, number: float | Decimal) -> None:
    text = number_text(number, form)
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    assert read_number(text, form) == exact
    assert number_text(number, form) == text
