"""The ways in which a text can be read as a number, seen from its shape: the text with a 0 for each digit.

A shape such as ``$0,000.00`` or ``(00.00)`` decides where prefix, sign, digits, separators, exponent and suffix are, up
to one ambiguity: in ``0,000`` the comma separates thousands or a fraction. Each layout therefore names the pairs of
separators under which it is how the shape is read; which pair a column has, all of its values decide together.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from rowmint.schema.forms.written_form import Grouping, NegativeStyle

MAX_SHAPE = 64
"""Most characters of a text that can be a number or a moment."""
GROUP_SEPARATORS = (",", ".", " ", "\u00a0", "\u202f", "'", "\u2019", "_")
DECIMAL_SEPARATORS = (".", ",")
UNICODE_MINUS = "\u2212"
CREDIT = "CR"
MAX_AFFIX = 16
"""Most characters before or after a number, which are spaces, a sign of currency or a unit."""
NO_TEXT = re.compile("[\0-\x1f\x7f\ud800-\udfff]")
"""Characters that no affix has."""


class Separators(NamedTuple):
    """What stands before the fraction, and between groups of digits."""

    decimal: str
    group: str


SEPARATORS = frozenset(
    Separators(decimal, group) for decimal in DECIMAL_SEPARATORS for group in GROUP_SEPARATORS if group != decimal
)
"""All pairs that are recognised."""

_SIGNS = "-+" + UNICODE_MINUS
_HEAD = re.compile(rf"(?P<outer>[{_SIGNS}(]?)(?P<prefix>[^{_SIGNS}()]*)(?P<inner>[{_SIGNS}(]?)")
_CORE = re.compile(
    rf"(?P<mantissa>[0{re.escape(''.join(GROUP_SEPARATORS))}]+)(?:(?P<letter>[eE])(?P<sign>[+-]?)(?P<exponent>0+))?"
)
_NO_FRACTION = re.compile(r"[.,][-\u2013\u2014]")
"""What stands for a fraction of zero in prices such as ``5,-``; the dash is no sign."""
_CURRENCY_TEXT = """
AED ARS AUD BDT BGN BHD BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES KRW KWD KZT LKR MAD
MXN MYR NGN NOK NZD OMR PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TND TRY TWD UAH USD UYU VND XAF XOF ZAR
Rs Rs. kr kr. Kr K\u010d z\u0142 Ft Fr. SFr. RM Rp lei
"""
_UNIT_TEXT = """
% \u2030 \u00b0 \u00b0C \u00b0F pp bp ppm kg g mg lb lbs oz km m cm mm mi ft l ml L mL ms s sec min h hrs hours days
years Wh kWh MWh GWh W kW MW V mV kV Hz kHz MHz GHz B kB KB MB GB TB KiB MiB GiB TiB km/h kmh mph m/s Pa hPa kPa bar
mbar bpm rpm cal kcal kJ dB
"""
_CURRENCIES = frozenset(_CURRENCY_TEXT.split())
_UNITS = frozenset(_UNIT_TEXT.split())


@dataclass(frozen=True)
class NumberLayout:
    """One reading of a shape. Positions are those of its characters.

    Attributes:
        separators: Pairs of separators under which the shape is read so.
        prefix: Text before the number, without the sign.
        suffix: Text after it.
        plus: Whether it has a plus sign.
        negative: How it says that it is below 0; None if it does not.
        sign_after_prefix: Whether the sign stands between prefix and digits.
        whole: Positions of the digits before the fraction.
        fraction: Positions of the digits of the fraction.
        point: Whether it has a decimal separator.
        group: The separator of groups; empty if there are none.
        groupings: Ways of grouping that the groups fit; empty without groups.
        exponent: Positions of the digits of the exponent.
        exponent_sign: Sign of the exponent, or empty.
        exponent_upper: Whether it is introduced by ``E``.
    """

    separators: frozenset[Separators]
    prefix: str
    suffix: str
    plus: bool
    negative: NegativeStyle | None
    sign_after_prefix: bool
    whole: tuple[int, ...]
    fraction: tuple[int, ...]
    point: bool
    group: str
    groupings: frozenset[Grouping]
    exponent: tuple[int, ...]
    exponent_sign: str
    exponent_upper: bool


class _Frame(NamedTuple):
    prefix: str
    suffix: str
    plus: bool
    negative: NegativeStyle | None
    sign_after_prefix: bool


class _Digits(NamedTuple):
    separators: frozenset[Separators]
    whole: tuple[int, ...]
    fraction: tuple[int, ...]
    point: bool
    group: str
    groupings: frozenset[Grouping]


@lru_cache(maxsize=16_384)
def number_layouts(shape: str) -> tuple[NumberLayout, ...]:
    """Return the readings of a shape as a number, at most two, whose separators do not overlap; none if it is none."""
    if len(shape) > MAX_SHAPE or "0" not in shape:
        return ()
    first, last = shape.index("0"), shape.rindex("0") + 1
    # A separator beside the digits may begin or end the number, as in ".5" and "5.", or belong to "Rs." before it.
    for start in (first, first - 1) if first and shape[first - 1] in DECIMAL_SEPARATORS else (first,):
        pointed = shape[last : last + 1] in DECIMAL_SEPARATORS and not _NO_FRACTION.match(shape, last)
        end = last + 1 if pointed else last
        core = _CORE.fullmatch(shape, start, end)
        frame = _frame(shape[:start], shape[end:])
        if core is None or frame is None:
            continue
        exponent = () if core["exponent"] is None else tuple(range(*core.span("exponent")))
        return tuple(
            NumberLayout(
                **digits._asdict(),
                **frame._asdict(),
                exponent=exponent,
                exponent_sign=core["sign"] or "",
                exponent_upper=core["letter"] == "E",
            )
            for digits in _digits(core["mantissa"], start)
            if not (exponent and digits.group)
        )
    return ()


def _frame(head: str, tail: str) -> _Frame | None:
    """Return what surrounds the digits; None if it is nothing that surrounds a number."""
    found = _HEAD.fullmatch(head)
    if found is None or (found["outer"] and found["inner"]):
        return None
    sign, prefix, after = found["outer"] or found["inner"], found["prefix"], bool(found["inner"])
    negative = {"-": NegativeStyle.MINUS, UNICODE_MINUS: NegativeStyle.UNICODE_MINUS}.get(sign)
    if sign == "(":
        negative, mark = NegativeStyle.PARENTHESES, ")"
    elif not sign and "-" in _NO_FRACTION.sub("", tail):
        negative, mark = NegativeStyle.TRAILING_MINUS, "-"
    elif not sign and CREDIT in tail:
        negative, mark = NegativeStyle.CREDIT, CREDIT
    else:
        mark = ""
    if mark:
        after = after or (tail.startswith(mark) and tail != mark and not (sign and prefix))
        suffix = tail.removeprefix(mark) if after else tail.removesuffix(mark)
        if suffix == tail:
            return None
        tail = suffix
    bare = _NO_FRACTION.sub("", tail)
    if not (_is_money(prefix) and (_is_money(bare) or bare.strip() in _UNITS)):
        return None
    if any(len(affix) > MAX_AFFIX or NO_TEXT.search(affix) for affix in (prefix, tail)):
        return None
    return _Frame(prefix, tail, sign == "+", negative, after)


def _is_money(affix: str) -> bool:
    """Return whether an affix is empty, a currency's code, or its symbol with up to three letters before."""
    bare = affix.strip()
    if not bare:
        return not affix
    letters, symbol = bare[:-1], bare[-1]
    by_symbol = unicodedata.category(symbol) == "Sc" and len(letters) <= 3 and (letters.isalpha() or not letters)
    return bare in _CURRENCIES or by_symbol


