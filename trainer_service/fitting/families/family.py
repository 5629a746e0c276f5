"""What a family of synthesizer declares to the trainer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rowmint.synthesizer import Capabilities, Mechanism, SynthesizerFamily
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families.hyperparameters import FamilyConfig
from trainer_service.fitting.fitter import Fitter

FitterFactory = Callable[[EncodedTable, Any, FitContext], Fitter]
"""Makes a fitter on the training rows, given the family's own configuration, valid, and the fit's surroundings."""


@dataclass(frozen=True)
class Family:
    """A family: everything that the rest of the trainer needs to know of it.

    Attributes:
        name: Its name in requests, manifests and commands, the member of `TrainingConfig.family`.
        summary: What it is, one phrase.
        suits: What it is for, one phrase.
        config: Its hyper-parameters.
        synthesizer: The generative half that its models are written for.
        load_fitter: Imports its fitter and returns it; only then is what it needs loaded, as torch takes seconds.
        iterative: Whether its fitter is an `IterativeFitter`.
        networks: Whether it uses torch.
        packages: Other distributions whose version its weights depend on.
        binned: Whether it wants ordered columns in equal-mass bins, not as a Gaussian mixture.
        licence: What the manifest says of licences that bear on its models; empty where none does.
        privacy: Mechanisms that it can be fitted under.
    """

    name: str
    summary: str
    suits: str
    config: type[FamilyConfig]
    synthesizer: SynthesizerFamily
    load_fitter: Callable[[], FitterFactory]
    iterative: bool = False
    networks: bool = False
    packages: tuple[str, ...] = ()
    binned: bool = False
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
