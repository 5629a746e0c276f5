"""Inputs such as users bring, through the command and real services: profiled, uploaded, learned, sampled, completed.

`tests/unit/test_cases.py` tries all of them in process.
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rowmint.cli.app import app
from tests.acceptance.processes import Services
from tests.case_files import CASES, FOLDER

ROWS = 40
KNOWN = {
    "money.csv": {"price": "$5,718.63", "city": "Porto"},
    "us_times.csv": {"at": "8/14/2022 9:25 PM"},
    "german_excel.csv": {"Betrag": "541,48", "Ort": "Wien"},
}
"""Known cells of a row to complete, in the form of the table's columns."""


@pytest.fixture(scope="module")
def rowmint(shared_services: Services) -> Callable[..., Any]:
    """Runs the command, which must succeed."""
    trainer, *samplers = shared_services.started
    options = ["--trainer", trainer.address, "--sampler", ",".join(one.address for one in samplers)]
    runner = CliRunner()

    def run(*arguments: str) -> Any:
        done = runner.invoke(app, [*options, "--project", "cases", *arguments])
        assert done.exit_code == 0, done.output
        return done

    return run


@pytest.mark.parametrize("name", KNOWN)
def test_a_table_comes_back_in_its_form(name: str, rowmint: Callable[..., Any], tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    source, model = str(FOLDER / name), Path(name).stem.replace("_", "-")
    types, again = str(tmp_path / "types.json"), str(tmp_path / "again.json")

    profiled = rowmint("datasets", "profile", source, "--types", types)
    assert all(column in profiled.stdout for column in case.columns)
    assert all(column in profiled.stderr for code, column in case.notices if code == "DAY_ORDER")
    # A profiled file leaves no dataset.
    assert json.loads(rowmint("datasets", "list", "--json").stdout) == []

    uploaded = rowmint("datasets", "upload", source, "--id", model, "--types", types, "--json")
    kinds = [column["kind"].lower() for column in json.loads(uploaded.stdout)["schema"]["columns"]]
    assert kinds == [str(column.kind) for column in case.columns.values()]
    # What was declared is what is decided again.
    rowmint("datasets", "profile", model, "--types", again)
    assert json.loads(Path(again).read_text("utf-8")) == json.loads(Path(types).read_text("utf-8"))

    rowmint("train", model, "--family", "independent")
    sampled = tmp_path / "sampled.csv"
    rowmint("sample", model, "-n", str(ROWS), "--seed", "3", "-o", str(sampled))
    rows = list(csv.DictReader(sampled.read_text("utf-8").splitlines()))
    assert len(rows) == ROWS
    assert list(rows[0]) == list(case.columns)

    known, completed = tmp_path / "known.csv", tmp_path / "completed.csv"
    with known.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(KNOWN[name]))
        writer.writeheader()
        writer.writerow(KNOWN[name])
    rowmint("complete", model, str(known), "-o", str(completed), "--seed", "3")
    [row] = csv.DictReader(completed.read_text("utf-8").splitlines())
    assert {column: row[column] for column in KNOWN[name]} == KNOWN[name]
    for column, expected in case.columns.items():
        assert not [cells[column] for cells in [*rows, row] if not re.fullmatch(expected.cell, cells[column])]
    rowmint("datasets", "delete", model)
