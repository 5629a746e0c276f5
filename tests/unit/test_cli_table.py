"""Options that say how a table is read: declarations of columns, the types file, and what a profile shows."""

import json
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from rowmint.cli.app import app
from rowmint.cli.declarations import declared_columns, with_values
from rowmint.cli.table_options import TableOptions
from rowmint.cli.types_file import TypesFile
from rowmint.errors import InvalidDataError, InvalidFieldError
from rowmint.rpc.converters import column_from_proto, column_to_proto
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain
from rowmint.schema.forms import (
    BooleanForm,
    DatetimeForm,
    Grouping,
    NegativeStyle,
    NumberForm,
    PlusSign,
    StorageType,
    WrittenForm,
)
from rowmint.v1 import dataset_pb2, schema_pb2, value_pb2
from tests.unit.fake_services import services
from tests.unit.fake_trainer import FakeTrainer

MONEY = NumberForm(prefix="$", grouping=Grouping.THOUSANDS, group_separator=",", minimum_fraction_digits=2)


def declared(text):
    (column,) = declared_columns([text])
    return column_from_proto(column, "column")


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("age=numerical", "age", ColumnKind.NUMERICAL),
        ("a=b=categorical", "a=b", ColumnKind.CATEGORICAL),
        ('"a=id=numerical"=id', "a=id=numerical", ColumnKind.ID),
        ('"the ""x"""=Boolean', 'the "x"', ColumnKind.BOOLEAN),
        ("build year=ignored", "build year", ColumnKind.IGNORED),
        ("a,b=datetime", "a,b", ColumnKind.DATETIME),
    ],
)
def test_a_name_may_hold_anything(text, name, kind):
    assert declared(text) == ColumnSpec(name, kind)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("$1,234.50", MONEY),
        (
            "1.234,5 EUR",
            NumberForm(
                suffix=" EUR",
                grouping=Grouping.THOUSANDS,
                group_separator=".",
                decimal_separator=",",
                minimum_fraction_digits=1,
            ),
        ),
        ("58.1%", NumberForm(suffix="%", minimum_fraction_digits=1)),
        ("(33.00)", NumberForm(negative=NegativeStyle.PARENTHESES, minimum_fraction_digits=2)),
        ("+5", NumberForm(plus=PlusSign.POSITIVE, minimum_fraction_digits=0)),
        (".50", NumberForm(minimum_fraction_digits=2, leading_point=True)),
        (
            "12,34,567.0",
            NumberForm(grouping=Grouping.INDIAN, group_separator=",", minimum_fraction_digits=1),
        ),
    ],
)
def test_a_number_is_declared_by_an_example(form, expected):
    assert declared(f"x=numerical:{form}") == ColumnSpec("x", ColumnKind.NUMERICAL, written_form=WrittenForm(expected))


def test_other_forms_are_declared():
    pattern = "%d.%m.%Y %H:%M"
    assert declared(f"t=datetime:{pattern}").written_form == WrittenForm(DatetimeForm(pattern))
    assert declared("ok=boolean:ja/nein").written_form == WrittenForm(BooleanForm("ja", "nein"))
    assert declared("code=id:KD-[0-9]{6}").id_pattern == "KD-[0-9]{6}"
    assert declared("x=numerical:2").domain == Domain(decimals=2)
    assert declared("x=numerical:$1,234.50:4") == ColumnSpec(
        "x", ColumnKind.NUMERICAL, domain=Domain(decimals=4), written_form=WrittenForm(MONEY)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age", "is not NAME=KIND"),
        ("age=number", "is not NAME=KIND"),
        ("=id", "is not NAME=KIND"),
        ("x=numerical:1,234", "can be read in two ways"),
        ("x=numerical:twelve", "is not written as a number"),
        ("x=numerical::16", "give 0 to 15"),
        ("t=datetime:%Q", "%Q"),
        ("ok=boolean:yes", "is not two texts"),
        ("ok=boolean:a/a", "is not two texts"),
        ("c=categorical:x", "categorical has no form"),
    ],
)
def test_what_declares_nothing_is_refused(text, said):
    with pytest.raises(InvalidFieldError, match=said):
        declared_columns([text])


