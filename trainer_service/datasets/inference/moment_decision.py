"""From counts of moments to the type of a column and the pattern its moments are written with."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from rowmint.schema import DataType
from rowmint.schema.forms import DatetimeForm, NameCase, WrittenForm, ZoneStyle
from rowmint.schema.forms.moment_layouts import TIME_OF_DAY
from rowmint.schema.forms.moments import directives, form_of_strptime, is_time_of_day, strptime_of
from trainer_service.datasets.inference.decision import ColumnNotices, Decision
from trainer_service.datasets.inference.moments import Clock, MomentFacts, MomentState
from trainer_service.datasets.notices import NoticeCode
from trainer_service.datasets.target import Target

_MICRO_DIGITS = 6
_MONTHLY = 3
_NOUNS = {DataType.INT64: "time of day", DataType.DATE: "day", DataType.TIMESTAMP: "moment"}


def witnessed_order(state: MomentState) -> tuple[str, bool] | None:
    """Return the separator of a column's days and whether the day comes before the month, if its values say so."""
    for template, facts in state.facts.items():
        if "1" in template and bool(facts.day_first) != bool(facts.month_first):
            return _separator(template), bool(facts.day_first)
    return None


def decide_moment(
    name: str, state: MomentState, orders: Mapping[str, bool], declared: DatetimeForm | None, strptime: str
) -> Decision:
    """Return the type of a column whose texts are all days, times or moments.

    Args:
        name: The column.
        state: Its counts.
        orders: Whether the day is first, by separator, where another column of the table says so.
        declared: The declared form; None if it is to be found.
        strptime: The declared strptime format, or empty.
    """
    notices = ColumnNotices(name)
    found = _likely(state.facts)
    if len(found) != 1:
        if any("1" in template for template in found):
            _report_unknown("which field of the days is the year", notices)
        return Decision(None, notices.all())
    ((template, facts),) = found.items()
    day_first = None
    if "1" in template and not strptime and declared is None:
        day_first = _day_first(template, facts, orders)
        if day_first is None:
            both = f": {facts.day_first} rows can only have the day first and {facts.month_first} only the month"
            _report_unknown("whether the day or the month comes first" + (both if facts.day_first else ""), notices)
            return Decision(None, notices.all())
        order, other = ("day", "month") if day_first else ("month", "day")
        rows = facts.day_first or facts.month_first
        why = f"{rows} rows can only be read so" if rows else "no value says so"
        notices.add(NoticeCode.DAY_ORDER, f"the {order} was taken to come before the {other}: {why}", rows=rows)
    if len({clock.zone is ZoneStyle.NONE for clock in facts.clocks}) > 1:
        return Decision(None)
    pattern = declared.pattern if declared is not None else form_of_strptime(strptime).pattern if strptime else ""
    if template == TIME_OF_DAY or (pattern and is_time_of_day(pattern)):
        data_type = DataType.INT64
    elif pattern:
        data_type = DataType.TIMESTAMP if directives(pattern) & set("HIs") else DataType.DATE
    else:
        has_clock = any(clock.template for clock in facts.clocks) or bool(state.passed_over)
        data_type = DataType.TIMESTAMP if has_clock else DataType.DATE
    form = _form(template, facts, day_first, pattern, notices)
    if declared is not None:
        form = _completed(declared, form)
    zoned = any(clock.zone is not ZoneStyle.NONE for clock in facts.clocks)
    plain = declared is None and not strptime and _is_canonical(form, data_type)
    if "y" in directives(form.pattern):
        message = "years of two digits were read as 1969 to 2068"
        notices.add(NoticeCode.TWO_DIGIT_YEARS, message, notices.as_kind("categorical"))
    if facts.fine:
        notices.add(NoticeCode.DIGITS_DROPPED, "digits past the microsecond were dropped", rows=facts.fine)
    target = Target(
        data_type,
        WrittenForm() if plain else WrittenForm(form),
        utc=data_type is DataType.TIMESTAMP and zoned,
        template=None if pattern else template,
        day_first=day_first,
        pattern=pattern,
        datetime_format="" if plain or data_type is DataType.INT64 else strptime or strptime_of(form),
        why=f"every value is a {_NOUNS[data_type]} written as {form.pattern}",
    )
    return Decision(target, notices.all())


def _likely(found: Mapping[str, MomentFacts]) -> Mapping[str, MomentFacts]:
    """Return the readings, without those whose year comes first if points are between fields and another fits."""
    german = {template: facts for template, facts in found.items() if template.startswith("1.")}
    return german or found


