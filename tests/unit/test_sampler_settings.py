"""Settings of the sampler: defaults, the environment, bounds."""

import os

import pytest
from pydantic import ValidationError

from sampler_service.settings import SamplerSettings


def test_settings_need_nothing(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("ROWMINT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings = SamplerSettings()
    assert settings.listen == "127.0.0.1:7402"
    assert settings.models_registry_url == f"sqlite:///{tmp_path}/.rowmint/registry/models.db"
    assert settings.model_store_url == f"file://{tmp_path}/.rowmint/models"


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("ROWMINT_MODEL_STORE", "s3://bucket")
    monkeypatch.setenv("ROWMINT_STORE_OPTIONS", '{"region": "x", "client_options": {"allow_http": true}}')
    monkeypatch.setenv("ROWMINT_THREADS", "3")
    settings = SamplerSettings()
    assert settings.model_store_url == "s3://bucket"
    assert settings.store_options == {"region": "x", "client_options": {"allow_http": True}}
    assert settings.threads == 3


@pytest.mark.parametrize("change", [{"kernel": "cuda"}, {"threads": 0}, {"max_rows": 0}, {"write_timeout": 0}])
def test_impossible_settings(change):
    with pytest.raises(ValidationError):
        SamplerSettings(**change)
