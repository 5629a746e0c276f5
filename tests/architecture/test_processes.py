"""What a process really loads, read from `sys.modules` of a fresh one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FITTING = {"torch", "sdv", "ctgan", "sklearn", "pandas", "scipy", "rdt", "trainer_service"}
"""Packages that models are fitted with, never loaded by a sampler."""

# Imports the modules that are there, runs some code, then prints the names of all modules that are loaded. A blocked
# one cannot be imported, as if it were not installed.
_SCRIPT = """
import importlib, json, pkgutil, sys
roots, skipped, blocked, then = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(blocked))

def load(name):
    package = importlib.import_module(name)
    for found in pkgutil.iter_modules(getattr(package, "__path__", ()), name + "."):
        if found.name not in skipped:
            load(found.name)

for root in roots:
    load(root)
exec(then)
print(json.dumps(sorted(name for name, module in sys.modules.items() if module is not None)))
"""


def _loaded(roots, skipped=(), blocked=(), then=""):
    """Return the modules loaded after importing `roots` and everything inside but `skipped`, then running `then`."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps([list(roots), list(skipped), list(blocked), then])],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def _tops(loaded):
    return {name.partition(".")[0] for name in loaded}


def test_client_and_command_line_are_light():
    # pyarrow imports numpy where it is installed: the client must do without it.
    heavy = {"numpy", "pandas", "sqlalchemy", "alembic", "torch", "onnxruntime", "safetensors", "obstore", "pydantic"}
    loaded = _loaded(["rowmint.client", "rowmint.cli"], blocked=["numpy"])
    assert _tops(loaded) & heavy == set()
    assert {"rowmint.client", "rowmint.cli"} <= loaded


def test_the_sampler_never_loads_what_fits_models():
    loaded = _loaded(["sampler_service"])
    assert _tops(loaded) & FITTING == set()
    if (ROOT / "sampler_service" / "__main__.py").exists():
        assert "sampler_service.__main__" in loaded


def test_streaming_loads_nothing_that_fits_models():
    """In every format, pandas being installed here: what imports it if it can, would."""
    stream = "from tests.golden import streams; streams.all_digests('auto', quick=True)"
    loaded = _loaded(["sampler_service.__main__"], then=stream)
    assert _tops(loaded) & FITTING == set()
    assert "pyarrow" in loaded


def test_the_core_loads_no_wire():
    edges = ["rowmint.v1", "rowmint.rpc", "rowmint.observability", "rowmint.client", "rowmint.cli"]
    loaded = _loaded(["rowmint"], [*edges, "rowmint.migrations"])
    assert "rowmint.synthesizer.exact.network" in loaded
    assert _tops(loaded) & {"grpc", "torch", "sdv", "ctgan", "sklearn", "pandas", "typer"} == set()
    assert not {name for name in loaded if name.startswith(("google.protobuf", "rowmint.v1"))}


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("rowmint.cli", {"torch", "sdv", "pandas", "numpy", "pyarrow", "sqlalchemy", "pydantic"}),
        ("sampler_service", FITTING),
        ("trainer_service", {"torch", "sdv", "pandas", "sklearn", "scipy", "sampler_service"}),
    ],
)
def test_help_comes_without_what_is_heavy(module, never):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0
    assert done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert _tops(loaded) & never == set()
