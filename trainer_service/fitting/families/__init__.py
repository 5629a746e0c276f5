"""The list of families that can be fitted. Adding one is its folder and one line here."""

from trainer_service.fitting.families.auto import AUTO
from trainer_service.fitting.families.circuit import CIRCUIT
from trainer_service.fitting.families.ctgan import CTGAN
from trainer_service.fitting.families.family import Family, Trainable
from trainer_service.fitting.families.hyperparameters import FamilyConfig
from trainer_service.fitting.families.independent import INDEPENDENT
from trainer_service.fitting.families.tvae import TVAE

FAMILIES: tuple[Family, ...] = (CIRCUIT, CTGAN, TVAE, INDEPENDENT)

__all__ = [
    "FAMILIES",
    "Family",
    "FamilyConfig",
    "Trainable",
    "family_named",
    "family_names",
    "family_of",
    "trainable_named",
    "trainable_of",
    "trainables",
]


def family_names() -> tuple[str, ...]:
    """Return the families' names, in the order of the list."""
    return tuple(family.name for family in FAMILIES)


def trainables() -> tuple[Trainable, ...]:
    """Return all that a job can request: the families, in the order of the list, then the choice among them."""
    return (*FAMILIES, AUTO)


def family_named(name: str) -> Family:
    """Return the family of this name.

    Raises:
        KeyError: There is none.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise KeyError(f"{name!r} is not one of the families {', '.join(family_names())}")


def trainable_named(name: str) -> Trainable:
    """Return what a job requests by this name.

    Raises:
        KeyError: There is no such thing.
    """
    return AUTO if name == AUTO.name else family_named(name)


def trainable_of(config: FamilyConfig) -> Trainable:
    """Return what a job requests by these hyper-parameters.

    Raises:
        KeyError: There is no such thing.
    """
    return AUTO if type(config) is AUTO.config else family_of(config)


def family_of(config: FamilyConfig) -> Family:
    """Return the family whose hyper-parameters these are.

    Raises:
        KeyError: There is none.
    """
    for family in FAMILIES:
        if type(config) is family.config:
            return family
    raise KeyError(f"{type(config).__name__} is not the configuration of one of the families")
