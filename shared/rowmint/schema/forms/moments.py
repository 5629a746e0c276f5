"""Days, times of day and moments as text and back, in one form: own calendar arithmetic and English names.

Nothing here depends on the machine's locale, C library or time zones. A moment is an integer: microseconds since
1970-01-01T00:00:00, in UTC where texts have an offset, else local; a time of day is microseconds since midnight.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from rowmint.errors import InvalidFieldError
from rowmint.schema.forms.written_form import DatetimeForm, NameCase, ZoneStyle

SECOND = 1_000_000
DAY = 86_400 * SECOND
FIRST_MOMENT = -719_162 * DAY
"""0001-01-01T00:00:00."""
LAST_MOMENT = 2_932_897 * DAY - 1
"""9999-12-31T23:59:59.999999."""
MAX_PATTERN = 128
"""Characters of a pattern."""
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_DIRECTIVES = "YymdbBaAHIpMSfzjse"
_UNPADDED = "dmHIMS"
_ZERO_ABLE = "HIMSf"
_SHORTHANDS = {"T": "%H:%M:%S", "F": "%Y-%m-%d", "D": "%m/%d/%y", "R": "%H:%M", "h": "%b"}
_PIVOT = 69  # two-digit years from here on are of the 20th century, as in POSIX
_MAX_DEPTH = 3
_TOKEN = re.compile(r"%(?P<flag>-?)(?P<digits>[1-9]?)(?P<directive>[A-Za-z])|%(?P<literal>[%\[\]])|(?P<text>[^%\[\]]+)")
_NO_TEXT = re.compile("[\0-\x1f\x7f\ud800-\udfff]")
_NUMBER = {"Y": 4, "y": 2, "m": 2, "d": 2, "H": 2, "I": 2, "M": 2, "S": 2, "j": 3}


@dataclass(frozen=True)
class PatternPart:
    """One part of a pattern: a literal text, a field, or parts in brackets.

    Attributes:
        text: Literal text, or empty.
        directive: Letter of a field, or empty.
        padded: Whether the field has a fixed number of digits; ``%-d`` has not.
        digits: Digits of a fraction, 1 to 9; 0 for as many as it needs, at least one.
        optional: Parts in brackets, written unless the hour, minute, second and fraction among them are 0.
    """

    text: str = ""
    directive: str = ""
    padded: bool = True
    digits: int = 0
    optional: tuple["PatternPart", ...] = ()


@lru_cache(maxsize=1024)
def parse_pattern(pattern: str, field: str = "written_form.datetime.pattern") -> tuple[PatternPart, ...]:
    """Return the parts of an extended strftime pattern; see `DatetimeForm.pattern`.

    ``%e`` is a day padded with a space, ``%s`` seconds since 1970; ``%%``, ``%[`` and ``%]`` are literal.

    Raises:
        InvalidFieldError: It has an unknown directive, one twice, two that contradict each other, or unclosed brackets;
            the error names `field`.
    """
    if not 1 <= len(pattern) <= MAX_PATTERN or _NO_TEXT.search(pattern):
        raise InvalidFieldError(field, f"must have 1 to {MAX_PATTERN} characters, none of them a control character")
    parts, end = _parts(pattern, 0, 0, field)
    if end < len(pattern):
        raise InvalidFieldError(field, f"{pattern!r} has ']' without '['; write %] for the character")
    _validate_directives(pattern, [part.directive for part in fields_of(parts)], field)
    return parts


def _parts(pattern: str, at: int, depth: int, field: str) -> tuple[tuple[PatternPart, ...], int]:
    """Return the parts from `at` to the end or the bracket that closes, and its position."""
    parts: list[PatternPart] = []
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "[":
            inner, end = _parts(pattern, at + 1, depth + 1, field)
            if end == len(pattern) or depth == _MAX_DEPTH:
                raise InvalidFieldError(field, f"{pattern!r} has '[' without ']'; write %[ for the character")
            if not any(part.directive in _ZERO_ABLE for part in fields_of(inner)):
                raise InvalidFieldError(field, f"{pattern!r} has brackets around nothing that may be zero")
            parts.append(PatternPart(optional=inner))
            at = end + 1
            continue
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise InvalidFieldError(field, f"{pattern!r} cannot be read at {pattern[at:]!r}")
        at = token.end()
        if token["directive"] is None:
            parts.append(PatternPart(text=token["literal"] or token["text"]))
        else:
            parts += _field_parts(token, pattern, field)
    return tuple(parts), at


def _field_parts(token: re.Match[str], pattern: str, field: str) -> tuple[PatternPart, ...]:
    directive = token["directive"]
    if directive in _SHORTHANDS and token[0] == f"%{directive}":
        return parse_pattern(_SHORTHANDS[directive], field)
    known = directive in (_UNPADDED if token["flag"] else _DIRECTIVES) and (not token["digits"] or directive == "f")
    if not known:
        supported = " ".join(f"%{letter}" for letter in _DIRECTIVES)
        raise InvalidFieldError(
            field, f"{token[0]} in {pattern!r} is unknown; supported are {supported}, %-d (d m H I M S), %1f to %9f"
        )
    return (PatternPart(directive=directive, padded=not token["flag"], digits=int(token["digits"] or 0)),)


def _validate_directives(pattern: str, directives: list[str], field: str) -> None:
    found = {"d" if directive == "e" else directive for directive in directives}
    if len(found) < len(directives):
        raise InvalidFieldError(field, f"{pattern!r} contains a part twice")
    for group in ("Yys", "mbBj", "HI", "dj", "aA"):
        if len(found & set(group)) > 1:
            raise InvalidFieldError(field, f"{pattern!r} contains a part twice: {' and '.join(group)}")
    if ("I" in found) != ("p" in found):
        raise InvalidFieldError(field, f"{pattern!r} contains one of %I and %p without the other")


def fields_of(parts: tuple[PatternPart, ...]) -> Iterator[PatternPart]:
    """Yield the fields among `parts`, those in brackets too."""
    for part in parts:
        if part.directive:
            yield part
        yield from fields_of(part.optional)


def directives(pattern: str) -> frozenset[str]:
    """Return the letters of a pattern's fields, those in brackets too; ``%e`` counts as ``d``."""
    return frozenset("d" if part.directive == "e" else part.directive for part in fields_of(parse_pattern(pattern)))


