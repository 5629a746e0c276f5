"""Hyper-parameters of the choice among families."""

from dataclasses import dataclass

from trainer_service.fitting.families.hyperparameters import FamilyConfig, integer, names

LEAST_ROWS = 50
"""Rows kept out of training below which candidates are not compared."""


@dataclass(frozen=True)
class AutoConfig(FamilyConfig):
    """The best of several families, each fitted with its defaults."""

    seconds: int = integer(600, 1, 1_000_000, "Seconds for all candidates together; the first is fitted in any case")
    families: tuple[str, ...] = names(("circuit", "tvae", "ctgan"), "Families to fit, in this order")
