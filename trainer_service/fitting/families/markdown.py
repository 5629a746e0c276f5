"""What can be trained and its hyper-parameters as Markdown, for the documentation."""

from collections.abc import Sequence

from rowmint.synthesizer import ConditionSupport
from trainer_service.fitting.families import Family, Trainable, trainables
from trainer_service.fitting.families.hyperparameters import value_text

_CONDITIONS = {ConditionSupport.REJECTION: "by rejection", ConditionSupport.EXACT: "exact"}
_CHOSEN = ("of the family kept",) * 3


def families_markdown() -> str:
    """Return a table of what can be trained, one row each, in the order of the list."""
    rows = [(f"`{one.name}`", one.summary, *_offered(one), one.suits) for one in trainables()]
    return _table(("family", "what it is", "conditions", "likelihood", "privacy", "for"), rows)


def _offered(one: Trainable) -> tuple[str, str, str]:
    """Return how its models meet conditions, whether they have a likelihood, and the mechanisms of privacy."""
    if not isinstance(one, Family):
        return _CHOSEN
    offered = one.capabilities
    mechanisms = ", ".join(sorted(offered.privacy)) or "none"
    return _CONDITIONS[offered.conditions], "yes" if offered.likelihood else "no", mechanisms


def hyperparameters_markdown(one: Trainable) -> str:
    """Return a table of its hyper-parameters, in the order declared; a sentence where it has none."""
    defaults = one.config.defaults()
    rows = [
        (f"`{name}`", parameter.help, parameter.range or "true or false", f"`{value_text(defaults[name])}`")
        for name, parameter in one.config.hyperparameters().items()
    ]
    if not rows:
        return f"`{one.name}` has no hyper-parameters.\n"
    return _table(("hyper-parameter", "what it is", "range", "default"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
