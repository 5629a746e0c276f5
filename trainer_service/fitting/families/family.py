"""What a family of synthesizer declares to the trainer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rowmint.synthesizer import Capabilities, Mechanism, SynthesizerFamily
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families.hyperparameters import FamilyConfig
from trainer_service.fitting.fitter import Fitter
from trainer_service.fitting.options import MAX_CATEGORIES, Pieces

FitterFactory = Callable[[EncodedTable, Any, FitContext], Fitter]
"""Makes a fitter on the training rows, given the family's own configuration, valid, and the fit's surroundings."""


@dataclass(frozen=True)
class Trainable:
    """What a job can request: a family, or a choice among families.

    Attributes:
        name: Its name in requests, manifests and commands, the member of `TrainingConfig.family`.
        summary: What it is, one phrase.
        suits: What it is for, one phrase.
        config: Its hyper-parameters.
    """

    name: str
    summary: str
    suits: str
    config: type[FamilyConfig]


@dataclass(frozen=True)
class Family(Trainable):
    """A family: everything that the rest of the trainer needs to know of it.

    Attributes:
        synthesizer: The generative half that its models are written for.
        load_fitter: Imports its fitter and returns it; only then is what it needs loaded, as torch takes seconds.
        iterative: Whether its fitter is an `IterativeFitter`.
        networks: Whether it uses torch.
        packages: Other distributions whose version its weights depend on.
        pieces: How it wants ordered columns cut into pieces; None for a Gaussian mixture.
        max_categories: Values of a categorical column that it chooses between, where no override says otherwise.
        licence: What the manifest says of licences that bear on its models; empty where none does.
        privacy: Mechanisms that it can be fitted under.
    """

    synthesizer: SynthesizerFamily
    load_fitter: Callable[[], FitterFactory]
    iterative: bool = False
    networks: bool = False
    packages: tuple[str, ...] = ()
    pieces: Pieces | None = None
    max_categories: int = MAX_CATEGORIES
    licence: str = ""
    privacy: frozenset[Mechanism] = frozenset()

    @property
    def capabilities(self) -> Capabilities:
        """What its models offer."""
        return replace(self.synthesizer.capabilities, privacy=self.privacy)

    def make_fitter(self, table: EncodedTable, config: FamilyConfig, context: FitContext) -> Fitter:
        """Return the family's fitter on the training rows.

        Args:
            table: The training rows.
            config: An instance of `self.config`, valid.
            context: The fit's surroundings.
        """
        return self.load_fitter()(table, config, context)
