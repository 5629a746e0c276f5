"""Spellings of numbers: the type, the digits and the form of a column that has them."""

from decimal import Decimal

import pyarrow as pa
import pytest

from rowmint.schema import ColumnKind, ColumnSpec, DataType
from rowmint.schema.forms import ExponentStyle, Grouping, NegativeStyle, NumberForm, PlusSign, WrittenForm
from tests.inferring import infer, infer_table
from trainer_service.datasets.conversion import InfinityRule, convert
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.limits import IngestLimits

NBSP, NARROW = "\u00a0", "\u202f"
THOUSANDS = {"grouping": Grouping.THOUSANDS, "group_separator": ","}
INT, DOUBLE, DECIMAL, STRING = DataType.INT64, DataType.DOUBLE, DataType.DECIMAL, DataType.STRING

SPELLINGS = [
    (["1", "-2", "0"], INT, [1, -2, 0], NumberForm()),
    (["1.5", "2.25"], DOUBLE, [1.5, 2.25], NumberForm()),
    (["1.0", "2.5"], DOUBLE, [1.0, 2.5], NumberForm()),
    (["12.50", "3.00", "0.05"], DOUBLE, [12.5, 3.0, 0.05], NumberForm(minimum_fraction_digits=2)),
    (["1", "2.5"], DOUBLE, [1.0, 2.5], NumberForm(minimum_fraction_digits=0)),
    (["$5,786.95", "$12.00"], DOUBLE, [5786.95, 12.0], NumberForm(prefix="$", minimum_fraction_digits=2, **THOUSANDS)),
    (["58.1%", "7.0%"], DOUBLE, [58.1, 7.0], NumberForm(suffix="%")),
    (["58 %", "7 %"], INT, [58, 7], NumberForm(suffix=" %")),
    (
        ["(33.00)", "4.50"],
        DOUBLE,
        [-33.0, 4.5],
        NumberForm(minimum_fraction_digits=2, negative=NegativeStyle.PARENTHESES),
    ),
    (
        ["($1,033.00)", "$4.50"],
        DOUBLE,
        [-1033.0, 4.5],
        NumberForm(prefix="$", minimum_fraction_digits=2, negative=NegativeStyle.PARENTHESES, **THOUSANDS),
    ),
    (["-$5", "$7"], INT, [-5, 7], NumberForm(prefix="$")),
    (["$-5", "$7"], INT, [-5, 7], NumberForm(prefix="$", sign_after_prefix=True)),
    (["EUR 5.10", "EUR 17.25"], DOUBLE, [5.1, 17.25], NumberForm(prefix="EUR ", minimum_fraction_digits=2)),
    (
        ["5,10 €", "17,25 €"],
        DOUBLE,
        [5.1, 17.25],
        NumberForm(suffix=" €", decimal_separator=",", minimum_fraction_digits=2),
    ),
    (["R$ 5", "R$ 12"], INT, [5, 12], NumberForm(prefix="R$ ")),
    (
        ["₹12,34,567", "₹5,000"],
        INT,
        [1234567, 5000],
        NumberForm(prefix="₹", grouping=Grouping.INDIAN, group_separator=","),
    ),
    (["1,234,567", "12"], INT, [1234567, 12], NumberForm(**THOUSANDS)),
    (["123,4567", "1,2345"], INT, [1234567, 12345], NumberForm(grouping=Grouping.MYRIAD, group_separator=",")),
    (
        ["1.234,5", "7,0"],
        DOUBLE,
        [1234.5, 7.0],
        NumberForm(decimal_separator=",", grouping=Grouping.THOUSANDS, group_separator="."),
    ),
    (
        ["1'234.50", "7.25"],
        DOUBLE,
        [1234.5, 7.25],
        NumberForm(grouping=Grouping.THOUSANDS, group_separator="'", minimum_fraction_digits=2),
    ),
    *(
        (
            [f"1{space}234,5", "7,0"],
            DOUBLE,
            [1234.5, 7.0],
            NumberForm(decimal_separator=",", grouping=Grouping.THOUSANDS, group_separator=space),
        )
        for space in (" ", NBSP, NARROW)
    ),
    (["1_000", "2"], INT, [1000, 2], NumberForm(grouping=Grouping.THOUSANDS, group_separator="_")),
    (["5.5-", "7.5"], DOUBLE, [-5.5, 7.5], NumberForm(negative=NegativeStyle.TRAILING_MINUS)),
    (["5CR", "7"], INT, [-5, 7], NumberForm(negative=NegativeStyle.CREDIT)),
    (["\u22125.5", "7.5"], DOUBLE, [-5.5, 7.5], NumberForm(negative=NegativeStyle.UNICODE_MINUS)),
    (["+2", "-1", "0"], INT, [2, -1, 0], NumberForm(plus=PlusSign.POSITIVE)),
    (["+2", "-1", "+0"], INT, [2, -1, 0], NumberForm(plus=PlusSign.NOT_NEGATIVE)),
    (["+1.5", "+22.75"], DOUBLE, [1.5, 22.75], NumberForm(plus=PlusSign.POSITIVE)),
    ([".5", "-.25"], DOUBLE, [0.5, -0.25], NumberForm(leading_point=True)),
    (["1.5e-05", "2.25"], DOUBLE, [1.5e-05, 2.25], NumberForm()),
    (
        ["1.5E+05", "2.5E-03"],
        DOUBLE,
        [150000.0, 0.0025],
        NumberForm(exponent=ExponentStyle.ALWAYS, exponent_upper=True, exponent_plus=True),
    ),
    (
        ["3.038e-06", "4.500e+12"],
        DOUBLE,
        [3.038e-06, 4.5e12],
        NumberForm(minimum_fraction_digits=3, exponent=ExponentStyle.ALWAYS, exponent_plus=True),
    ),
    (["0.00001", "0.12345"], DOUBLE, [0.00001, 0.12345], NumberForm(exponent=ExponentStyle.NEVER)),
    (["1.5 kg", "22.25 kg"], DOUBLE, [1.5, 22.25], NumberForm(suffix=" kg")),
    (["20°C", "-3°C"], INT, [20, -3], NumberForm(suffix="°C")),
    (["82544000000000707.52", "1.05"], DECIMAL, None, NumberForm()),
    (["0.1234567890123456", "0.5"], DOUBLE, [0.1234567890123456, 0.5], NumberForm()),
]


