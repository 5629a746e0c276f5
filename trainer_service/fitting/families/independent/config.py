"""Hyper-parameters of the independent family: there are none."""

from dataclasses import dataclass

from trainer_service.fitting.families.hyperparameters import FamilyConfig


@dataclass(frozen=True)
class IndependentConfig(FamilyConfig):
    """Each column by its own marginal: nothing to set."""
