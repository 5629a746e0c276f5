"""Options of `rowmint train` for every setting of a training job, made from the API's description of them."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rowmint.client.families import TrainingField, training_fields


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
    of = f"Hyper-parameter of {', '.join(field.families)}." if field.families else "For every family."
    if field.values:
        of = f"{of} One of {', '.join(field.values)}."
    elif field.repeated:
        of = f"{of} A list, its members separated by commas."
    names = (f"{flag}/--no-{flag.removeprefix('--')}",) if field.kind is bool else (flag,)
    option = typer.Option(*names, help=of, rich_help_panel="Training", show_default=False)
    kind = field.kind
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
