"""shared/rowmint/client/hyperparameters.json, which the client explains training options by, from the declarations."""

import json
from collections.abc import Mapping

from rowmint.client.families import family_names
from tests.docs.pages import ROOT
from trainer_service.config import SHARED, UNSET, TrainingConfig
from trainer_service.fitting.families import trainable_named
from trainer_service.fitting.families.hyperparameters import Hyperparameter, value_text

PAGE = ROOT / "shared" / "rowmint" / "client" / "hyperparameters.json"


def render() -> str:
    """Return the file: the fields of each family by its name, and those that all families share."""
    families = {}
    for family in map(trainable_named, family_names()):
        defaults = {name: value_text(value) for name, value in family.config.defaults().items()}
        families[family.name] = _described(family.config.hyperparameters(), defaults)
    defaults = {name: UNSET.get(name) or value_text(getattr(TrainingConfig, name)) for name in SHARED}
    body = {"families": families, "shared": _described(SHARED, defaults)}
    return json.dumps(body, indent=2) + "\n"


def _described(fields: Mapping[str, Hyperparameter], defaults: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {
        name: {"help": field.help, "range": field.range, "default": defaults[name]} for name, field in fields.items()
    }
