"""The family of the tests: what would be one line in each list, were it a real one."""

from rowmint.synthesizer import Mechanism
from tests.families.exemplars.config import ExemplarsConfig
from tests.families.exemplars.synthesizer import SYNTHESIZER
from trainer_service.fitting.families.family import Family, FitterFactory


def _load_fitter() -> FitterFactory:
    from tests.families.exemplars.fitter import ExemplarsFitter

    return ExemplarsFitter


EXEMPLARS = Family(
    name="exemplars",
    summary="Some training rows, drawn again and again",
    suits="tests",
    config=ExemplarsConfig,
    synthesizer=SYNTHESIZER,
    load_fitter=_load_fitter,
    iterative=True,
    privacy=frozenset({Mechanism.NOISY_MARGINALS}),
)
