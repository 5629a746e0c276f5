"""docs/reliability.md names tests that there are, and settings that there are."""

import re
from pathlib import Path

import pytest

from sampler_service.settings import SamplerSettings
from trainer_service.settings import TrainerSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`", PAGE)))


def test_the_page_names_tests():
    assert len(NAMED) > 40


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_is_there(path, name):
    source = (ROOT / path).read_text(encoding="utf-8")
    if name:
        assert re.search(rf"def {name.rpartition('::')[2]}\(", source)


def test_a_setting_that_is_named_is_there():
    known = {
        f"ROWMINT_{name}".upper() for settings in (TrainerSettings, SamplerSettings) for name in settings.model_fields
    }
    named = set(re.findall(r"ROWMINT_[A-Z_]+", PAGE))
    assert named - known == set()
    assert {name for name in known if name.startswith("ROWMINT_MAX_")} - named - {
        "ROWMINT_MAX_CONNECTION_AGE_SECONDS"
    } == set()
