"""The generated pages of docs/ and the client's data file are what is generated now; `make docs` writes them again."""

import pytest

from rowmint.errors import Reason
from rowmint.rpc.status import CODES
from sampler_service.settings import SamplerSettings
from tests.docs import configuration, errors, families, field_limits, hyperparameters, traceability
from tests.docs.pages import README, cells, table, text
from trainer_service.settings import TrainerSettings

PAGES = (configuration, errors, families, field_limits, hyperparameters, traceability)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.PAGE.stem)
def test_a_page_is_what_is_generated(page):
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), "run `make docs`"


def test_the_families_in_the_readme_are_what_is_generated():
    assert text(README) == families.readme(), "run `make docs`"


def table_of(page, first_cell):
    """Return the cells after the first of each table row of a page, by the first, where that is code that begins so."""
    rows = [cells(line) for line in page.render().splitlines()]
    return {row[0].strip("`"): row[1:] for row in rows if row and row[0].startswith(f"`{first_cell}")}


def test_every_reason_has_its_status_and_advice():
    found = table_of(errors, "")
    assert {name: row[0] for name, row in found.items()} == {reason.value: CODES[reason].name for reason in Reason}
    assert set(errors.ADVICE) == set(Reason)
    assert found["WRITE_OFFSET"][3] == "`committed_size`"


def test_every_setting_is_listed_with_its_meaning():
    found = table_of(configuration, "ROWMINT_")
    for settings in (TrainerSettings, SamplerSettings):
        listed = {f"ROWMINT_{name}".upper() for name in set(settings.model_fields) - configuration.HIDDEN}
        assert listed <= set(found)
    assert [name for name, row in found.items() if not row[2]] == []
    assert {"ROWMINT_TRAINER", "ROWMINT_SAMPLER", "ROWMINT_TOKEN"} <= set(found)


@pytest.mark.parametrize(
    ("settings", "name", "default"),
    [
        (TrainerSettings, "registry", "`sqlite:///{home}/registry`"),
        (TrainerSettings, "lease_seconds", "`10.0`"),
        (TrainerSettings, "upload_idle_seconds", "`604800.0` (7 days)"),
        (TrainerSettings, "max_decompressed_bytes", "`68719476736` (64 GiB)"),
        (SamplerSettings, "threads", "all cores"),
        (SamplerSettings, "insecure", "`false`"),
        (SamplerSettings, "trusted_keys", ""),
    ],
)
def test_a_default_reads_as_it_is_written(settings, name, default, monkeypatch):
    monkeypatch.setenv(f"ROWMINT_{name.upper()}", "1")
    assert configuration.default_of(settings.model_construct(), name) == default


@pytest.mark.parametrize(
    ("settings", "name", "values"),
    [
        (TrainerSettings, "workers", "1 to 256"),
        (TrainerSettings, "lease_seconds", "above 0"),
        (TrainerSettings, "max_columns", "1 or more"),
        (SamplerSettings, "kernel", "`auto`, `onnxruntime`, `numpy`"),
        (SamplerSettings, "insecure", "`true`, `false`"),
        (SamplerSettings, "listen", ""),
    ],
)
def test_what_is_allowed_is_what_is_validated(settings, name, values):
    assert configuration.allowed(settings, name) == values


def test_a_bar_within_a_cell_is_part_of_it():
    *_, line = table(("one", "two"), [("a | b", "c")]).splitlines()
    assert cells(line) == ["a | b", "c"]
