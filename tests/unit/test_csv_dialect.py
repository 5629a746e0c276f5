"""The dialect of a CSV file: what is seen from its beginning, what is reported of it, and what is refused."""

import io

import pytest

from rowmint.errors import InvalidDataError, InvalidFieldError
from trainer_service.datasets.formats import CsvFormat, CsvHeader, QuotedEmpty, format_from_json
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import NoticeCode
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers import csv_bytes, csv_dialect, open_reader


def opened(data, **declared):
    data = data.encode() if isinstance(data, str) else data
    return open_reader(io.BytesIO(data), CsvFormat(**declared), IngestLimits())


def read(data, **declared):
    """Return the columns of a table as lists, the notices as (code, flag), and the problems as (line, row)."""
    reader = opened(data, **declared)
    problems = Problems()
    columns = {}
    for batch in reader.batches(problems):
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            columns.setdefault(name, []).extend(array.to_pylist())
    notices = [(notice.code, notice.flag) for notice in reader.notices.all()]
    return columns, notices, [(problem.line, problem.row) for problem in problems.found]


def refusal(data, **declared):
    """Return the line and the message of the first problem of a file that is refused."""
    with pytest.raises(InvalidDataError) as caught:
        opened(data, **declared)
    return caught.value.problems[0].line, caught.value.problems[0].message


DELIMITER = (NoticeCode.DIALECT, "--delimiter")
COMMENT = (NoticeCode.DIALECT, "--comment")
EMPTY_COLUMN = (NoticeCode.EMPTY_COLUMN, "")
SEEN = [
    ("a,b\n1,x\n", {"a": ["1"], "b": ["x"]}, []),
    ("a;b\n1;x\n", {"a": ["1"], "b": ["x"]}, [DELIMITER]),
    ("a\tb\n1\tx, y\n", {"a": ["1"], "b": ["x, y"]}, [DELIMITER]),
    ("a|b|c\n1|x|\n", {"a": ["1"], "b": ["x"], "c": [None]}, [DELIMITER]),
    ("a;b\n1,5;2,5\n", {"a": ["1,5"], "b": ["2,5"]}, [DELIMITER]),
    ('"a";"b"\n"1,5";"x ""y"""\n', {"a": ["1,5"], "b": ['x "y"']}, [DELIMITER]),
    ('"a,1";"b,2"\n"1,5";"2,5"\n', {"a,1": ["1,5"], "b,2": ["2,5"]}, [DELIMITER]),
    ("name;street, no;zip\nAna;Elm, 5;1\n", {"name": ["Ana"], "street, no": ["Elm, 5"], "zip": ["1"]}, [DELIMITER]),
    ("a,b\nx;y,1\nz;w,2\n", {"a": ["x;y", "z;w"], "b": ["1", "2"]}, []),
    ("a\n1\n2\n", {"a": ["1", "2"]}, []),
    ("a;b\n", {}, [DELIMITER]),
    ("# made 2024\n# unit: kWh\na,b\n1,2\n", {"a": ["1"], "b": ["2"]}, [COMMENT]),
    ("# made, 2024\n\na,b\nx,y\n", {"a": ["x"], "b": ["y"]}, [COMMENT]),
    ("#id,name\n1,x\n", {"#id": ["1"], "name": ["x"]}, []),
    ("# made\n#id\tname\n1\tx\n", {"#id": ["1"], "name": ["x"]}, [COMMENT, DELIMITER]),
    ("#1\n#2\na\n1\n", {"a": ["1"]}, [COMMENT]),
    ("a,b\n1,2,\n3,4,\n", {"a": ["1", "3"], "b": ["2", "4"]}, [EMPTY_COLUMN]),
    ("a,b,\n1,2,\n3,4,\n", {"a": ["1", "3"], "b": ["2", "4"]}, [EMPTY_COLUMN]),
    ("a,b,\n1,2\n3,4\n", {"a": ["1", "3"], "b": ["2", "4"]}, []),
    ("a;b;\n1;2;\n", {"a": ["1"], "b": ["2"]}, [DELIMITER, EMPTY_COLUMN]),
    ("sep=;\na;b\n1,0;2\n", {"a": ["1,0"], "b": ["2"]}, [COMMENT, DELIMITER]),
    ("sep=,\r\na,b\r\n1,2\r\n", {"a": ["1"], "b": ["2"]}, [COMMENT]),
    ("city n\nOslo 1\nRome 2\n", {"city n": ["Oslo 1", "Rome 2"]}, [(NoticeCode.DIALECT, "--delimiter space")]),
    ("full name\nAna Paz\nBo Li\n", {"full name": ["Ana Paz", "Bo Li"]}, []),
    ("sep=x\n1\n", {"sep=x": ["1"]}, []),
    ("\ufeffa;b\r\n1;\u00e9\r\n", {"a": ["1"], "b": ["\u00e9"]}, [DELIMITER]),
]


