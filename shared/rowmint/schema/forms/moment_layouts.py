"""The ways in which a text can be read as a day, a time or a moment, seen from its shape: 0 for each digit.

Letters stay in a shape, so names of months, halves of the day and zones are read from it once for all texts of it. What
order day and month have is not decided here: where both are digits and the year is last they are the fields ``1`` and
``2`` of the template.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from rowmint.schema.forms.moments import MONTHS, WEEKDAYS, PatternPart, month_number, parse_pattern
from rowmint.schema.forms.number_layouts import MAX_SHAPE
from rowmint.schema.forms.written_form import NameCase, ZoneStyle

COMPACT_DAY = "Ymd"
"""Template of eight digits, which are a day only where the column is known to have days."""
TIME_OF_DAY = ""
"""Template of a time without a day."""

_MONTH = "|".join([*MONTHS, *(name[:3] for name in MONTHS), "Sept"])
_DAY = "|".join([*WEEKDAYS, *(name[:3] for name in WEEKDAYS)])
_DATES = (
    r"(?P<Y>0000)(?P<s>[-/. ])(?P<m>00?)(?P=s)(?P<d>00?)",
    r"(?P<Y>0000)(?P<m>00)(?P<d>00)",
    r"(?P<n>00?)(?P<s>[-/. ])(?P<k>00?)(?P=s)(?:(?P<Y>0000)|(?P<y>00))",
    r"(?P<y>00)(?P<s>[-/.])(?P<m>00?)(?P=s)(?P<d>00?)",
    rf"(?P<d>00?)(?:[-/. ]|\. )?(?P<b>{_MONTH})(?:[-/. ]|,? )?(?:(?P<Y>0000)|(?P<y>00))",
    rf"(?P<b>{_MONTH})\.?[- ](?P<d>00?)(?:,? |-)(?P<Y>0000)",
    rf"(?P<Y>0000)[-/. ](?P<b>{_MONTH})[-/. ](?P<d>00?)",
)
_CLOCK = r"(?P<H>00?):(?P<M>00)(?::(?P<S>00)(?:[.,](?P<f>0{1,9}))?)?(?: ?(?P<p>[ap]m))?|(?P<h>00?) ?(?P<q>[ap]m)"
_BARE_CLOCK = r"(?P<H>00)(?:(?P<M>00)(?:(?P<S>00)(?:[.,](?P<f>0{1,9}))?)?)?"
_ZONE = r"(?: ?(?P<z>z|utc|gmt|[-+]00(?::?00)?))?"
_FORMS = tuple(
    re.compile(rf"(?:(?P<a>{_DAY}),? )?{date}(?:{rest})?", re.IGNORECASE)
    for date in _DATES
    for rest in (rf"(?:t|,? |:)(?:{_CLOCK}){_ZONE}", rf"t{_BARE_CLOCK}{_ZONE}")
)
_TIME = re.compile(rf"(?:{_CLOCK})", re.IGNORECASE)
_FIELDS = {"n": "1", "k": "2", "h": "H", "q": "p"}
_OF_DAY = "aYymdb12"

_DIRECTIVES: Mapping[str, str] = {
    "Y": "(?P<Y>0000)",
    "y": "(?P<y>00)",
    "m": "(?P<m>00?)",
    "d": "(?P<d>00?)",
    "e": r"\s?(?P<d>00?)",
    "b": rf"(?P<b>{_MONTH})\.?",
    "B": f"(?P<b>{_MONTH})",
    "a": f"(?P<a>{_DAY})",
    "A": f"(?P<a>{_DAY})",
    "H": "(?P<H>00?)",
    "I": "(?P<H>00?)",
    "p": "(?P<p>[ap]m)",
    "M": "(?P<M>00?)",
    "S": "(?P<S>00?)",
    "f": "(?P<f>0{1,9})",
    "z": "(?P<z>z|utc|gmt|[-+]00(?::?00)?)",
    "j": "(?P<j>0{1,3})",
    "s": "(?P<s>-?0{1,12})",
}


@dataclass(frozen=True)
class MomentLayout:
    """One reading of a shape. Spans are of its characters.

    Attributes:
        date: Template of the day: the text with the letter of its directive for each field, ``1`` and ``2`` for a day
            and a month in digits before the year; `TIME_OF_DAY` where there is none.
        clock: Template of what follows: ``" H:M p"``; a fraction is ``f`` after its separator, an offset ``z``.
        spans: Where the digits of each field are.
        month: Number of the month if it is a name, else 0.
        name_width: Letters of the month's name; 0 if it is not a name. May has the same name in both lengths.
        day_width: Letters of the day's name; 0 if there is none.
        weekday: Number of the day's name from Monday, 0; None if there is none.
        names: Case of names; None without one.
        afternoon: Whether the clock is in its second half; None without halves.
        lower_half: Whether that is in lower case.
        zone: How the offset is written.
        west: Whether the offset is negative.
    """

    date: str
    clock: str
    spans: Mapping[str, tuple[int, int]] = field(hash=False)
    month: int = 0
    name_width: int = 0
    day_width: int = 0
    weekday: int | None = None
    names: NameCase | None = None
    afternoon: bool | None = None
    lower_half: bool = False
    zone: ZoneStyle = ZoneStyle.NONE
    west: bool = False


@lru_cache(maxsize=16_384)
def moment_layouts(shape: str) -> tuple[MomentLayout, ...]:
    """Return the readings of a shape as a day, time or moment, each of another template of the day; maybe none."""
    if not 4 <= len(shape) <= MAX_SHAPE or "0" not in shape:
        return ()
    found: dict[str, MomentLayout] = {}
    if shape[0] == "0" and (match := _TIME.fullmatch(shape)):
        layout = _layout(match)
        found[layout.date] = layout
        return tuple(found.values())
    for form in _FORMS:
        match = form.fullmatch(shape)
        if match is not None:
            layout = _layout(match)
            found.setdefault(layout.date, layout)
    return tuple(found.values())


@lru_cache(maxsize=1024)
def _reader(pattern: str) -> re.Pattern[str]:
    def expression(parts: tuple[PatternPart, ...]) -> str:
        return "".join(
            _DIRECTIVES[part.directive]
            if part.directive
            else f"(?:{expression(part.optional)})?"
            if part.optional
            else re.escape(re.sub("[0-9]", "0", part.text))
            for part in parts
        )

    return re.compile(expression(parse_pattern(pattern)), re.IGNORECASE)


def pattern_layout(pattern: str, shape: str) -> MomentLayout | None:
    """Return how a shape is read by an extended strftime pattern, which is its template; None if it does not fit.

    Digits in the literal text of a pattern stand for any.

    Raises:
        InvalidFieldError: The pattern is invalid.
    """
    match = _reader(pattern).fullmatch(shape) if len(shape) <= MAX_SHAPE else None
    return None if match is None else _layout(match, pattern)


def _layout(match: re.Match[str], template: str | None = None) -> MomentLayout:
    found = {_FIELDS.get(name, name): match.span(name) for name, text in match.groupdict().items() if text is not None}
    text = match.string
    if template is None and "s" in found:
        del found["s"]  # the separator
    date, clock = _template(text, found) if template is None else (template, "")
    month = day = half = zone = ""
    if "b" in found:
        month = text[slice(*found.pop("b"))]
    if "a" in found:
        day = text[slice(*found.pop("a"))]
    if "p" in found:
        half = text[slice(*found.pop("p"))]
    if "z" in found:
        begin, end = found.pop("z")
        zone = text[begin:end]
        if zone[0] in "-+":
            found["z"] = (begin + 1, end)
    return MomentLayout(
        date,
        clock,
        found,
        month=month_number(month) if month else 0,
        name_width=len(month),
        day_width=len(day),
        weekday=[name[:3] for name in WEEKDAYS].index(day[:3].title()) if day else None,
        names=_case(month or day),
        afternoon=half.lower() == "pm" if half else None,
        lower_half=half.islower(),
        zone=_zone(zone),
        west=zone.startswith("-"),
    )


def _template(text: str, spans: Mapping[str, tuple[int, int]]) -> tuple[str, str]:
    """Return the templates of the day and of what follows it."""
    parts, position, cut = [], 0, 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        parts += [text[position:begin], name]
        position = end
        if name in _OF_DAY:
            cut = sum(map(len, parts))
    whole = "".join([*parts, text[position:]])
    return whole[:cut], whole[cut:]


def _case(name: str) -> NameCase | None:
    if not name:
        return None
    return NameCase.UPPER if name.isupper() else NameCase.LOWER if name.islower() else NameCase.TITLE


def _zone(text: str) -> ZoneStyle:
    if not text:
        return ZoneStyle.NONE
    if text[0] in "-+":
        return {3: ZoneStyle.HOURS, 5: ZoneStyle.COMPACT, 6: ZoneStyle.COLON}[len(text)]
    return {"z": ZoneStyle.Z, "utc": ZoneStyle.UTC, "gmt": ZoneStyle.GMT}[text.lower()]