def has_day(pattern: str) -> bool:
    """Say whether a pattern contains a whole day: its texts are days or moments."""
    found = directives(pattern)
    month_and_day = bool(found & set("mbB") and "d" in found) or "j" in found
    return "s" in found or (bool(found & set("Yy")) and month_and_day)


def is_time_of_day(pattern: str) -> bool:
    """Say whether a pattern contains an hour and no part of a day."""
    found = directives(pattern)
    return bool(found & set("HI")) and not found & set("YymbBdjsaAz")


def form_of_strptime(pattern: str) -> DatetimeForm:
    """Return the form that a strptime format describes: what is written with it is read by it."""
    pieces = (
        {"%f": "%6f", "[": "%[", "]": "%]"}.get(piece, piece) for piece in re.findall(r"%.?|[^%]", pattern, re.DOTALL)
    )
    zoned = re.search(r"(?<!%)(?:%%)*%z", pattern) is not None
    return DatetimeForm("".join(pieces), zone=ZoneStyle.COMPACT if zoned else ZoneStyle.NONE)


def strptime_of(form: DatetimeForm) -> str:
    """Return the strptime format that is nearest to a form: brackets and padding are lost."""

    def plain(parts: tuple[PatternPart, ...]) -> str:
        return "".join(
            part.text.replace("%", "%%")
            or (f"%{'d' if part.directive == 'e' else part.directive}" if part.directive else plain(part.optional))
            for part in parts
        )

    return plain(parse_pattern(form.pattern))


class CalendarFields(NamedTuple):
    """What a moment is made of; the hour is 0 to 23, the weekday 0 for Monday."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int
    micro: int
    weekday: int
    year_day: int
    epoch: int


def days_of(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a day of the proleptic Gregorian calendar; years are counted from March."""
    shifted = year - (month <= 2)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def calendar_fields(moment: int, form: DatetimeForm) -> CalendarFields:
    """Return what a moment is made of at the form's offset."""
    local = moment + form.utc_offset_seconds * SECOND
    days, rest = divmod(local, DAY)
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = year_of_era + era * 400 + (month <= 2)
    second, micro = divmod(rest, SECOND)
    return CalendarFields(
        year=year,
        month=month,
        day=of_year - (153 * shifted + 2) // 5 + 1,
        hour=second // 3600,
        minute=second // 60 % 60,
        second=second % 60,
        micro=micro,
        weekday=(days + 3) % 7,
        year_day=days - days_of(year, 1, 1) + 1,
        epoch=moment // SECOND,
    )