@pytest.mark.parametrize(("text", "columns", "notices"), SEEN, ids=[repr(case[0])[:40] for case in SEEN])
@pytest.mark.parametrize("chunk", [3, 5, 1 << 20])
def test_the_dialect_is_seen_and_reported(monkeypatch, text, columns, notices, chunk):
    monkeypatch.setattr(csv_bytes, "_CHUNK", chunk)
    assert (columns, notices, []) == read(text)


def test_utf_16_is_seen_from_its_mark():
    for encoding, mark in (("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")):
        columns, notices, _ = read(mark + "a\tb\n1\t\u00e9\n".encode(encoding))
        assert columns == {"a": ["1"], "b": ["\u00e9"]}
        assert notices == [(NoticeCode.DIALECT, "--encoding"), DELIMITER]


def test_what_is_not_utf_8_is_refused_with_what_it_may_be():
    line, message = refusal("a,b\n1,2\n3,\u20ac\n".encode("cp1252"))
    assert (line, "--encoding cp1252" in message) == (3, True)
    assert read("a,b\n1,\u20ac\n".encode("cp1252"), encoding="cp1252")[0] == {"a": ["1"], "b": ["\u20ac"]}


def test_control_characters_of_latin_1_are_noted():
    data = "a,b\n1,\u20ac\n".encode("cp1252")
    assert read(data, encoding="latin-1")[1] == [(NoticeCode.DIALECT, "--encoding cp1252")]
    assert read("a,b\n1,\u00e9\n".encode("latin-1"), encoding="latin-1")[1] == []


def test_the_beginning_decides_and_all_rows_are_held_against_it(monkeypatch):
    monkeypatch.setattr(csv_dialect, "BEGINNING", 40)
    monkeypatch.setattr(csv_bytes, "_CHUNK", 16)
    text = "a;b\n" + "1;2\n" * 20
    for last in ("3,4\n", "3;4;5\n"):
        columns, _, problems = read(text + last)
        assert (columns["a"], problems) == (["1"] * 20, [(22, 21)])
    message = next(iter(problems_of(text + "3,4\n"))).message
    hint = "(the delimiter ';' was seen; another one: --delimiter); if it is a comment: --comment"
    assert message == f"has 1 fields, the header has 2 {hint}"


def problems_of(data, **declared):
    problems = Problems()
    for _ in opened(data, **declared).batches(problems):
        pass
    return problems.found


def test_a_last_field_without_a_name_must_be_empty_in_every_row(monkeypatch):
    monkeypatch.setattr(csv_dialect, "BEGINNING", 20)
    found = problems_of("a,b\n" + "1,2,\n" * 9 + "1,2,3\n" + "4,5\n")
    assert [(problem.message, problem.row) for problem in found if problem.row == 10] == [
        ("has text in the last field, which has no name and is empty before", 10)
    ]
    assert [(problem.line, problem.row) for problem in found if "of which the last is empty" in problem.message] == [
        (12, 11)
    ]


