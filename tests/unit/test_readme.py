"""The README's tables say what the code says."""

import re
from pathlib import Path

import pytest

from rowmint.errors import Reason
from rowmint.rpc.status import CODES
from sampler_service.settings import SamplerSettings
from trainer_service.settings import TrainerSettings

README = (Path(__file__).parents[2] / "README.md").read_text()
DOCS = Path(__file__).parents[2] / "docs"
# Filled in from ROWMINT_HOME or the machine where they are not set.
DERIVED = {"registry", "models_registry", "data_store", "model_store", "threads"}


def rows(first_cell):
    """Return the cells of each table row whose first cell is code that matches."""
    found = {}
    for line in README.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(first_cell, cells[0].strip("`")):
            found[cells[0].strip("`")] = cells[1:]
    return found


def test_every_reason_has_its_status():
    table = {name: cells[0] for name, cells in rows("[A-Z_]+").items() if re.fullmatch("[A-Z_]+", cells[0])}
    assert table == {str(reason): CODES[reason].name for reason in Reason}


@pytest.mark.parametrize(("settings", "index"), [(TrainerSettings, 0), (SamplerSettings, 1)])
def test_every_setting_has_its_default(settings, index, monkeypatch):
    table = {name: cells[index].strip("`") for name, cells in rows("ROWMINT_[A-Z_]+").items() if cells[index]}
    # Where to die is for tests only, and that a port is shared is said by the process that shares it.
    fields = {name: field for name, field in settings.model_fields.items() if name not in {"failpoint", "shares_port"}}
    assert set(table) == {f"ROWMINT_{name.upper()}" for name in fields}
    for variable in table:
        monkeypatch.delenv(variable, raising=False)
    defaults = settings()
    for name in set(fields) - DERIVED:
        assert table[f"ROWMINT_{name.upper()}"] == str(getattr(defaults, name)), name
    home = str(defaults.home.absolute())
    for name in DERIVED & set(fields) - {"threads"}:
        assert table[f"ROWMINT_{name.upper()}"].replace("{home}", home) == getattr(defaults, f"{name}_url"), name


def test_files_named_are_there():
    top = Path(__file__).parents[2]
    named = re.findall(r"`((?:docs|protos|tests|deploy)/[\w./-]+|[\w.-]+\.yml|LICENSE)`", README)
    assert named
    assert [name for name in named if not (top / name).exists()] == []


def test_decisions_have_four_parts():
    entries = re.split(r"^## ", (DOCS / "decisions.md").read_text(), flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"\d{4}-\d\d-\d\d: \S", entry), entry.splitlines()[0]
        parts = re.findall(r"^\*\*(\w+)\.\*\*", entry, re.MULTILINE)
        assert parts == ["Status", "Context", "Decision", "Consequences"], entry.splitlines()[0]
