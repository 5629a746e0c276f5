"""The device a fit runs on, and what of the machine its numbers depend on."""

from importlib import metadata
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from trainer_service.devices import no_cuda_device
from trainer_service.fitting.context import Device, FitContext
from trainer_service.fitting.families import Family


def prepare_device(family: Family, context: FitContext) -> None:
    """Check that the device of a fit exists; set torch to the fit's threads and to the precision of products.

    For a family without networks torch, which takes seconds to import, is left alone on the CPU.

    Raises:
        InvalidFieldError: It is CUDA and there is none.
    """
    if not family.networks and context.device is Device.CPU:
        return
    import torch  # noqa: PLC0415 - only where networks are fitted

    if context.device is Device.CUDA and not torch.cuda.is_available():
        raise no_cuda_device()
    torch.set_num_threads(context.threads)
    # NOTE[DIFF]: products take their factors in bfloat16 (on CUDA in TF32) where the hardware multiplies these, and sum
    # in float32; elsewhere nothing changes. Measured on Adult: a CTGAN step 15 % shorter, quality the same.
    torch.set_float32_matmul_precision("medium" if context.device is Device.CPU else "high")


def machine_fingerprint(family: Family, context: FitContext) -> dict[str, Any]:
    """Return what weights depend on beside data, configuration and seed, as JSON values."""
    found: dict[str, Any] = {
        "device": str(context.device),
        "threads": context.threads,
        "numpy": np.__version__,
        "simd": _simd(),
        "blas": _blas(),
    }
    found.update({package: metadata.version(package) for package in family.packages})
    if family.networks:
        import torch  # noqa: PLC0415 - only where networks are fitted

        found["torch"] = torch.__version__
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        found["matmul"] = torch.get_float32_matmul_precision()
    return found


def _simd() -> str:
    """Return the vector instructions that NumPy found here: its logarithms differ with them in the last bit."""
    config: Any = np.show_config(mode="dicts")  # by the types of NumPy it may be None, as in other modes
    return " ".join(config["SIMD Extensions"]["found"])


def _blas() -> str:
    """Return the library of NumPy's matrix products and which of its kernels run on this processor."""
    # Other packages bring a BLAS of their own, which is loaded or not.
    own = [one for one in threadpool_info() if one["user_api"] == "blas" and "numpy" in one["filepath"]]
    return ", ".join(f"{one['internal_api']} {one['version']} {one.get('architecture', '')}".strip() for one in own)
