"""The list of families that can be fitted. Adding one is its folder and one line here."""

from trainer_service.fitting.families.ctgan import CTGAN
from trainer_service.fitting.families.family import Family
from trainer_service.fitting.families.hyperparameters import FamilyConfig
from trainer_service.fitting.families.independent import INDEPENDENT
from trainer_service.fitting.families.tvae import TVAE

FAMILIES: tuple[Family, ...] = (CTGAN, TVAE, INDEPENDENT)

__all__ = ["FAMILIES", "Family", "FamilyConfig", "family_named", "family_names", "family_of"]


def family_names() -> tuple[str, ...]:
    """Return the families' names, in the order of the list."""
    return tuple(family.name for family in FAMILIES)


def family_named(name: str) -> Family:
    """Return the family of this name.

    Raises:
        KeyError: There is none.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise KeyError(f"{name!r} is not one of the families {', '.join(family_names())}")


def family_of(config: FamilyConfig) -> Family:
    """Return the family whose hyper-parameters these are.

    Raises:
        KeyError: There is none.
    """
    for family in FAMILIES:
        if type(config) is family.config:
            return family
    raise KeyError(f"{type(config).__name__} is not the configuration of one of the families")
