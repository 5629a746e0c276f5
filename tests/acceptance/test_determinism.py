"""The same bytes in other processes, with other kernels, thread counts and instruction sets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.golden.make import HERE
from tests.golden.streams import QUICK

# What each of OpenBLAS's kernels needs of the processor; one that it lacks would end in an illegal instruction.
_CORES = {"Sandybridge": {"avx"}, "Haswell": {"avx2", "fma"}, "SkylakeX": {"avx512f", "avx512bw"}}


def _processor_flags() -> set[str]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    return set(lines[0].split(":")[1].split()) if lines else set()


def _dispatched() -> str:
    """Return the instruction sets that NumPy chose by looking, and can be configured to ignore."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return " ".join(found)


BLAS = [
    {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": threads}
    for core, needed in _CORES.items()
    for threads in ("1", "2")
    if needed <= _processor_flags()
]


def child(arguments: list[str], environment: dict[str, str]) -> dict[str, str]:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected(found: dict[str, str]) -> dict[str, str]:
    frozen = json.loads((HERE / "digests.json").read_text(encoding="utf-8"))
    return {name: frozen[name] for name in found}


@pytest.mark.parametrize("environment", BLAS, ids=lambda settings: "-".join(settings.values()))
def test_any_blas_kernel_and_thread_count(environment):
    found = child([str(HERE / "streams.py"), "--kernel", "numpy", "--quick"], environment)
    assert len(found) == len(QUICK)
    assert found == expected(found)


@pytest.mark.parametrize("kernel", ["numpy", "onnxruntime"])
def test_without_simd(kernel):
    environment = {"NPY_DISABLE_CPU_FEATURES": _dispatched(), "OPENBLAS_NUM_THREADS": "1"}
    found = child([str(HERE / "streams.py"), "--kernel", kernel, "--quick"], environment)
    assert found == expected(found)


@pytest.mark.parametrize("installed", [True, False])
def test_with_and_without_onnxruntime(installed):
    code = (
        "import sys, runpy\n"
        f"if not {installed}: sys.modules['onnxruntime'] = None\n"
        "sys.argv = ['streams.py', '--kernel', 'auto', '--quick']\n"
        f"runpy.run_path({str(HERE / 'streams.py')!r}, run_name='__main__')\n"
    )
    found = child(["-c", code], {})
    assert found == expected(found)
