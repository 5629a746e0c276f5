"""docs/reliability.md and docs/security.md name tests that there are, and settings that there are."""

import re
from pathlib import Path

import pytest

from rowmint.rpc.settings import ServiceSettings
from sampler_service.settings import SamplerSettings
from trainer_service.settings import TrainerSettings

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("reliability", "security")}
NAMED = sorted({named for page in PAGES.values() for named in re.findall(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`", page)})
KNOWN = {f"ROWMINT_{name}".upper() for settings in (TrainerSettings, SamplerSettings) for name in settings.model_fields}


def test_the_pages_name_tests():
    assert len(NAMED) > 80


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_is_there(path, name):
    source = (ROOT / path).read_text(encoding="utf-8")
    if name:
        assert re.search(rf"def {name.rpartition('::')[2]}\(", source)


@pytest.mark.parametrize("page", PAGES)
def test_a_setting_that_is_named_is_there(page):
    assert set(re.findall(r"ROWMINT_[A-Z_]+", PAGES[page])) - KNOWN == set()


def test_every_limit_is_told_of():
    limits = {name for name in KNOWN if name.startswith("ROWMINT_MAX_")} - {"ROWMINT_MAX_CONNECTION_AGE_SECONDS"}
    assert limits - set(re.findall(r"ROWMINT_[A-Z_]+", PAGES["reliability"])) == set()


def test_every_setting_of_who_is_let_in_is_told_of():
    own = {f"ROWMINT_{name}".upper() for name in ServiceSettings.model_fields if not name.startswith("log_")}
    own |= {"ROWMINT_SIGNING_KEY", "ROWMINT_TRUSTED_KEYS"}
    told = set(re.findall(r"ROWMINT_[A-Z_]+", PAGES["security"]))
    assert own - told - {"ROWMINT_LISTEN", "ROWMINT_METRICS_LISTEN"} == set()
