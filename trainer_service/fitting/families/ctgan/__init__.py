"""Conditional tabular GAN (arXiv:1907.00503, section 4.3)."""

from rowmint.synthesizer import synthesizer_family
from trainer_service.fitting.families.ctgan.config import CtganConfig
from trainer_service.fitting.families.family import Family, FitterFactory
from trainer_service.fitting.families.licences import CTGAN_PACKAGE


def _load_fitter() -> FitterFactory:
    from trainer_service.fitting.families.ctgan.fitter import CtganFitter  # noqa: PLC0415 - it brings torch

    return CtganFitter


CTGAN = Family(
    name="ctgan",
    summary="Conditional tabular GAN (arXiv:1907.00503, section 4.3)",
    suits="parity with SDV; wide tables of many categories",
    config=CtganConfig,
    synthesizer=synthesizer_family("ctgan"),
    load_fitter=_load_fitter,
    iterative=True,
    networks=True,
    packages=("ctgan",),
    licence=CTGAN_PACKAGE,
)