@pytest.mark.parametrize(("cells", "data_type", "values", "form"), SPELLINGS, ids=[cells[0] for cells, *_ in SPELLINGS])
def test_a_spelling_is_learned(
    cells: list[str], data_type: DataType, values: list[float] | None, form: NumberForm
) -> None:
    target, _ = infer(cells)
    assert (target.data_type, target.form.form or NumberForm()) == (data_type, form)
    converted = convert(pa.array(cells), target, IngestLimits(), InfinityRule())
    assert not converted.bad.any()
    expected = [Decimal(cell) for cell in cells] if values is None else values
    assert converted.array.to_pylist() == expected


@pytest.mark.parametrize(
    ("cells", "code"),
    [
        (["+4930123456", "+4917012345"], "LEADING_ZEROS"),
        (["07402", "12345"], "LEADING_ZEROS"),
        (["12E4", "9512e209", "77"], "MIXED_FORMS"),
        (["1E5", "2"], "MIXED_FORMS"),
        (["$5", "€7"], "MIXED_FORMS"),
        (["5 kg", "500 g"], "MIXED_FORMS"),
        (["9223372036854775808", "1"], "BEYOND_INT64"),
        ([f"612 345 {number}" for number in range(100, 130)], None),
        ([f"192.168.101.{number}" for number in range(100, 130)], None),
        (["1,2,3", "4"], None),
        (["12-34", "5"], None),
        (["A12", "A13"], None),
        (["12A", "13A"], None),
        (["5 x", "6 x"], None),
        (["1.2.3", "4.5.6"], None),
        (["0x10", "1"], None),
        (["(5", "6)"], None),
        (["1" * 65, "2"], None),
    ],
)
def test_text_stays_text(cells: list[str], code: str | None) -> None:
    target, codes = infer(cells)
    assert (target.data_type, codes) == (STRING, [] if code is None else [code])


