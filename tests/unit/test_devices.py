"""Whether a trainer has a CUDA device, found without torch."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer_service import devices
from trainer_service.devices import cuda_devices, has_cuda


@pytest.mark.parametrize(
    ("setting", "count", "found"),
    [("auto", 0, False), ("auto", 2, True), ("true", 0, True), ("false", 2, False)],
)
def test_the_setting_decides_before_the_machine_does(setting, count, found):
    assert has_cuda(setting, lambda: count) is found


def driver(count: int, failure: int = 0) -> Any:
    """Return what stands for libcuda."""

    def count_devices(target: Any) -> int:
        target._obj.value = count
        return 0

    return SimpleNamespace(cuInit=lambda _: failure, cuDeviceGetCount=count_devices)


@pytest.mark.parametrize(
    ("version", "library", "count"),
    [
        (None, driver(2), 0),
        ("2.13.0+cpu", driver(2), 0),
        ("2.13.0", None, 0),
        ("2.13.0", driver(0), 0),
        ("2.13.0", driver(2, failure=100), 0),
        ("2.13.0", driver(2), 2),
        ("2.13.0+cu130", driver(1), 1),
    ],
)
def test_devices_are_those_that_torch_and_the_driver_have(monkeypatch, version, library, count):
    def installed(_: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError
        return version

    def loaded(name: str) -> Any:
        assert name == "libcuda.so.1"
        if library is None:
            raise OSError(name)
        return library

    monkeypatch.setattr(metadata, "version", installed)
    monkeypatch.setattr(devices.ctypes, "CDLL", loaded)
    assert cuda_devices() == count


def test_torch_is_not_loaded_for_it():
    program = (
        "import sys; from trainer_service.devices import cuda_devices; cuda_devices(); print('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
