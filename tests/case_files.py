"""The inputs of `tests/cases`, all made up, and what each comes to: the types and forms of its columns, and notices."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rowmint.schema import ColumnKind, ColumnSpec, DataType
from rowmint.schema.forms import BooleanForm, DatetimeForm, WrittenForm
from trainer_service.datasets.table_options import InfinitePolicy, TableOptions

FOLDER = Path(__file__).with_name("cases")
_TYPES = {".csv": "csv", ".tsv": "csv", ".json": "json", ".ndjson": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Column:
    """What a column comes to.

    Attributes:
        kind: Its kind.
        data_type: Its type.
        cell: Regular expression of its cells that are not missing, as they came and as made ones are written.
        form: Its written form, JSON values.
        pattern: Its `id_pattern`.
        secret: Whether none of its values may be published.
    """

    kind: ColumnKind
    data_type: DataType
    cell: str
    form: Mapping[str, Any] = field(default_factory=dict)
    pattern: str = ""
    secret: bool = False


@dataclass(frozen=True)
class Case:
    """An input and what it comes to.

    Attributes:
        name: Its file.
        columns: Its columns, in order.
        notices: Codes and columns of what is reported.
        options: Of its format, JSON values.
        declared: Declared columns.
        table: Options of the table.
    """

    name: str
    columns: Mapping[str, Column]
    notices: frozenset[tuple[str, str]] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: tuple[ColumnSpec, ...] = ()
    table: TableOptions = field(default_factory=TableOptions)

    def __str__(self) -> str:
        return self.name + "".join(f" {name}={value}" for name, value in self.options.items())

    @property
    def data_format(self) -> dict[str, Any]:
        """The format of the file, JSON values."""
        return {"type": _TYPES[Path(self.name).suffix], **self.options}


@dataclass(frozen=True)
class Refused:
    """An input that is refused.

    Attributes:
        name: Its file.
        problem: Regular expression of the problem: where it is, what it is, and where there is one, the way on.
        options: Of its format, JSON values.
        declared: Declared columns.
    """

    name: str
    problem: str
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: tuple[ColumnSpec, ...] = ()

    __str__ = Case.__str__
    data_format = Case.data_format


def _number(cell: str, **form: Any) -> Column:
    return Column(ColumnKind.NUMERICAL, DataType.DOUBLE, cell, {"number": form} if form else {})


def _integer(cell: str = "-?[0-9]+", **form: Any) -> Column:
    return Column(ColumnKind.NUMERICAL, DataType.INT64, cell, {"number": form} if form else {})


def _text(cell: str = ".+") -> Column:
    return Column(ColumnKind.CATEGORICAL, DataType.STRING, cell)


def _id(cell: str, pattern: str) -> Column:
    return Column(ColumnKind.ID, DataType.STRING, cell, pattern=pattern, secret=True)


def _day(cell: str, pattern: str, **form: Any) -> Column:
    return Column(ColumnKind.DATETIME, DataType.DATE, cell, {"datetime": {"pattern": pattern, **form}})


def _moment(cell: str, pattern: str, **form: Any) -> Column:
    return Column(ColumnKind.DATETIME, DataType.TIMESTAMP, cell, {"datetime": {"pattern": pattern, **form}})


def _boolean(true: str, false: str) -> Column:
    form = {"boolean": {"true_text": true, "false_text": false}}
    return Column(ColumnKind.BOOLEAN, DataType.BOOL, f"{true}|{false}", form)


def _notes(*notes: str) -> frozenset[tuple[str, str]]:
    """Return notices written as ``CODE`` or ``CODE column``."""
    return frozenset((code, column) for code, _, column in (note.partition(" ") for note in notes))


_ISO_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}"
_MONTH = "[A-Z][a-z]{2}"
_RECORDS = {"a": _integer(), "b": _text("[xy]"), "c": _number(r"[0-9]+\.[0-9]+")}

CASES = (
    # The ten that users brought.
    Case(
        "phones.csv",
        {
            "name": _text("[A-Z][a-z]+"),
            "phone": _id(r"\+4930[0-9]{7}", "+4930[1-9][0-9]{6}"),
            # So few digits that made ones may be found ones.
            "zip": Column(ColumnKind.ID, DataType.STRING, "0[0-9]{4}", pattern="0[0-9]{4}"),
        },
        _notes("LEADING_ZEROS phone", "NEAR_UNIQUE phone", "LEADING_ZEROS zip", "NEAR_UNIQUE zip"),
    ),
    Case(
        "us_times.csv",
        {
            "at": _moment("[1-9][0-9]?/[1-9][0-9]?/[0-9]{4} 1?[0-9]:[0-5][0-9] [AP]M", "%-m/%-d/%Y %-I:%M %p"),
            "kind": _text("[ab]"),
        },
        _notes("DAY_ORDER at"),
    ),
    Case(
        "naive_times.csv",
        {
            "at": _moment(rf"{_ISO_DAY} [0-9]{{2}}:[0-9]{{2}}", "%Y-%m-%d %H:%M"),
            "iso": _moment(rf"{_ISO_DAY}T{_CLOCK}\.[0-9]{{3}}", "%Y-%m-%dT%H:%M:%S.%3f"),
            "kind": _text("[ab]"),
        },
    ),
    Case(
        "money.csv",
        {
            "price": _number(
                r"\$[0-9],[0-9]{3}\.[0-9]{2}",
                prefix="$",
                grouping="thousands",
                group_separator=",",
                minimum_fraction_digits=2,
            ),
            "share": _number(r"[0-9]{1,2}\.[0-9]%", suffix="%"),
            "loss": _number(r"\([0-9]+\.00\)", negative="parentheses", minimum_fraction_digits=2),
            "city": _text("Graz|Porto"),
        },
    ),
    Case(
        "unsigned.csv",
        {"token": _id("[0-9]{19,20}", "1[0-7][0-9]{18}"), "kind": _text("[ab]")},
        _notes("BEYOND_INT64 token", "MIXED_FORMS token", "NEAR_UNIQUE token", "LIKELY_KEY token"),
    ),
    Case(
        "german_excel.csv",
        {
            "Ort": _text("[A-Z][a-zö]+"),
            "Betrag": _number("[0-9]+,[0-9]{2}", decimal_separator=",", minimum_fraction_digits=2),
            "Datum": _day(r"[0-9]{2}\.[0-9]{2}\.2023", "%d.%m.%Y"),
        },
        _notes("DIALECT", "DAY_ORDER Datum"),
    ),
    Case("prelude.csv", {"place": _text("[pq]"), "kwh": _integer()}, _notes("DIALECT")),
    Case("trailing.csv", {"A": _integer(), "B": _integer(), "C": _text("[xyz]")}, _notes("EMPTY_COLUMN")),
    Case("columns.json", {"a": _integer(), "b": _text("[xy]")}, _notes("DIALECT")),
    Case(
        "names.csv",
        {
            "build year": _integer(),
            "price (EUR/m2)": _number(r"[0-9]+\.[0-9]"),
            "a=b": _text("[uv]"),
            "größe": _text("groß|klein"),
        },
    ),
    # Numbers.
    Case(
        "signed.csv",
        {
            "golfer": _text("[abc]"),
            "to_par": _integer("0|[+-][0-9]", plus="positive"),
            "drift": _number(r"[+-][0-9]\.[0-9]{2}", plus="positive", minimum_fraction_digits=2),
        },
    ),
    Case(
        "euros.csv",
        {
            "Ort": _text("Ulm|Jena"),
            "Miete": _number(
                r"([0-9]\.)?[0-9]{3},[0-9]{2} €",
                suffix=" €",
                grouping="thousands",
                group_separator=".",
                decimal_separator=",",
                minimum_fraction_digits=2,
            ),
            "Anteil": _number("-?[0-9]+,[0-9] %", suffix=" %", decimal_separator=","),
            "Fläche": _number("[0-9]+,[0-9]", decimal_separator=","),
        },
        _notes("DIALECT"),
    ),
    Case(
        "groupings.csv",
        {
            "lakh": _number(
                r"₹([0-9]{1,2},)*[0-9]{3}\.00",
                prefix="₹",
                grouping="indian",
                group_separator=",",
                minimum_fraction_digits=2,
            ),
            "swiss": _number(
                r"([0-9]+')?[0-9]{3}\.[0-9]{2}", grouping="thousands", group_separator="'", minimum_fraction_digits=2
            ),
            "french": _number(
                "[0-9]+\u202f[0-9]{3},[0-9]", grouping="thousands", group_separator="\u202f", decimal_separator=","
            ),
        },
    ),
    Case(
        "accounting.csv",
        {
            "trailing": _number(r"[0-9]+\.[0-9]{2}-?", negative="trailing_minus", minimum_fraction_digits=2),
            "credit": _number(r"[0-9]+\.[0-9]{2}(CR)?", negative="credit", minimum_fraction_digits=2),
            "brackets": _integer(
                r"(?P<open>\()?([0-9],)?[0-9]{1,3}(?(open)\))",
                negative="parentheses",
                grouping="thousands",
                group_separator=",",
            ),
            "minus": _integer("\u2212?[0-9]", negative="unicode_minus"),
        },
        _notes("DECIMAL_COMMA brackets"),
    ),
    Case(
        "fixed.csv",
        {
            "price": _number(r"[0-9]+\.[0-9]{2}", minimum_fraction_digits=2),
            "score": _number(r"[0-9]+\.0"),
            "ratio": _number(r"\.[0-9]{4}", leading_point=True, minimum_fraction_digits=4),
            "small": _number(r"1e-05|0\.[0-9]{1,5}"),
        },
    ),
    Case(
        "scientific.csv",
        {
            "mass": _number(r"[1-9]\.[0-9]{3}e\+00", exponent="always", exponent_plus=True, minimum_fraction_digits=3),
            "field": _number(
                r"-?[1-9]\.[0-9]{2}E[+-]0[0-2]",
                exponent="always",
                exponent_upper=True,
                exponent_plus=True,
                minimum_fraction_digits=2,
            ),
        },
    ),
    Case(
        "units.csv",
        {
            "weight": _integer("[0-9]+ kg", suffix=" kg"),
            "padded": Column(ColumnKind.NUMERICAL, DataType.DOUBLE, r"[ 0-9]{5}\.[0-9]", {"pad_width": 7}),
            "share": _integer("[0-9]+%", suffix="%"),
        },
        _notes("PADDING padded"),
    ),
    # Days and moments.
    Case(
        "offsets.csv",
        {
            "paid": _moment(
                rf"{_ISO_DAY}T{_CLOCK}\+02:00", "%Y-%m-%dT%H:%M:%S%z", utc_offset_seconds=7200, zone="colon"
            ),
            "sent": _moment(
                rf"{_ISO_DAY} {_CLOCK} -0500", "%Y-%m-%d %H:%M:%S %z", utc_offset_seconds=-18_000, zone="compact"
            ),
            "logged": _moment(rf"{_ISO_DAY}T{_CLOCK}\.[0-9]{{3}}Z", "%Y-%m-%dT%H:%M:%S.%3f%z", zone="z"),
        },
    ),
    Case(
        "month_names.csv",
        {
            "opened": _day(rf"[0-3][0-9]-{_MONTH}-2023", "%d-%b-%Y"),
            "closed": _day("[A-Z][a-z]+ [1-9][0-9]?, 2023", "%B %-d, %Y"),
            "seen": _day("[0-3][0-9] [A-Z]{3} 23", "%d %b %y", names="upper"),
        },
        _notes("TWO_DIGIT_YEARS seen"),
    ),
    Case(
        "afternoons.csv",
        {
            "at": _moment(r"[0-9]{2}\.[0-9]{2}\.2023 1?[0-9]:[0-5][0-9] [ap]m", "%d.%m.%Y %-I:%M %p", lower_half=True),
            "sharp": _moment(rf"2023/[0-9]{{2}}/[0-9]{{2}} {_CLOCK}", "%Y/%m/%d %H:%M:%S"),
        },
        _notes("DAY_ORDER at"),
    ),
    Case(
        "sometimes_a_time.csv",
        {"at": _moment(rf"{_ISO_DAY}( [0-9]{{2}}:[0-9]{{2}})?", "%Y-%m-%d[ %H:%M]"), "v": _integer()},
    ),
    Case(
        "years.csv",
        {
            "born": _day("[0-3][0-9]-[01][0-9]-[0-9]{2}", "%d-%m-%y"),
            "founded": _day("[0-3][0-9]/[01][0-9]/[01][0-9]{3}", "%d/%m/%Y"),
        },
        _notes("DAY_ORDER born", "TWO_DIGIT_YEARS born", "DAY_ORDER founded"),
    ),
    Case("compact_days.csv", {"day": _day("2023[0-9]{4}", "%Y%m%d"), "v": _integer()}),
    Case(
        "ambiguous_days.csv",
        {"day": _text("[0-9]{2}/[0-9]{2}/2024"), "k": _text("[ab]")},
        _notes("DAY_ORDER_UNKNOWN day", "NEAR_UNIQUE day"),
    ),
    Case(
        "ambiguous_days.csv",
        {"day": _day("[0-9]{2}/[0-9]{2}/2024", "%d/%m/%Y"), "k": _text("[ab]")},
        declared=(ColumnSpec("day", ColumnKind.DATETIME, written_form=WrittenForm(DatetimeForm("%d/%m/%Y"))),),
    ),
    Case(
        "two_orders.csv",
        {"day": _text("[0-9]{1,2}/[0-9]{1,2}/2016"), "k": _text("[ab]")},
        _notes("DAY_ORDER_UNKNOWN day"),
    ),
    Case("bad_days.csv", {"day": _text(_ISO_DAY), "k": _text("[ab]")}, _notes("NEAR_UNIQUE day")),
    # Truth values, text, ids.
    Case(
        "booleans.csv",
        {
            "python": _boolean("True", "False"),
            "sheet": _boolean("TRUE", "FALSE"),
            "bit": _integer("[01]"),
            "smoker": _boolean("yes", "no"),
        },
        declared=(ColumnSpec("smoker", ColumnKind.BOOLEAN, written_form=WrittenForm(BooleanForm("yes", "no"))),),
    ),
    Case(
        "codes.csv",
        {
            "seat": _text("[0-9]{2}E[0-9]"),
            "part": _text("[0-9]{5}"),
            "tag": _id("[a-f0-9]{8}", "[a-f0-9]{8}"),
            "route": _text(r"10\.0\.0\.[17]"),
        },
        _notes("MIXED_FORMS seat", "NEAR_UNIQUE seat", "LEADING_ZEROS part", "NEAR_UNIQUE tag", "LIKELY_KEY tag"),
    ),
    Case(
        "uuids.csv",
        {
            "request": _id(
                "[a-f0-9]{8}-([a-f0-9]{4}-){3}[a-f0-9]{12}",
                "[a-f0-9]{8}-[a-f0-9]{4}-4[a-f0-9]{3}-[a-f0-9]{4}-[a-f0-9]{12}",
            ),
            "ms": _integer(),
        },
        _notes("NEAR_UNIQUE request", "LIKELY_KEY request", "UNIQUE_NUMBER ms"),
    ),
    Case(
        "emails.csv",
        {"contact": _id(r"[a-z0-9.]+@[a-z.]+", "[a-z0-9]{7,10}@example.com"), "plan": _text("[abc]")},
        _notes("NEAR_UNIQUE contact"),
    ),
    Case(
        "orders.csv",
        {
            "nr": Column(ColumnKind.ID, DataType.INT64, "[1-9][0-9]*"),
            "order": _id("KD-[0-9]{6}", "KD-[0-9]{6}"),
            "amount": _integer(),
        },
        _notes("ROW_NUMBER nr", "LIKELY_KEY nr", "NEAR_UNIQUE order", "LIKELY_KEY order"),
    ),
    Case(
        "population.csv",
        {"town": _text("[pqr]"), "population": _integer("[0-9]{4}"), "updated": _integer("17[0-9]{8}")},
        _notes("UNIQUE_NUMBER population", "UNIQUE_NUMBER updated"),
    ),
    # Missing cells.
    Case(
        "quoted_all.csv",
        {"who": _text("Ida|Ole"), "age": _integer("[0-9]{2}"), "note": _text("ok|late")},
        _notes("QUOTED_EMPTY"),
    ),
    Case(
        "marked_missing.csv",
        {"score": _integer("[0-9]{2}"), "depth": _number(r"[0-9]\.[0-9]"), "k": _text("[ab]")},
        options={"null_values": ["NA"]},
        declared=(ColumnSpec("depth", null_values=("-999",)),),
    ),
    Case(
        "infinite.csv",
        {"ratio": _number(r"0\.[0-9]{3}", minimum_fraction_digits=3), "k": _text("[ab]")},
        _notes("INFINITE ratio"),
        table=TableOptions(infinite=InfinitePolicy.MISSING),
    ),
    # Dialects, encodings, layouts.
    Case("tabs.tsv", {"who": _text("Ida|Ole, jr."), "kg": _number(r"[0-9]{2}\.[0-9]")}, _notes("DIALECT")),
    Case("pipes.csv", {"who": _text("Ida|Ole"), "kg": _number(r"[0-9]{2}\.[0-9]")}, _notes("DIALECT")),
    Case("sep_line.csv", {"a": _integer(), "b": _text("[xyz]")}, _notes("DIALECT")),
    Case(
        "cp1252.csv",
        {"name": _text("Zoë|Jürgen"), "price": _number(r"€[0-9]+\.00", prefix="€", minimum_fraction_digits=2)},
        options={"encoding": "cp1252"},
    ),
    Case("utf16.csv", {"name": _text("Zoë|Bo"), "n": _integer()}, _notes("DIALECT")),
    Case(
        "no_header.csv",
        {
            "column1": _text("Oslo|Rome"),
            "column2": _number(r"[0-9]\.[0-9]{2}", minimum_fraction_digits=2),
            "column3": Column(ColumnKind.DATETIME, DataType.DATE, _ISO_DAY),
        },
        options={"header": "absent"},
    ),
    Case(
        "preamble.csv",
        {"day": Column(ColumnKind.DATETIME, DataType.DATE, _ISO_DAY), "kwh": _integer()},
        options={"skip_rows": 3},
    ),
    Case("records.json", _RECORDS),
    Case("index.json", _RECORDS, _notes("DIALECT")),
    Case("split.json", _RECORDS, _notes("DIALECT")),
    Case(
        "digits.ndjson",
        {
            "code": Column(ColumnKind.ID, DataType.STRING, "0[0-9]{4}", pattern="0[0-9]{4}"),
            "seen": Column(ColumnKind.DATETIME, DataType.TIMESTAMP, rf"{_ISO_DAY}T{_CLOCK}Z"),
            "n": _integer(),
            "big": _id("[0-9]{19,20}", "1[0-7][0-9]{18}"),
        },
        _notes("BEYOND_INT64 big", "MIXED_FORMS big", "NEAR_UNIQUE big"),
        declared=(ColumnSpec("code", ColumnKind.ID),),
    ),
    Case(
        "narrow.parquet",
        {
            "small": Column(ColumnKind.NUMERICAL, DataType.INT64, "-?[0-9]{1,2}", {"storage": "int16"}),
            "share": Column(ColumnKind.NUMERICAL, DataType.DOUBLE, r"0\.[0-9]{1,2}", {"storage": "float32"}),
            "at": Column(ColumnKind.DATETIME, DataType.TIMESTAMP, rf"{_ISO_DAY}T{_CLOCK}", {"storage": "timestamp_ms"}),
            "hash": replace(_id("[0-9]{19,20}", "[1-9][0-9]{18}"), form={"storage": "uint64"}),
            "clock": Column(
                ColumnKind.NUMERICAL,
                DataType.INT64,
                _CLOCK,
                {"datetime": {"pattern": "%H:%M:%S[.%6f]"}, "storage": "time32_ms"},
            ),
            "k": _text("[ab]"),
        },
        _notes("BEYOND_INT64 hash", "MIXED_FORMS hash", "NEAR_UNIQUE hash"),
    ),
)
"""Inputs that are read."""

REFUSED = (
    Refused("cp1252.csv", r"line 2: the bytes here are not utf-8; .* --encoding cp1252.*"),
    Refused("infinite.csv", r"line 6: row 5: column ratio: 'inf' is not a finite number; --infinite missing .*"),
    Refused("no_header.csv", r"line 1: .* could be a row; if the file has no header: --no-header; .* --header"),
    Refused("preamble.csv", r"line 1: lines 1 to 3 have fewer fields .* --skip-rows 3; .*"),
    Refused("ragged.csv", r"line 3: row 2: has 2 fields, the header has 3 \(and 1 more\)"),
    Refused("trailing_note.csv", r"line 2: row 1: has 4 fields, the header has 3; .* name the last column .*"),
    Refused("wrapped.json", r"line 1: column data: is an object in an array: .* upload that array alone .*"),
    Refused(
        "us_times.csv",
        r"line 2: row 1: column at: '8/14/2022 9:25 PM' is not .*%d\.%m\.%Y.*",
        declared=(ColumnSpec("at", ColumnKind.DATETIME, written_form=WrittenForm(DatetimeForm("%d.%m.%Y"))),),
    ),
    Refused(
        "phones.csv",
        r"line 2: row 1: column name: 'Di' is not a finite number .*",
        declared=(ColumnSpec("name", ColumnKind.NUMERICAL),),
    ),
)
"""Inputs that are refused."""