def _report_unknown(what: str, notices: ColumnNotices) -> None:
    day, month = notices.as_kind("datetime:%d/%m/%Y"), notices.as_kind("datetime:%m/%d/%Y")
    notices.add(
        NoticeCode.DAY_ORDER_UNKNOWN, f"the values do not say {what}; they are kept as text", f"{day} or {month}"
    )


def _separator(template: str) -> str:
    return template[template.index("1") + 1]


def _day_first(template: str, facts: MomentFacts, orders: Mapping[str, bool]) -> bool | None:
    """Return whether the day comes before the month; None if nothing says so, or values contradict each other."""
    if facts.day_first or facts.month_first:
        return None if facts.day_first and facts.month_first else bool(facts.day_first)
    separator = _separator(template)
    if separator in orders:
        return orders[separator]
    if separator == ".":
        return True
    if separator == "/" and any(clock.halves for clock in facts.clocks):
        return False
    first, second = facts.seen
    always_one = 1 << 1
    if first == always_one and second.bit_count() >= _MONTHLY:
        return True
    if second == always_one and first.bit_count() >= _MONTHLY:
        return False
    return None


def _is_canonical(form: DatetimeForm, data_type: DataType) -> bool:
    if data_type is DataType.DATE:
        return form.pattern == "%Y-%m-%d"
    zone = "%z" if form.zone is ZoneStyle.Z else ""
    local = form.zone in (ZoneStyle.NONE, ZoneStyle.Z)
    return local and form.pattern in (f"%Y-%m-%dT%H:%M:%S{zone}", f"%Y-%m-%dT%H:%M:%S[.%6f]{zone}")


def _form(
    template: str, facts: MomentFacts, day_first: bool | None, pattern: str, notices: ColumnNotices
) -> DatetimeForm:
    """Return the form of most rows."""
    if pattern:
        written = _as_padded(pattern, facts, notices)
    else:
        written = _date_pattern(template, facts, day_first, notices) + _clock_pattern(facts, notices)
    zones, halves = Counter[ZoneStyle](), Counter[bool]()
    for clock, rows in facts.clocks.items():
        if clock.zone is not ZoneStyle.NONE:
            zones[clock.zone] += rows
        if clock.halves:
            halves[clock.lower_half] += rows
    zone = notices.commonest(zones, str) if zones else ZoneStyle.NONE
    offset = 0
    if facts.offsets:
        offset = notices.commonest(facts.offsets, lambda minutes: f"{minutes // 60:+03d}:{minutes % 60:02d}")
    fixed = zone in (ZoneStyle.COLON, ZoneStyle.COMPACT, ZoneStyle.HOURS)
    return DatetimeForm(
        written,
        utc_offset_seconds=offset * 60 if fixed else 0,
        zone=zone,
        lower_half=bool(halves) and notices.commonest(halves, lambda lower: "am" if lower else "AM"),
        names=notices.commonest(facts.names, str) if facts.names else NameCase.TITLE,
    )


def _completed(declared: DatetimeForm, learned: DatetimeForm) -> DatetimeForm:
    """Return a learned form with what is declared beside the pattern."""
    usual = DatetimeForm("")
    given = {name: value for name, value in vars(declared).items() if value != getattr(usual, name)}
    return replace(learned, **{**given, "pattern": learned.pattern})


def _unpadded(field: str, facts: MomentFacts, notices: ColumnNotices) -> str:
    """Return "-" if a field has one digit where one is enough."""
    counts = Counter({True: facts.unpadded[field]})
    if facts.padded[field]:
        counts[False] = facts.padded[field]
    if not facts.unpadded[field]:
        return ""
    return "-" if notices.commonest(counts, lambda short: "one digit" if short else "two digits") else ""


def _date_pattern(template: str, facts: MomentFacts, day_first: bool | None, notices: ColumnNotices) -> str:
    pieces = []
    for letter in template:
        name = letter
        if letter in "12":
            name = "d" if (letter == "1") == day_first else "m"
        if letter in "md12":
            pieces.append(f"%{_unpadded(letter, facts, notices)}{name}")
        elif letter in "ab":
            counts = facts.days if letter == "a" else facts.months
            _note_names(letter, facts, notices)
            whole = bool(counts) and notices.commonest(counts, lambda long: "whole names" if long else "short names")
            pieces.append(f"%{letter.upper() if whole else letter}")
        elif letter in "Yy":
            pieces.append(f"%{letter}")
        else:
            pieces.append(letter)
    return "".join(pieces)


