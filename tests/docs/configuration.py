"""docs/configuration.md: every environment variable, from the classes of settings."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic_settings import BaseSettings

from rowmint.client.settings import VARIABLES, ClientSettings
from rowmint.rpc.settings import ObservabilitySettings, ServiceSettings
from sampler_service.settings import SamplerSettings
from tests.docs.pages import DOCS, GENERATED, table
from trainer_service.settings import TrainerSettings

PAGE = DOCS / "configuration.md"
HIDDEN = frozenset({"failpoint", "shares_port"})
"""For tests only, and set by the process that shares its port."""

_HEADER = ("variable", "default", "allowed", "meaning")
_SHARED = (*ObservabilitySettings.model_fields, *ServiceSettings.model_fields)
_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_TEMPLATE = """# Configuration

{generated}

Nothing has to be set: the defaults are a trainer and a sampler on this machine that keep everything in `.rowmint`.
Settings are environment variables; a service that meets one it cannot use ends at once and names it. `{{home}}` stands
for the folder of `ROWMINT_HOME`.

## Both services

Files are read again when they change, without a restart.

{shared}

## Trainer

{trainer}

Workers take `OMP_WAIT_POLICY` and `OPENBLAS_NUM_THREADS` from the trainer's environment; unset, threads that wait sleep
(`PASSIVE`) and NumPy's BLAS has one. So they do `ARROW_DEFAULT_MEMORY_POOL`; unset, Arrow allocates from the system.

## Sampler

{sampler}

A sampler takes `OPENBLAS_NUM_THREADS` from its environment; unset, NumPy's BLAS has one thread beside its own.

## Client and command

What `Client` is not given as an argument, and `rowmint` not as an option (`rowmint --help`), is read from these.

{client}

## OpenTelemetry

Both services and the command obey OpenTelemetry's own variables; `docs/operations.md` lists those that matter here.
"""


def meanings(settings: type[BaseSettings]) -> dict[str, str]:
    """Return what the docstrings of a class of settings and its bases say of each attribute, as Markdown."""
    found: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        if issubclass(base, BaseSettings) and base is not BaseSettings:
            found |= _attributes(base)
    return found


def default_of(settings: BaseSettings, name: str) -> str:
    """Return a setting's default as it is written, and more readably where it is a number of bytes or days."""
    if name == "threads" and isinstance(settings, SamplerSettings):
        return "all cores"
    # Filled in from the home where it is not set.
    value = getattr(settings, f"{name}_url", getattr(settings, name))
    if value in ("", None):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    said = str(value).replace(str(settings.home.absolute()), "{home}")
    if name.endswith("_bytes"):
        return f"`{said}` ({_bytes(value)})"
    days = value / 86_400 if name.endswith("_seconds") else 0
    return f"`{said}` ({days:g} day{'s' if days > 1 else ''})" if days >= 1 else f"`{said}`"


def allowed(settings: type[BaseSettings], name: str) -> str:
    """Return the values that a setting may have; empty where its meaning says it."""
    field = settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    least, above, most = (_bound(field.metadata, bound) for bound in ("ge", "gt", "le"))
    if above is not None:
        return f"above {above:,}"
    if least is None:
        return ""
    return f"{least:,} or more" if most is None else f"{least:,} to {most:,}"


def rows(settings: type[BaseSettings], names: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield one row a setting: variable, default, what is allowed, meaning."""
    said, defaults = meanings(settings), settings.model_construct()
    for name in names:
        yield f"`ROWMINT_{name.upper()}`", default_of(defaults, name), allowed(settings, name), said[name]


def client_rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield one row a variable that the client reads."""
    said, defaults = _attributes(ClientSettings), ClientSettings()
    for name, variable in VARIABLES.items():
        value = getattr(defaults, name)
        boolean = isinstance(value, bool)
        default = f"`{str(value).lower() if boolean else value}`" if value != "" else ""
        yield f"`{variable}`", default, "`true`, `false`" if boolean else "", said[name]


def render() -> str:
    """Return the page."""
    own = {
        settings: ["listen", *(name for name in settings.model_fields if name not in {*_SHARED, *HIDDEN})]
        for settings in (TrainerSettings, SamplerSettings)
    }
    shared = [name for name in dict.fromkeys(_SHARED) if name != "listen"]
    return _TEMPLATE.format(
        generated=GENERATED,
        shared=table(_HEADER, rows(TrainerSettings, shared)),
        trainer=table(_HEADER, rows(TrainerSettings, own[TrainerSettings])),
        sampler=table(_HEADER, rows(SamplerSettings, own[SamplerSettings])),
        client=table(_HEADER, client_rows()),
    )


def _attributes(described: type) -> dict[str, str]:
    """Return what the docstring of a class says of each attribute, as Markdown."""
    _, _, attributes = inspect.cleandoc(described.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.DOTALL | re.MULTILINE)
    return {name: " ".join(said.replace("``", "`").split()) for name, said in entries}


def _bound(metadata: list[Any], bound: str) -> int | float | None:
    return next((getattr(part, bound) for part in metadata if getattr(part, bound, None) is not None), None)


def _bytes(value: int) -> str:
    return next((f"{value // size} {unit}" for size, unit in _UNITS if value >= size), f"{value} bytes")
