"""The services' settings: each is used, and a wrong one is reported in one line."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from sampler_service.settings import SamplerSettings
from trainer_service.settings import TrainerSettings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("package", "settings"), [("trainer_service", TrainerSettings), ("sampler_service", SamplerSettings)]
)
def test_every_setting_is_read_somewhere(package: str, settings: type):
    read = {
        node.attr
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == ("self" if path.name == "settings.py" else "settings")
    }
    # Those of the log, and of authentication and authorization, are read where every service is started.
    shared = (
        ast.parse((ROOT / "shared/rowmint/rpc/server_security.py").read_text()),
        ast.parse((ROOT / "shared/rowmint/rpc/settings.py").read_text()),
    )
    read |= {node.attr for tree in shared for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(settings.model_fields) - read == {"log_format", "log_level"}


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"workers": 0}, "workers"),
        ({"threads": 257}, "threads"),
        ({"lease_seconds": 1.0, "heartbeat_seconds": 0.6}, "at most half"),
        ({"data_store": "memory://x"}, "processes of their own"),
        ({"model_store": "memory://x"}, "processes of their own"),
        ({"max_message_bytes": 1024}, "max_message_bytes"),
    ],
)
def test_impossible_settings(change, reported):
    with pytest.raises(ValidationError, match=reported):
        TrainerSettings(**change)


def test_a_fit_has_one_thread_however_many_cores_there_are(monkeypatch):
    monkeypatch.delenv("ROWMINT_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 384)
    assert TrainerSettings().threads == 1


def test_settings_reach_a_worker_as_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("ROWMINT_STORE_OPTIONS", '{"region": "x"}')
    settings = TrainerSettings(home=tmp_path, model_store="s3://bucket/m", workers=3, segment_seconds=0.5)
    monkeypatch.delenv("ROWMINT_STORE_OPTIONS")
    monkeypatch.setenv("ROWMINT_WORKERS", "7")
    assert TrainerSettings(**settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("service", "name", "value", "reported"),
    [
        ("trainer", "ROWMINT_THREADS", "none", "ROWMINT_THREADS: Input should be a valid integer"),
        ("trainer", "ROWMINT_STORE_OPTIONS", "{secret", "store_options"),
        ("sampler", "ROWMINT_MODEL_STORE", "ftp://secret", "store_url"),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line(tmp_path, service, name, value, reported):
    environment = {key: text for key, text in os.environ.items() if not key.startswith("ROWMINT_")}
    done = subprocess.run(
        [sys.executable, "-m", f"{service}_service"],
        env={**environment, "ROWMINT_HOME": str(tmp_path), name: value},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{service}: ")
    assert reported in line
    assert "secret" not in line


def test_a_worker_in_another_folder_reads_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = TrainerSettings(home=Path("here"), workers=3, data_store="s3://bucket/data")
    sent = json.loads(json.dumps(settings.for_worker()))
    monkeypatch.chdir("/")
    read = TrainerSettings(**sent)
    assert read.home == tmp_path / "here"
    assert (read.registry_url, read.data_store_url, read.model_store_url, read.scratch, read.workers) == (
        f"sqlite:///{tmp_path}/here/registry",
        "s3://bucket/data",
        f"file://{tmp_path}/here/models",
        tmp_path / "here" / "scratch",
        3,
    )
