"""The families and their hyper-parameters as Markdown, for the documentation."""

from collections.abc import Sequence

from rowmint.synthesizer import ConditionSupport
from trainer_service.fitting.families import Family, family_named, family_names
from trainer_service.fitting.families.hyperparameters import value_text

_CONDITIONS = {ConditionSupport.REJECTION: "by rejection", ConditionSupport.EXACT: "exact"}


def families_markdown() -> str:
    """Return a table of the families, one row each, in the order of the list."""
    rows = [
        (
            f"`{family.name}`",
            family.summary,
            _CONDITIONS[family.capabilities.conditions],
            "yes" if family.capabilities.likelihood else "no",
            ", ".join(sorted(family.capabilities.privacy)) or "none",
            family.suits,
        )
        for family in map(family_named, family_names())
    ]
    return _table(("family", "what it is", "conditions", "likelihood", "privacy", "for"), rows)


def hyperparameters_markdown(family: Family) -> str:
    """Return a table of a family's hyper-parameters, in the order declared; a sentence where it has none."""
    defaults = family.config.defaults()
    rows = [
        (f"`{name}`", parameter.help, parameter.range or "true or false", f"`{value_text(defaults[name])}`")
        for name, parameter in family.config.hyperparameters().items()
    ]
    if not rows:
        return f"`{family.name}` has no hyper-parameters.\n"
    return _table(("hyper-parameter", "what it is", "range", "default"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