@pytest.mark.parametrize(
    ("text", "declared", "line", "words"),
    [
        ("Report\nof 2024\na;b\n1;2\n3;4\n", {}, 1, "--skip-rows 2"),
        ("Report\n\na,b\n1,2\n", {}, 1, "--skip-rows 2"),
        ("Vendor;Test\nStart;2024\na;b;c\n1;2;3\n5;6;7\n", {}, 1, "--skip-rows 2"),
        ("Vendor;Test\nStart;2024\na;b;c;d\n1;2;3;4\n5;6;7;8\n", {}, 1, "--skip-rows 2"),
        ("a;b\n1;2\n", {"delimiter": ","}, 1, "--delimiter ';'"),
        ("a\tb\n1\t2\n", {"delimiter": ";"}, 1, r"--delimiter '\t'"),
        ("1.5,2.5\n3.5,4.5\n", {}, 1, "--no-header"),
        ("Oslo,2020-01-01\nRome,2020-01-02\n", {}, 1, "--no-header"),
        ("Oslo,-4\nRome,20\n", {}, 1, "--no-header"),
        ("1,2,x\n1,2,y\n3,4,z\n", {}, 1, "--no-header"),
        ("Oslo,4\nRome,20\nOslo,3\n", {}, 1, "--no-header"),
        ("", {"header": CsvHeader.ABSENT}, 0, "empty"),
        ("1,2\n", {"column_names": ("a", "b", "c")}, 1, "has 2 fields, but 3 column names"),
        ("1,2\n", {"column_names": ("a", "a")}, 0, "same name"),
    ],
)
def test_what_cannot_be_a_table_is_refused_with_the_option(text, declared, line, words):
    found, message = refusal(text, **declared)
    assert (line, True) == (found, words in message)


HEADER = (NoticeCode.HEADER, "--no-header")


@pytest.mark.parametrize(
    ("text", "notices"),
    [
        ("country,2019,2020\nNorway,5,6\n", [HEADER]),
        ("country,2019,2020\nNorway,5.5,6.5\n", [HEADER]),
        ("country,2020-01-01\nNorway,5\n", []),
        ("Oslo,Bergen\nRome,Turin\n", []),
        ("3\n5\n4\n", [HEADER]),
        ("id,2020\n1,3000\n", []),
    ],
)
def test_names_that_are_numbers_are_noted(text, notices):
    assert notices == read(text)[1]
    assert read(text, header=CsvHeader.PRESENT)[1] == []


def test_a_file_without_a_header():
    text = "Oslo,4\n\nRome,20,1\nBari,5\n"
    expected = {"column1": ["Oslo", "Bari"], "column2": ["4", "5"]}
    assert (expected, [], [(3, 2)]) == read(text, header=CsvHeader.ABSENT)
    named = {"city": ["Oslo", "Bari"], "n": ["4", "5"]}
    assert (named, [], [(3, 2)]) == read(text, column_names=("city", "n"))
    ended = read("Oslo,4,\nRome,20,\n", header=CsvHeader.ABSENT)
    assert ended == ({"column1": ["Oslo", "Rome"], "column2": ["4", "20"]}, [EMPTY_COLUMN], [])
    assert opened(text, header=CsvHeader.ABSENT).lines_of({3}) == {3: 4}


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_comments_are_skipped_outside_quotes_and_lines_stay_right(monkeypatch, chunk, end):
    monkeypatch.setattr(csv_bytes, "_CHUNK", chunk)
    lines = [
        '!! "made',
        "a,b",
        "!! x",
        "1,2",
        '!!it"s',
        '"!!", "x"'.replace(" ", ""),
        '"u',
        '!! v",3',
        "4",
        "!!",
        "!!",
        "5,6,7",
    ]
    columns, _, problems = read(end.join(lines) + end, comment="!!")
    assert {"a": ["1", "!!", f"u{end}!! v"], "b": ["2", "x", "3"]} == columns
    assert problems == [(9, 4), (12, 5)]


@pytest.mark.parametrize("chunk", [1, 4, 1 << 20])
def test_in_one_column_a_comment_is_no_row(monkeypatch, chunk):
    monkeypatch.setattr(csv_bytes, "_CHUNK", chunk)
    reader = opened("%\na\n1\n%\n\n%\n3\n", comment="%")
    assert [cell for batch in reader.batches(Problems()) for cell in batch.column(0).to_pylist()] == ["1", None, "3"]
    assert reader.lines_of({1, 2, 3}) == {1: 3, 2: 5, 3: 7}


