"""Tabular variational autoencoder (arXiv:1907.00503, section 4.4)."""

from rowmint.synthesizer import synthesizer_family
from trainer_service.fitting.families.family import Family, FitterFactory
from trainer_service.fitting.families.licences import CTGAN_PACKAGE
from trainer_service.fitting.families.tvae.config import TvaeConfig


def _load_fitter() -> FitterFactory:
    from trainer_service.fitting.families.tvae.fitter import TvaeFitter  # noqa: PLC0415 - it brings torch

    return TvaeFitter


TVAE = Family(
    name="tvae",
    summary="Tabular variational autoencoder (arXiv:1907.00503, section 4.4)",
    suits="parity with SDV; strongly numerical tables; the quicker of the two networks",
    config=TvaeConfig,
    synthesizer=synthesizer_family("tvae"),
    load_fitter=_load_fitter,
    iterative=True,
    networks=True,
    packages=("ctgan",),
    licence=CTGAN_PACKAGE,
)