def moment_text(moment: int, form: DatetimeForm) -> str:
    """Return a moment, day (its midnight) or time of day in a form.

    Args:
        moment: Microseconds since 1970-01-01T00:00:00, or since midnight where the pattern has no day.
        form: The form.
    """
    return parts_text(parse_pattern(form.pattern), calendar_fields(moment, form), form)


def parts_text(parts: tuple[PatternPart, ...], fields: CalendarFields, form: DatetimeForm) -> str:
    """Return the text of some parts of a form's pattern."""
    texts = []
    for part in parts:
        if part.directive:
            texts.append(_field_text(part, fields, form))
        elif not part.optional:
            texts.append(part.text)
        elif not _all_zero(part.optional, fields):
            texts.append(parts_text(part.optional, fields, form))
    return "".join(texts)


def _all_zero(parts: tuple[PatternPart, ...], fields: CalendarFields) -> bool:
    values = {"H": fields.hour, "I": fields.hour, "M": fields.minute, "S": fields.second, "f": fields.micro}
    return not any(values.get(part.directive) for part in fields_of(parts))


def _field_text(part: PatternPart, fields: CalendarFields, form: DatetimeForm) -> str:
    match part.directive:
        case "f":
            digits = f"{fields.micro:06d}"
            return (digits.rstrip("0") or "0") if part.digits == 0 else digits[: part.digits].ljust(part.digits, "0")
        case "p":
            half = "PM" if fields.hour >= 12 else "AM"
            return half.lower() if form.lower_half else half
        case "b" | "B":
            name = MONTHS[fields.month - 1]
            return _cased(name[:3] if part.directive == "b" else name, form.names)
        case "a" | "A":
            name = WEEKDAYS[fields.weekday]
            return _cased(name[:3] if part.directive == "a" else name, form.names)
        case "z":
            return zone_text(form)
        case "e":
            return f"{fields.day:2d}"
        case "s":
            return str(fields.epoch)
        case _:
            number = {
                "Y": fields.year,
                "y": fields.year % 100,
                "m": fields.month,
                "d": fields.day,
                "H": fields.hour,
                "I": (fields.hour + 11) % 12 + 1,
                "M": fields.minute,
                "S": fields.second,
                "j": fields.year_day,
            }[part.directive]
            return f"{number:0{_NUMBER[part.directive]}d}" if part.padded else str(number)


def _cased(name: str, case: NameCase) -> str:
    return {NameCase.TITLE: name, NameCase.UPPER: name.upper(), NameCase.LOWER: name.lower()}[case]


