"""A probabilistic circuit: a hidden Chow-Liu tree, whose columns also see the bin of the column they hang on."""

from rowmint.synthesizer import synthesizer_family
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.family import Family, FitterFactory
from trainer_service.fitting.options import Pieces


def _load_fitter() -> FitterFactory:
    from trainer_service.fitting.families.circuit.fitter import CircuitFitter  # noqa: PLC0415 - as every family

    return CircuitFitter


CIRCUIT = Family(
    name="circuit",
    summary="Probabilistic circuit: a tree of columns with hidden states",
    suits="nearly everything: the best rows, in seconds, any conditions at full speed, exact probabilities",
    config=CircuitConfig,
    synthesizer=synthesizer_family("circuit"),
    load_fitter=_load_fitter,
    iterative=True,
    pieces=Pieces(most=1024, values=8192, rows=10, rows_per_value=5),
    max_categories=4096,
)