def test_values_are_declared_of_columns():
    columns = declared_columns(["age=numerical"])
    with_values(
        columns,
        {
            "--column-null": ["age=-999", "age=", '"a=b"=NA'],
            "--minimum": ["age=0", "seen=2020-01-01"],
            "--maximum": ["age=99.5", "seen=2021-01-01T00:00:00"],
        },
    )
    value = value_pb2.Value
    assert columns == [
        schema_pb2.ColumnSpec(
            name="age",
            kind=schema_pb2.COLUMN_KIND_NUMERICAL,
            null_values=["-999", ""],
            domain=schema_pb2.ColumnDomain(minimum=value(int64_value=0), maximum=value(double_value=99.5)),
        ),
        schema_pb2.ColumnSpec(name="a=b", null_values=["NA"]),
        schema_pb2.ColumnSpec(
            name="seen",
            domain=schema_pb2.ColumnDomain(
                minimum=value(date_value="2020-01-01"), maximum=value(timestamp_value="2021-01-01T00:00:00")
            ),
        ),
    ]
    with pytest.raises(InvalidFieldError, match="is not NAME=VALUE"):
        with_values([], {"--minimum": ["age"]})


DATASET = dataset_pb2.Dataset(
    name="projects/default/datasets/d",
    state=dataset_pb2.DATASET_STATE_READY,
    row_count=1_000,
    dialect=dataset_pb2.CsvFormat(delimiter=";", null_values=["", "NA"], skip_rows=2, header=1),
    schema=schema_pb2.TableSchema(
        primary_key="id",
        columns=map(
            column_to_proto,
            [
                ColumnSpec("id", ColumnKind.ID, DataType.STRING, id_pattern="KD-[0-9]{6}"),
                ColumnSpec(
                    "price",
                    ColumnKind.NUMERICAL,
                    DataType.DOUBLE,
                    domain=Domain(minimum=0.5, maximum=7_777.77, decimals=2, nullable=True),
                    written_form=WrittenForm(MONEY),
                ),
                ColumnSpec(
                    "born", ColumnKind.DATETIME, DataType.DATE, written_form=WrittenForm(DatetimeForm("%d.%m.%Y"))
                ),
                ColumnSpec("ok", ColumnKind.BOOLEAN, DataType.BOOL, written_form=WrittenForm(BooleanForm("Y", "N"))),
                ColumnSpec(
                    "name", ColumnKind.CATEGORICAL, DataType.STRING, domain=Domain(categories=("Secret", "Hidden"))
                ),
                ColumnSpec(
                    "n",
                    ColumnKind.NUMERICAL,
                    DataType.INT64,
                    null_values=("-9",),
                    written_form=WrittenForm(storage=StorageType.INT16),
                ),
            ],
        ),
    ),
    findings=[
        dataset_pb2.ColumnFinding(column="price", why="numbers with $", flag="--column price=categorical", missing=7)
    ],
    notices=[dataset_pb2.Notice(code="LIKELY_KEY", column="id", message="taken for the key", flag="--no-primary-key")],
)


def test_a_types_file_holds_decisions_and_no_value_of_the_data(tmp_path):
    path = tmp_path / "types.json"
    TypesFile.of(DATASET).write(str(path))
    text = path.read_text()
    assert not any(value in text for value in ("Secret", "Hidden", "7777", "0.5"))
    read = TypesFile.read(str(path))
    assert read == TypesFile.of(DATASET)
    assert (read.csv, read.primary_key, read.no_primary_key) == (DATASET.dialect, "id", False)
    specs = [column_from_proto(column, "column") for column in read.columns]
    assert [(one.name, one.kind, one.data_type) for one in specs] == [
        (column.name, column_from_proto(column, "").kind, column_from_proto(column, "").data_type)
        for column in DATASET.schema.columns
    ]
    assert [one.written_form for one in specs] == [
        column_from_proto(column, "column").written_form for column in DATASET.schema.columns
    ]
    assert specs[1].domain == Domain(decimals=2)
    assert specs[5].null_values == ("-9",)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a types file"),
        ('{"format": 2}', "is not a types file"),
        ('{"format": 1, "colums": []}', "unknown key 'colums'; known are format, csv, "),
        ('{"format": 1, "columns": [{"kind": "id"}]}', r"columns\[0\]: 'name' is missing"),
        ('{"format": 1, "columns": [{"name": "a"}, {"name": "b", "kind": "key"}]}', r"columns\[1\]: .*'key'"),
        ('{"format": 1, "columns": [{"name": "a", "typ": "int64"}]}', r"columns\[0\]: the key 'typ' is unknown"),
        ('{"format": 1, "columns": [3]}', r"columns\[0\]"),
        ('{"format": 1, "csv": {"separator": ";"}}', "csv: .*separator"),
        ('{"format": 1, "primary_key": 3}', "primary_key: 3 is not text"),
    ],
)
def test_a_malformed_types_file_says_where(tmp_path, body, said):
    path = tmp_path / "types.json"
    path.write_text(body)
    with pytest.raises(InvalidDataError, match=said):
        TypesFile.read(str(path))


