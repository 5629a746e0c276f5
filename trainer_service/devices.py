"""Whether networks can be fitted on CUDA here, found without loading torch, which takes seconds and gigabytes."""

import ctypes
from collections.abc import Callable
from importlib import metadata
from typing import Literal

from rowmint.errors import InvalidFieldError
from trainer_service.fitting.options import PREFIX

CudaSetting = Literal["auto", "true", "false"]
"""Whether jobs may ask for CUDA: as is found on this machine, always, or never."""


def no_cuda_device() -> InvalidFieldError:
    """Return the error of a job that asks for CUDA where there is none."""
    return InvalidFieldError(f"{PREFIX}.device", "is DEVICE_CUDA; this trainer has no CUDA device: use DEVICE_CPU")


def has_cuda(setting: CudaSetting, count: Callable[[], int]) -> bool:
    """Return whether jobs may ask for CUDA.

    Args:
        setting: The trainer's setting.
        count: Returns the number of devices of this machine.
    """
    return count() > 0 if setting == "auto" else setting == "true"


def cuda_devices() -> int:
    """Return the number of CUDA devices that torch could use in a worker of this machine.

    The first call takes up to a second, for the driver starts.
    """
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return 0
    return 0 if version.endswith("+cpu") else _devices_of_driver("libcuda.so.1")


def _devices_of_driver(library: str) -> int:
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value