@pytest.mark.parametrize(
    ("cells", "hints", "values", "reported"),
    [
        (["1,234", "5,678"], FormatHints(), [1234, 5678], True),
        (["1,234", "5,678"], FormatHints(delimiter=";"), [1.234, 5.678], True),
        (["1,234", "5,678"], FormatHints(decimal=","), [1.234, 5.678], False),
        (["1.234", "5.678"], FormatHints(), [1.234, 5.678], True),
        (["1.234", "5.678"], FormatHints(decimal=","), [1234, 5678], False),
        (["1.234", "5.678"], FormatHints(group_separator="."), [1234, 5678], False),
        (["1.234", "5.678"], FormatHints(group_separator=""), [1.234, 5.678], False),
        (["1,234", "5,678"], FormatHints(group_separator=""), [1.234, 5.678], False),
        (["1,234", "5,67"], FormatHints(), [1.234, 5.67], False),
        (["1,234", "5,678,901"], FormatHints(), [1234, 5678901], False),
        (["1.234", "0.5"], FormatHints(delimiter=";"), [1.234, 0.5], False),
        (["1.234", "5.678.901"], FormatHints(), [1234, 5678901], False),
        (["1.234", "0.678"], FormatHints(), [1.234, 0.678], False),
        (["1,234", "0,678"], FormatHints(), [1.234, 0.678], False),
    ],
)
def test_a_comma_before_three_digits(
    cells: list[str], hints: FormatHints, values: list[float], *, reported: bool
) -> None:
    target, codes = infer(cells, hints)
    assert convert(pa.array(cells), target, IngestLimits(), InfinityRule()).array.to_pylist() == values
    assert ("DECIMAL_COMMA" in codes) is reported


def test_another_column_says_what_the_comma_is() -> None:
    targets, notices = infer_table({"a": ["1,234", "5,678"], "b": ["0,5", "1,75"]})
    assert (targets["a"].data_type, targets["a"].decimal) == (DOUBLE, ",")
    assert [str(notice.code) for notice in notices] == ["DECIMAL_COMMA"]


@pytest.mark.parametrize(
    ("cells", "form", "rows"),
    [
        (["5%"] * 3 + ["7"], NumberForm(suffix="%"), 1),
        (["1.10", "1.1", "1.2", "2.3"], NumberForm(), 1),
        (["-1", "-2", "(3)"], NumberForm(), 1),
        (["12,345,678", "12345", "54321"], NumberForm(), 1),
    ],
)
def test_the_form_of_most_rows_is_used(cells: list[str], form: NumberForm, rows: int) -> None:
    targets, notices = infer_table({"x": cells})
    assert targets["x"].form.form or NumberForm() == form
    assert [(str(notice.code), notice.rows) for notice in notices] == [("MIXED_FORMS", rows)]


def test_a_declaration_reaches_the_parser() -> None:
    phone = ["+4930123456", "+4917012345"]
    assert infer(phone, declared=ColumnSpec("x", ColumnKind.NUMERICAL))[0].data_type is INT
    for kind in (ColumnKind.CATEGORICAL, ColumnKind.ID, ColumnKind.IGNORED):
        for cells in (["1.5E5", "2.5"], ["+351", "0"], ["$5"], ["1.10", "1.1"]):
            target, _ = infer(cells, declared=ColumnSpec("x", kind))
            assert (target.data_type, target.form) == (STRING, target.form.from_json({}))
    assert infer(["1", "2"], declared=ColumnSpec("x", ColumnKind.CATEGORICAL))[0].data_type is INT


def test_words_for_a_missing_value_are_reported() -> None:
    targets, notices = infer_table({"x": ["1.5", "NA", "2.5", "NA", "-"]})
    assert targets["x"].data_type is STRING
    (notice,) = notices
    assert (notice.rows, notice.flag) == (3, "--column-null x=- --column-null x=NA")
    assert infer_table({"x": ["1.5", "NA", "b"]})[1] == infer_table({"x": ["NA", "-"]})[1] == ()


