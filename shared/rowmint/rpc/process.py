"""A service as a process: its command line, its log, its settings, and how it says that it cannot run."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from rowmint.errors import RowmintError
from rowmint.logs import configure_logs
from rowmint.rpc.settings import ObservabilitySettings

S = TypeVar("S", bound=ObservabilitySettings)


def run(
    label: str,
    settings: type[S],
    serve: Callable[[S], Coroutine[Any, Any, None]],
    options: Mapping[str, str] | None = None,
) -> None:
    """Run a service until it ends; exit with one line on standard error, and code 1, where it cannot run.

    Args:
        label: ``trainer`` or ``sampler``.
        settings: Reads the settings from the environment.
        serve: Serves until a signal.
        options: Settings that the command line may give, too, and what its help says of them; each takes a number.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {label}_service",
        description=f"Serves the {label}. Settings are read from the environment (ROWMINT_*); none is needed.",
    )
    for name, text in (options or {}).items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="N", default=argparse.SUPPRESS, help=text)
    given = vars(parser.parse_args())
    try:
        found = settings(**given)
        configure_logs(label, log_format=found.log_format, level=found.log_level)
        asyncio.run(serve(found))
    except ValidationError as error:
        sys.exit(f"{label}: the settings are wrong: {'; '.join(map(_told, error.errors()))}")
    except SettingsError as error:
        sys.exit(f"{label}: the settings are wrong: {error}")
    except RowmintError as error:
        sys.exit(f"{label}: {error.message}")
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        sys.exit(f"{label}: {name}{error.strerror or error}")


def _told(problem: Any) -> str:
    """Return one line about a setting; its value may be a secret and is not shown."""
    name = "".join(f"ROWMINT_{part}: ".upper() for part in problem["loc"][:1])
    return name + str(problem["msg"]).removeprefix("Value error, ")
