"""What the sampler's process loads, and what it never does."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from sampler_service.settings import SamplerSettings
from tests.golden.make import HERE

FORBIDDEN = ("torch", "sdv", "ctgan", "sklearn", "pandas", "trainer_service", "rdt", "scipy")


def test_help_loads_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "sampler_service", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ROWMINT_" in done.stdout
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "sampler_service" in loaded
    assert loaded.isdisjoint(FORBIDDEN)


def test_streaming_loads_nothing_heavy():
    """In every format, pandas being installed here: what reaches for it, finds it."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(HERE.parents[1])!r})\n"
        "from tests.golden import streams\n"
        "import sampler_service.__main__\n"
        "streams.all_digests('auto', quick=True)\n"
        f"found = {{name.split('.')[0] for name in sys.modules}} & {set(FORBIDDEN)!r}\n"
        "sys.exit(', '.join(sorted(found)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


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