def zone_text(form: DatetimeForm) -> str:
    """Return what ``%z`` writes: the form's offset from UTC in its style."""
    match form.zone:
        case ZoneStyle.NONE:
            return ""
        case ZoneStyle.Z | ZoneStyle.UTC | ZoneStyle.GMT:
            return str(form.zone).upper()
    hours, minutes = divmod(abs(form.utc_offset_seconds) // 60, 60)
    sign = "-" if form.utc_offset_seconds < 0 else "+"
    if form.zone is ZoneStyle.COLON:
        return f"{sign}{hours:02d}:{minutes:02d}"
    return f"{sign}{hours:02d}" + (f"{minutes:02d}" if minutes or form.zone is ZoneStyle.COMPACT else "")


_READ = {
    "Y": r"(?P<Y>[0-9]{4})",
    "y": r"(?P<y>[0-9]{2})",
    "m": r"(?P<m>[0-9]{1,2})",
    "d": r"(?P<d>[0-9]{1,2})",
    "e": r"\s?(?P<d>[0-9]{1,2})",
    "b": r"(?P<b>[A-Za-z]{3,9})\.?",
    "B": r"(?P<b>[A-Za-z]{3,9})",
    "a": r"[A-Za-z]{3,9}",
    "A": r"[A-Za-z]{3,9}",
    "H": r"(?P<H>[0-9]{1,2})",
    "I": r"(?P<I>[0-9]{1,2})",
    "p": r"(?P<p>[AaPp]\.?[Mm]\.?)",
    "M": r"(?P<M>[0-9]{1,2})",
    "S": r"(?P<S>[0-9]{1,2})",
    "f": r"(?P<f>[0-9]{1,9})",
    "z": r"(?P<z>[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)",
    "j": r"(?P<j>[0-9]{1,3})",
    "s": r"(?P<s>-?[0-9]{1,12})",
}


@lru_cache(maxsize=1024)
def _reader(pattern: str) -> re.Pattern[str]:
    def expression(parts: tuple[PatternPart, ...]) -> str:
        return "".join(
            _READ[part.directive]
            if part.directive
            else f"(?:{expression(part.optional)})?"
            if part.optional
            else re.escape(part.text)
            for part in parts
        )

    return re.compile(expression(parse_pattern(pattern)))


def read_moment(text: str, form: DatetimeForm) -> int:
    """Return the moment, day or time of day that a text is in a form; see `moment_text`.

    Numbers may have one digit less than the form pads them to, and names any case. A text's own offset counts, whatever
    the form's is.

    Raises:
        ValueError: It is not of this form, or no moment of the years 1 to 9999 to the microsecond.
    """
    found = _reader(form.pattern).fullmatch(text) if len(text) <= 2 * MAX_PATTERN + 64 else None
    if found is None:
        raise ValueError(f"{text!r} is not of the form {form.pattern!r}")
    read = {name: value for name, value in found.groupdict().items() if value is not None}
    micro = int(read.get("f", "0").ljust(6, "0")[:6])
    if read.get("f", "")[6:].strip("0"):
        raise ValueError(f"{text!r} is finer than a microsecond")
    offset = _offset_seconds(read["z"]) if read.get("z") else form.utc_offset_seconds
    if "s" in read:
        moment = int(read["s"]) * SECOND + micro
    else:
        days = _days_read(read, text) if has_day(form.pattern) else 0
        moment = days * DAY + _time_read(read, text) + micro - offset * SECOND
    if not FIRST_MOMENT <= moment <= LAST_MOMENT:
        raise ValueError(f"{text!r} is not in the years 1 to 9999")
    return moment


def _days_read(read: dict[str, str], text: str) -> int:
    year = int(read.get("Y") or read["y"])
    if "y" in read:
        year += 1900 if year >= _PIVOT else 2000
    first = days_of(year, 1, 1)
    if "j" in read:
        days, last = first + int(read["j"]) - 1, days_of(year + 1, 1, 1)
        if year < 1 or not first <= days < last:
            raise ValueError(f"{text!r} is not a day")
        return days
    month = int(read["m"]) if "m" in read else month_number(read["b"])
    day = int(read["d"])
    if year < 1 or not 1 <= month <= 12:
        raise ValueError(f"{text!r} is not a day")
    start = days_of(year, month, 1)
    if not 1 <= day <= days_of(year + month // 12, month % 12 + 1, 1) - start:
        raise ValueError(f"{text!r} is not a day: the month has no day {day}")
    return start + day - 1


def month_number(name: str) -> int:
    """Return the number of a month by its English name or its first letters; `ValueError` for any other text."""
    lowered = name.lower()
    for number, month in enumerate(MONTHS, 1):
        if lowered in (month.lower(), month[:3].lower()) or lowered == "sept" == month[:4].lower():
            return number
    raise ValueError(f"{name!r} is not the name of a month")


def _time_read(read: dict[str, str], text: str) -> int:
    hour, minute, second = (int(read.get(name, "0")) for name in "HMS")
    if "I" in read:
        clock = int(read["I"])
        if not 1 <= clock <= 12:
            raise ValueError(f"{text!r} is not a time of day")
        hour = clock % 12 + (12 if read["p"][0] in "Pp" else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(f"{text!r} is not a time of day")
    return (hour * 3600 + minute * 60 + second) * SECOND


def _offset_seconds(text: str) -> int:
    if text[0] not in "+-":
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{text!r} is not an offset from UTC")
    return (-1 if text[0] == "-" else 1) * (hours * 3600 + minutes * 60)
