"""Each column by its own marginal: the baseline of every report."""

from rowmint.synthesizer import synthesizer_family
from trainer_service.fitting.families.family import Family, FitterFactory
from trainer_service.fitting.families.independent.config import IndependentConfig
from trainer_service.fitting.options import Pieces


def _load_fitter() -> FitterFactory:
    from trainer_service.fitting.families.independent.fitter import IndependentFitter  # noqa: PLC0415 - as every family

    return IndependentFitter


INDEPENDENT = Family(
    name="independent",
    summary="Independent marginals, one per column",
    suits="the baseline that others are compared with; rows in seconds",
    config=IndependentConfig,
    synthesizer=synthesizer_family("independent"),
    load_fitter=_load_fitter,
    pieces=Pieces(most=256, values=256),
)