@pytest.mark.parametrize("chunk", [1, 2, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_skipped_lines_count_in_the_lines_of_problems(monkeypatch, chunk, end):
    monkeypatch.setattr(csv_bytes, "_CHUNK", chunk)
    text = end.join(['Report, "of', "2024", "a,b", "1,2", "3", ""])
    columns, notices, problems = read(text, skip_rows=2)
    assert (columns, notices, problems) == ({"a": ["1"], "b": ["2"]}, [], [(5, 2)])


def test_more_lines_skipped_than_there_are():
    assert "empty" in refusal("a,b\n1,2\n", skip_rows=2)[1]


@pytest.mark.parametrize(
    ("declared", "second"),
    [(QuotedEmpty.SEEN, None), (QuotedEmpty.MISSING, None), (QuotedEmpty.TEXT, "")],
)
def test_quoted_empty_fields_where_all_are_quoted(declared, second):
    columns, notices, _ = read('"a","b"\n"1","x"\n"",""\n', quoted_empty=declared)
    assert {"a": ["1", second], "b": ["x", second]} == columns
    assert ([(NoticeCode.QUOTED_EMPTY, "--quoted-empty text")] if declared is QuotedEmpty.SEEN else []) == notices


@pytest.mark.parametrize("text", ['a,b\n"1","x"\n"",""\n', '"a","b"\n"1",x\n"",""\n', '"a","b"\n"1",\n"",""\n'])
def test_quoted_empty_fields_where_not_all_are_quoted(text):
    columns, notices, _ = read(text)
    assert (columns["a"], notices) == (["1", ""], [])
    assert read(text, quoted_empty=QuotedEmpty.MISSING)[0]["a"] == ["1", None]


def test_quoted_empty_fields_of_a_single_column_are_missing():
    columns, notices, _ = read('a\nx\n""\ny\n')
    assert columns == {"a": ["x", None, "y"]}
    assert notices == [(NoticeCode.QUOTED_EMPTY, "--quoted-empty text")]
    assert read('a\nx\n""\ny\n', quoted_empty=QuotedEmpty.TEXT)[0] == {"a": ["x", "", "y"]}


def test_what_was_seen_can_be_declared():
    text = "# x\n'a';'b'\n'';'2'\n"
    reader = opened(text, quote="'")
    assert reader.dialect.to_json() == {
        "delimiter": ";",
        "quote": "'",
        "encoding": "utf-8",
        "skip_rows": 1,
        "quoted_empty": "missing",
    }
    assert reader.dialect == CsvFormat.from_json(reader.dialect.to_json())
    again = open_reader(io.BytesIO(text.encode()), reader.dialect, IngestLimits())
    assert (reader.dialect, ()) == (again.dialect, again.notices.all())


def test_numbers_of_a_locale_are_handed_on():
    hints = opened("a;b\n1,5;2\n", decimal=",", group_separator=".").hints
    assert (hints.delimiter, hints.decimal, hints.group_separator) == (";", ",", ".")
    assert (opened("a\n1\n").hints.decimal, opened("a\n1\n").hints.group_separator) == ("", None)


@pytest.mark.parametrize("name", ["tab", "\\t", "\t"])
def test_names_of_delimiters(name):
    assert CsvFormat(delimiter="\t") == format_from_json({"type": "csv", "delimiter": name})


def test_a_header_longer_than_what_is_looked_at(monkeypatch):
    monkeypatch.setattr(csv_dialect, "BEGINNING", 10)
    names = [f"column {number}" for number in range(30)]
    assert names == list(read(";".join(names) + "\n" + ";".join("1" * 30) + "\n")[0])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"comment": "#####"}, "comment"),
        ({"comment": '"'}, "comment"),
        ({"skip_rows": -1}, "skip_rows"),
        ({"skip_rows": 1_000_001}, "skip_rows"),
        ({"decimal": "x"}, "decimal"),
        ({"decimal": ",,"}, "decimal"),
        ({"decimal": ",", "group_separator": ","}, "group_separator"),
        ({"column_names": ("a",), "header": CsvHeader.PRESENT}, "column_names"),
        ({"encoding": "cp1251"}, "encoding"),
    ],
)
def test_a_wrong_dialect_is_refused(options, field):
    with pytest.raises(InvalidFieldError, match=f"dataset.format.csv.{field}"):
        CsvFormat(**options)