def test_options_win_over_the_types_file(tmp_path):
    path = str(tmp_path / "types.json")
    TypesFile.of(DATASET).write(path)
    plain = TableOptions(types=path).declarations("x.csv")
    assert plain.format.csv == DATASET.dialect
    assert (plain.primary_key, [column.name for column in plain.columns]) == (
        "id",
        ["id", "price", "born", "ok", "name", "n"],
    )
    options = TableOptions(
        types=path, delimiter="tab", null=["-"], header=False, no_primary_key=True, column=["n=categorical"]
    )
    found = options.declarations("x.csv")
    assert found.format.csv == dataset_pb2.CsvFormat(delimiter="tab", null_values=["-"], skip_rows=2, header=2)
    assert (found.primary_key, found.no_primary_key) == ("", True)
    assert column_from_proto(found.columns[5], "n") == ColumnSpec("n", ColumnKind.CATEGORICAL)
    assert TableOptions(types=path, primary_key="n").declarations("x.csv").primary_key == "n"


@pytest.mark.parametrize(
    ("options", "file", "said"),
    [
        ({"primary_key": "a", "no_primary_key": True}, "x.csv", "contradicts"),
        ({"decimal": ","}, "x.json", "--decimal: is for CSV only"),
        ({"null": ["NA"]}, "x.parquet", "--null: is for CSV only"),
        ({"orient": "columns"}, "x.csv", "--orient: is for JSON only"),
        ({"orient": "sideways"}, "x.json", "choose one of records, lines, columns"),
        ({"quoted_empty": "zero"}, "x.csv", "choose one of missing, text"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(options, file, said):
    with pytest.raises(InvalidFieldError, match=said):
        TableOptions(**options).declarations(file)


def test_every_option_of_a_table_is_one_of_each_command():
    for command in (["datasets", "upload"], ["train"], ["datasets", "profile"]):
        shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"}).stdout
        for one in fields(TableOptions):
            assert f"--{one.name.replace('_', '-')}" in shown, (command, one.name)


def invoke(found, *arguments):
    done = CliRunner().invoke(
        app,
        ["--trainer", found.trainer_address, "--sampler", found.sampler_address, *arguments],
        env={"COLUMNS": "250"},
    )
    assert done.exit_code == 0, done.stderr
    return done


class Profiled(FakeTrainer):
    """Has one dataset, which was profiled."""

    def GetDataset(self, request, context):  # noqa: N802
        return DATASET


def test_a_profile_shows_what_was_decided_and_why(tmp_path):
    types = tmp_path / "types.json"
    with services(Profiled()) as found:
        done = invoke(found, "datasets", "profile", "d", "--types", str(types))
        assert json.loads(invoke(found, "datasets", "profile", "d", "--json").stdout)["row_count"] == 1000
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "KD-[0-9]{6}" in lines["id"]
    assert "(key)" in lines["id"]
    for part in ("$#,###.00", "numbers with $", "--column price=categorical", " 7 "):
        assert part in lines["price"]
    assert "%d.%m.%Y" in lines["born"]
    assert "Y/N" in lines["ok"]
    assert "int16" in lines["n"]
    assert "note: column 'id': taken for the key; otherwise: --no-primary-key" in done.stderr
    assert "Secret" not in done.stdout
    assert TypesFile.read(str(types)) == TypesFile.of(DATASET)


def test_a_file_is_profiled_and_not_kept(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("a\n1\n")
    trainer = Profiled()
    with services(trainer) as found:
        invoke(found, "datasets", "profile", str(path))
        assert trainer.deleted == [DATASET.name]
        invoke(found, "datasets", "profile", str(path), "--keep")
        assert trainer.deleted == [DATASET.name]