def test_a_declared_form_is_the_only_one() -> None:
    form = WrittenForm(NumberForm(prefix="$", minimum_fraction_digits=2, **THOUSANDS))
    cells = ["$1,234.50", "7", "\u20ac5", "1.234,50", "n/a", "$2"]
    target, _ = infer(cells, declared=ColumnSpec("x", ColumnKind.NUMERICAL, written_form=form))
    converted = convert(pa.array(cells), target, IngestLimits(), InfinityRule())
    assert (target.data_type, target.form) == (DOUBLE, form)
    assert converted.array.to_pylist() == [1234.5, 7.0, None, None, None, 2.0]
    assert converted.bad.tolist() == [False, False, True, True, True, False]


def test_digits_that_a_double_does_not_hold_are_reported() -> None:
    targets, notices = infer_table({"x": ["0.12345678901234567890123", "0.5"]})
    assert targets["x"].data_type is DOUBLE
    assert [(str(notice.code), notice.rows) for notice in notices] == [("DIGITS_DROPPED", 1)]


def test_long_fractions_of_few_digits_are_exact() -> None:
    target, codes = infer(["1.62762513720685046", "-4.91572134810184671"])
    assert (target.data_type, target.decimals, codes) == (DECIMAL, 17, [])


@pytest.mark.parametrize(
    ("cells", "codes"),
    [
        (["1.5e3", "1.5e4"], []),
        (["1.5e3", "0.5e4"], ["MIXED_FORMS"]),
        (["1.5e3", "1.5E4"], ["MIXED_FORMS"]),
        (["1.5e3", "1.5e04"], ["MIXED_FORMS"]),
        (["1.5e3", "1.5e+4"], ["MIXED_FORMS"]),
        (["1.5e-5", "1500.0"], []),
        (["1.5e3", "1500.5"], ["MIXED_FORMS"]),
        (["1e-05", "0.00001"], ["MIXED_FORMS"]),
        (["0.5", "0.00001"], []),
        (["5.", "6."], ["MIXED_FORMS"]),
        (["-0.0", "0.5"], ["MIXED_FORMS"]),
        (["+0.0", "0.5"], ["MIXED_FORMS"]),
    ],
)
def test_spellings_that_no_form_has_are_reported(cells: list[str], codes: list[str]) -> None:
    assert infer(cells)[1] == codes


def test_small_numbers_without_an_exponent_have_none() -> None:
    assert infer(["0.5", "0.0000000000000000001"])[0].form.form == NumberForm(exponent=ExponentStyle.NEVER)


@pytest.mark.parametrize("suffix", [",-", ".-", ",\u2013", ",- kr"])
def test_a_dash_for_no_fraction_is_no_sign(suffix: str) -> None:
    target, codes = infer([f"kr 7{suffix}", f"kr 1200{suffix}"])
    assert (target.data_type, target.form.form, codes) == (INT, NumberForm(prefix="kr ", suffix=suffix), [])


@pytest.mark.parametrize("cell", ["$" + " " * 20 + "1.50", "$\t1.50", "1.50\tkg"])
def test_what_stands_around_a_number_is_short_and_printable(cell: str) -> None:
    assert infer([cell])[0].data_type is STRING


def test_few_rows_with_more_digits_are_reported() -> None:
    targets, notices = infer_table({"x": [*(f"0.{number:05d}1"[:7] for number in range(3000)), "0.12345678"]})
    assert targets["x"].decimals == 8
    assert [(str(notice.code), notice.rows, notice.flag) for notice in notices] == [
        ("ROUNDING", 1, "--column x=numerical::5"),
    ]


def test_spaces_around_numbers() -> None:
    assert infer(["  1", " 12", "123"])[0].form.pad_width == 3
    target, codes = infer([" 1", "12 "])
    assert (target.data_type, target.form.pad_width, codes) == (INT, 0, ["PADDING"])


def test_texts_without_characters_are_missing_numbers() -> None:
    target, codes = infer(["1.5", "", " ", None])
    converted = convert(pa.array(["1.5", "", " ", None]), target, IngestLimits(), InfinityRule())
    assert (converted.array.to_pylist(), converted.bad.any(), codes) == (
        [1.5, None, None, None],
        False,
        ["QUOTED_EMPTY"],
    )
