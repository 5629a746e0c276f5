"""Inputs such as users bring: each column comes back in the form it came in, and no id is published.

The same files go through the command and real services in `tests/acceptance/test_cases.py`.
"""

import csv
import io
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rowmint.artifact import Model, read_model
from rowmint.errors import InvalidDataError
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.spec import SampleSpec
from rowmint.sampling.stream import write_rows
from rowmint.schema.forms.cells import written
from rowmint.synthesizer import choose_kernel
from tests.case_files import CASES, FOLDER, REFUSED, Case, Refused
from tests.tables_to_fit import DIGEST, FAMILIES, SMALL_EXPORT
from trainer_service.config import TrainingConfig
from trainer_service.datasets.ingest import IngestResult, ingest
from trainer_service.fitting.engine import fit

ROWS = 60


def ingested(case: Case | Refused, folder: Path) -> IngestResult:
    """Return what the trainer makes of a case's file."""
    scratch = folder / "ingest"
    scratch.mkdir()
    source = io.BytesIO((FOLDER / case.name).read_bytes())
    table = case.table if isinstance(case, Case) else None
    return ingest(source, case.data_format, case.declared, "", scratch, options=table)  # type: ignore[arg-type]


def learned(result: IngestResult, folder: Path) -> tuple[Model, bytes]:
    """Return the independent model of a table, and its manifest."""
    scratch = folder / "fit"
    scratch.mkdir()
    config = TrainingConfig(FAMILIES["independent"], seed=7)
    artifact = fit(
        result.path,
        result.schema,
        config,
        DIGEST,
        scratch,
        report=lambda _: None,
        cancelled=lambda: False,
        export=SMALL_EXPORT,
    )
    model = read_model(artifact.manifest, artifact.weights, choose_kernel("numpy"), artifact.manifest_digest)
    return model, artifact.manifest


def made(model: Model, row_format: RowFormat) -> str:
    """Return made rows in a format."""
    sink = io.BytesIO()
    write_rows(model, SampleSpec(ROWS, seed=5, row_format=row_format), sink)
    return sink.getvalue().decode()


def source_cells(case: Case, result: IngestResult) -> dict[str, list[str]]:
    """Return the cells of a CSV file as they came, by column; missing ones are empty."""
    dialect = result.profile["dialect"]
    text = (FOLDER / case.name).read_bytes().decode(dialect["encoding"]).removeprefix("\ufeff")
    lines = text.splitlines(keepends=True)[dialect.get("skip_rows", 0) :]
    names = result.schema.names
    rows = list(csv.reader(lines, delimiter=dialect["delimiter"]))[case.options.get("header") != "absent" :]
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_columns_come_back_in_the_form_they_came_in(case: Case, tmp_path: Path) -> None:
    result = ingested(case, tmp_path)
    assert result.schema.names == tuple(case.columns)
    columns = {name: result.schema.column(name) for name in case.columns}
    found = {
        name: (column.kind, column.data_type, column.written_form.to_json(), column.id_pattern)
        for name, column in columns.items()
    }
    assert found == {
        name: (column.kind, column.data_type, column.form, column.pattern) for name, column in case.columns.items()
    }
    assert {(str(notice.code), notice.column) for notice in result.notices} == case.notices

    model, manifest = learned(result, tmp_path)
    as_csv, as_ndjson = made(model, RowFormat.CSV), made(model, RowFormat.NDJSON)
    rows = list(csv.DictReader(io.StringIO(as_csv, newline="")))
    # Numbers keep their digits: NDJSON is compared as it is written.
    objects = [json.loads(line, parse_float=str, parse_int=str) for line in as_ndjson.splitlines()]
    assert len(rows) == len(objects) == ROWS
    published = [as_csv, as_ndjson, manifest.decode(), json.dumps(result.schema.to_json(), ensure_ascii=False)]
    published.append(json.dumps(result.profile, ensure_ascii=False))
    table = pq.read_table(result.path)
    for name, expected in case.columns.items():
        # A number in JSON is not padded.
        width = columns[name].written_form.pad_width
        for cells in ([row[name] or None for row in rows], [row[name] for row in objects]):
            texts = [cell if cell is None else str(cell).rjust(width) for cell in cells]
            assert columns[name].domain.nullable or None not in texts
            assert not [text for text in texts if text is not None and not re.fullmatch(expected.cell, text)]
        values = table.column(name).to_pylist()
        if expected.secret:
            assert not [value for value in values if any(value in text for text in published)]


@pytest.mark.parametrize("case", [case for case in CASES if case.data_format["type"] == "csv"], ids=str)
def test_what_was_read_is_written_as_it_was(case: Case, tmp_path: Path) -> None:
    result = ingested(case, tmp_path)
    table = pq.read_table(result.path)
    source = source_cells(case, result)
    for name, expected in case.columns.items():
        column = result.schema.column(name)
        cells = zip(source[name], table.column(name).to_pylist(), strict=True)
        kept = [(text, value) for text, value in cells if value is not None]
        assert [text for text, _ in kept] == [written(value, column) for _, value in kept]
        assert not [text for text, _ in kept if not re.fullmatch(expected.cell, text)]
    assert [finding.column for finding in result.findings] == list(case.columns)
    assert all(finding.why for finding in result.findings)


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_refusals_say_what_where_and_the_way_on(case: Refused, tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError) as caught:
        ingested(case, tmp_path)
    assert re.fullmatch(case.problem, str(caught.value)), str(caught.value)


def test_every_input_is_used() -> None:
    used = {case.name for case in CASES} | {case.name for case in REFUSED}
    assert used == {path.name for path in FOLDER.iterdir()}
