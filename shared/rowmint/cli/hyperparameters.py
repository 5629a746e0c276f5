"""Options of `rowmint train` for every setting of a training job, made from the API's description of them."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rowmint.client.families import FieldHelp, TrainingField, field_help, training_fields


def with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with an option for each setting of a training job that it has no parameter for itself.

    Args:
        command: A Typer command. Its keyword argument `settings` gets the values that were given, by name; it is not an
            option itself.
    """
    signature = inspect.signature(command)
    own = [parameter for name, parameter in signature.parameters.items() if name != "settings"]
    taken = {parameter.name for parameter in own}
    options = {field.name: _option(field) for field in training_fields() if field.name not in taken}

    def run(*arguments: Any, **values: Any) -> None:
        settings = {name: values.pop(name) for name in options}
        command(*arguments, **values, settings={name: value for name, value in settings.items() if value is not None})

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    parameters = [*own, *options.values()]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _option(field: TrainingField) -> inspect.Parameter:
    flag = f"--{field.name.replace('_', '-')}"
    names = (f"{flag}/--no-{flag.removeprefix('--')}",) if field.kind is bool else (flag,)
    option = typer.Option(*names, help=_help(field), rich_help_panel="Training", show_default=False)
    kind = field.kind
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help(field: TrainingField) -> str:
    """Return a sentence for each meaning that a setting has among its families: meaning, families, range, default."""
    families: dict[FieldHelp | None, list[str]] = {}
    for family in field.families or ("",):
        families.setdefault(field_help(family, field.name), []).append(family)
    return " ".join(_sentence(field, known, ", ".join(names)) for known, names in families.items())


def _sentence(field: TrainingField, known: FieldHelp | None, families: str) -> str:
    among = f"one of {', '.join(field.values)}" if field.values else ""
    form = "separated by commas" if field.repeated else ""
    if known is None:
        meaning = f"Hyper-parameter of {families}" if families else "For every family"
        notes = [among, form]
    else:
        meaning = known.help.replace("`", "")
        default = known.default.replace(", ", ",") if field.repeated else known.default
        notes = [families or "every family", known.range or among, form, f"default: {default}"]
    said = "; ".join(note for note in notes if note)
    return f"{meaning} [{said}]." if said else f"{meaning}."