def _note_names(letter: str, facts: MomentFacts, notices: ColumnNotices) -> None:
    """Report names of months and days that are written otherwise than they came."""
    flag = notices.as_kind("categorical")
    if letter == "b" and facts.sept:
        notices.add(NoticeCode.MIXED_FORMS, "Sept is written as other months are, in three letters", flag, facts.sept)
    if letter == "a" and facts.other_days:
        message = "some days have the name of another day of the week, which is written as the date has it"
        notices.add(NoticeCode.MIXED_FORMS, message, flag, facts.other_days)


def _clock_pattern(facts: MomentFacts, notices: ColumnNotices) -> str:
    """Return the pattern of the clock: in brackets what is left out where it is zero."""
    frames, cores, fractions = Counter[tuple[str, str]](), Counter[str](), Counter[int]()
    for clock, rows in facts.clocks.items():
        core = _core(clock)
        cores[core] += rows
        if core:
            start = clock.template.index(core)
            frames[clock.template[:start], clock.template[start + len(core) :]] += rows
        if clock.fraction:
            fractions[clock.fraction] += rows
    longest = min(cores, key=lambda core: (-len(core), -cores[core], core))
    if not longest:
        return ""
    before, after = notices.commonest(frames, lambda frame: f"{frame[0]}{longest}{frame[1]}")
    hour = f"%{_unpadded('H', facts, notices)}{'I' if 'p' in after else 'H'}"
    fraction = _fraction(facts, fractions, notices)
    directives_of = {"H": hour, "M": "%M", "S": "%S", "f": fraction, "p": "%p", "z": "%z"}
    pieces, closing, previous = [], 0, ""
    for core in [*sorted((core for core in cores if core), key=len)]:
        if core == longest or not longest.startswith(core):
            continue
        pieces.append(_spelled(core[len(previous) :], directives_of))
        previous = core
        if _never_zero_after(core, facts):
            pieces.append("[")
            closing += 1
        else:
            _report_parts(notices, cores[core])
    pieces.append(_spelled(longest[len(previous) :], directives_of))
    clock_part = before + "".join(pieces) + "]" * closing + _spelled(after, directives_of)
    if not cores[""]:
        return clock_part
    if _never_zero_after("", facts):
        return f"[{clock_part}]"
    _report_parts(notices, cores[""])
    return clock_part


def _report_parts(notices: ColumnNotices, rows: int) -> None:
    notices.add(NoticeCode.MIXED_FORMS, "some values leave out parts of the time that others have as zeros", rows=rows)


def _core(clock: Clock) -> str:
    """Return the hour, minute, second and fraction of a clock's template, as far as it has them."""
    places = [clock.template.index(letter) for letter in "HMSf" if letter in clock.template]
    return clock.template[min(places) : max(places) + 1] if places else ""


def _never_zero_after(core: str, facts: MomentFacts) -> bool:
    """Return whether clocks that go on after some parts have something other than zeros there."""
    counts = facts.zero_fractions if "S" in core else facts.zero_seconds if "M" in core else facts.zero_clocks
    return not any(rows for clock, rows in counts.items() if len(_core(clock)) > len(core))


def _fraction(facts: MomentFacts, fractions: Counter[int], notices: ColumnNotices) -> str:
    if not fractions:
        return ""
    if len(fractions) == 1:
        return f"%{next(iter(fractions))}f"
    if not facts.round_fractions and max(fractions) <= _MICRO_DIGITS:
        return "%f"
    notices.add(NoticeCode.MIXED_FORMS, "fractions of seconds have several lengths, of which the longest is used")
    return f"%{max(fractions)}f"


def _spelled(template: str, directives_of: Mapping[str, str]) -> str:
    return "".join(directives_of.get(letter, letter) for letter in template)


def _as_padded(pattern: str, facts: MomentFacts, notices: ColumnNotices) -> str:
    """Return a pattern with the padding and the digits of fractions that the values have."""
    for letter, field in (("d", "d"), ("m", "m"), ("H", "H"), ("I", "H")):
        if f"%{letter}" in pattern:
            pattern = pattern.replace(f"%{letter}", f"%{_unpadded(field, facts, notices)}{letter}")
    fractions = Counter[int]()
    for clock, rows in facts.clocks.items():
        if clock.fraction:
            fractions[clock.fraction] += rows
    return pattern.replace("%6f", _fraction(facts, fractions, notices)) if fractions else pattern