def _digits(mantissa: str, start: int) -> list[_Digits]:
    """Return the readings of digits and separators that begin at position `start`."""
    if set(mantissa) == {"0"}:
        return [_Digits(SEPARATORS, tuple(range(start, start + len(mantissa))), (), False, "", frozenset())]
    found = []
    for decimal in DECIMAL_SEPARATORS:
        whole, point, fraction = mantissa.partition(decimal)
        others = set(whole) - {"0"}
        if set(fraction) - {"0"} or len(others) > 1 or not (set(whole) | set(fraction)):
            continue
        group = others.pop() if others else ""
        groupings = _groupings(whole.split(group)) if group else frozenset()
        if group and not groupings:
            continue
        separators = {Separators(decimal, group)} if group else {pair for pair in SEPARATORS if pair.decimal == decimal}
        places = tuple(start + index for index, letter in enumerate(whole) if letter == "0")
        after = start + len(whole) + 1
        rest = tuple(range(after, after + len(fraction)))
        found.append(_Digits(frozenset(separators), places, rest, bool(point), group, groupings))
    if len(found) == 2 and found[0][1:] == found[1][1:]:
        return [found[0]._replace(separators=found[0].separators | found[1].separators)]
    return found


def _groupings(groups: list[str]) -> frozenset[Grouping]:
    lengths = [len(group) for group in groups]
    first, inner, last = lengths[0], set(lengths[1:-1]), lengths[-1]
    found = set()
    if 1 <= first <= 3 and inner <= {3} and last == 3:
        found.add(Grouping.THOUSANDS)
    if 1 <= first <= 2 and inner <= {2} and last == 3:
        found.add(Grouping.INDIAN)
    if 1 <= first <= 4 and inner <= {4} and last == 4:
        found.add(Grouping.MYRIAD)
    return frozenset(found)
