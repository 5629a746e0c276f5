"""Numbers as text and back, exactly, in one form. Decimal arithmetic only: no binary fraction is ever rounded."""

import re
from decimal import Decimal
from functools import lru_cache

from rowmint.schema.forms.written_form import ExponentStyle, Grouping, NegativeStyle, NumberForm, PlusSign

MAX_NUMBER_TEXT = 512
"""Characters of a text that is read as a number."""

_LAST_GROUP = {Grouping.THOUSANDS: 3, Grouping.INDIAN: 3, Grouping.MYRIAD: 4}
_OTHER_GROUPS = {Grouping.THOUSANDS: 3, Grouping.INDIAN: 2, Grouping.MYRIAD: 4}
_MINUS = "-"
_UNICODE_MINUS = "\N{MINUS SIGN}"
_CREDIT = "CR"
_TRAILING = {NegativeStyle.TRAILING_MINUS: _MINUS, NegativeStyle.CREDIT: _CREDIT}


def number_text(number: float | Decimal, form: NumberForm) -> str:
    """Return a finite number in a form.

    No digit is ever rounded away: a number has as many fraction digits as it needs and at least the form's. A float is
    the decimal number that it prints as. In exponent notation the form's fewest digits are those of the factor, and
    only where every number has an exponent. Zero has no sign, unless the form gives it a plus.

    Args:
        number: An int, float or Decimal.
        form: The form.
    """
    printed = repr(number) if isinstance(number, float) else ""
    value = Decimal(printed) if printed else Decimal(number)
    magnitude = value.copy_abs()
    shortest = form.exponent is ExponentStyle.SHORTEST and "e" in printed
    if form.exponent is ExponentStyle.ALWAYS or shortest:
        body = _with_exponent(magnitude, form, 0 if shortest else form.minimum_fraction_digits or 0)
    else:
        fewest = form.minimum_fraction_digits
        if fewest is None:
            fewest = 1 if printed else 0
        whole, _, fraction = format(magnitude, "f").partition(".")
        body = fixed_text(whole, fraction.rstrip("0").ljust(fewest, "0"), form)
    return signed_text(body, (value > 0) - (value < 0), form)


def fixed_text(whole: str, fraction: str, form: NumberForm) -> str:
    """Return digits before and after the decimal separator as the form has them: padded, grouped, joined."""
    whole = grouped(whole.zfill(form.minimum_integer_digits), form)
    if not fraction:
        return whole
    if form.leading_point and whole == "0":
        whole = ""
    return f"{whole}{form.decimal_separator}{fraction}"


def grouped(digits: str, form: NumberForm) -> str:
    """Return digits with the form's separator between groups."""
    if form.grouping is Grouping.NONE or len(digits) <= _LAST_GROUP[form.grouping]:
        return digits
    last, other = _LAST_GROUP[form.grouping], _OTHER_GROUPS[form.grouping]
    head, groups = digits[:-last], [digits[-last:]]
    while head:
        groups.append(head[-other:])
        head = head[:-other]
    return form.group_separator.join(reversed(groups))


def signed_text(body: str, sign: int, form: NumberForm) -> str:
    """Return a number's digits with sign, prefix and suffix.

    Args:
        body: Its digits.
        sign: -1, 0 or 1.
        form: The form.
    """
    before, after = _signs(sign, form)
    if form.sign_after_prefix:
        return f"{form.prefix}{before}{body}{after}{form.suffix}"
    return f"{before}{form.prefix}{body}{form.suffix}{after}"


def _signs(sign: int, form: NumberForm) -> tuple[str, str]:
    if sign < 0:
        match form.negative:
            case NegativeStyle.MINUS:
                return _MINUS, ""
            case NegativeStyle.UNICODE_MINUS:
                return _UNICODE_MINUS, ""
            case NegativeStyle.PARENTHESES:
                return "(", ")"
            case _:
                return "", _TRAILING[form.negative]
    plus = form.plus is PlusSign.NOT_NEGATIVE or (form.plus is PlusSign.POSITIVE and sign > 0)
    return "+" if plus else "", ""


def _with_exponent(magnitude: Decimal, form: NumberForm, fewest: int) -> str:
    digits = "".join(map(str, magnitude.as_tuple().digits)).strip("0") or "0"
    exponent = magnitude.adjusted() if magnitude else 0
    fraction = digits[1:].ljust(fewest, "0")
    factor = digits[0] + (form.decimal_separator + fraction if fraction else "")
    sign = "-" if exponent < 0 else "+" if form.exponent_plus else ""
    letter = "E" if form.exponent_upper else "e"
    return f"{factor}{letter}{sign}{abs(exponent):0{form.exponent_digits}d}"


def read_number(text: str, form: NumberForm) -> Decimal:
    """Return the number that a text is in a form.

    What people leave out when they write by hand may be missing: prefix, suffix, separators of groups, and digits that
    are only zeros. Separators that are there must stand where the form has them.

    Raises:
        ValueError: It is not a number in this form.
    """
    if len(text) > MAX_NUMBER_TEXT:
        raise ValueError(f"a text of {len(text)} characters is not read as a number")
    found = _reader(form).fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a number in the form of {number_text(Decimal('-1234.5'), form)!r}")
    marks = "".join(mark for mark in found.group("outer", "inner", "tail", "end") if mark)
    if marks not in ("", "+", _MINUS, _UNICODE_MINUS, "()", _CREDIT):
        raise ValueError(f"{text!r} has signs that do not belong together")
    whole = found["whole"].replace(form.group_separator, "") if form.group_separator else found["whole"]
    number = Decimal(f"{whole or 0}.{found['fraction'] or 0}e{found['exponent'] or 0}")
    return number.copy_negate() if marks.strip("+") else number


@lru_cache(maxsize=1024)
def _reader(form: NumberForm) -> re.Pattern[str]:
    separator = re.escape(form.group_separator)
    first = {
        Grouping.NONE: "",
        Grouping.THOUSANDS: rf"[0-9]{{1,3}}(?:{separator}[0-9]{{3}})+|",
        Grouping.INDIAN: rf"[0-9]{{1,2}}(?:{separator}[0-9]{{2}})*{separator}[0-9]{{3}}|",
        Grouping.MYRIAD: rf"[0-9]{{1,4}}(?:{separator}[0-9]{{4}})+|",
    }[form.grouping]
    point = re.escape(form.decimal_separator)
    lead = rf"[-+{_UNICODE_MINUS}" + ("(" if form.negative is NegativeStyle.PARENTHESES else "") + "]"
    trail = r"\)" if form.negative is NegativeStyle.PARENTHESES else re.escape(_TRAILING.get(form.negative, ""))
    trail = trail or "(?!)"
    prefix, suffix = (rf"\s*(?:{re.escape(text.strip())})?\s*" for text in (form.prefix, form.suffix))
    return re.compile(
        rf"(?P<outer>{lead})?{prefix}(?P<inner>{lead})?"
        rf"(?=[0-9]|{point}[0-9])(?P<whole>{first}[0-9]*)(?:{point}(?P<fraction>[0-9]*))?"
        rf"(?:[eE](?P<exponent>[-+]?[0-9]{{1,4}}))?"
        rf"(?P<tail>{trail})?{suffix}(?P<end>{trail})?"
    )
