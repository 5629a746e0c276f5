"""A service as a process: its command line, its log, its settings, and how it says that it cannot run."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from rowmint.errors import RowmintError
from rowmint.logs import configure_logs

S = TypeVar("S", bound=BaseSettings)


def run(label: str, settings: type[S], serve: Callable[[S], Coroutine[Any, Any, None]]) -> None:
    """Run a service until it ends; exit with one line on standard error, and code 1, where it cannot run.

    Args:
        label: ``trainer`` or ``sampler``.
        settings: Reads the settings from the environment.
        serve: Serves until a signal.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {label}_service",
        description=f"Serves the {label}. Settings are read from the environment (ROWMINT_*); none is needed.",
    )
    parser.parse_args()
    configure_logs()
    try:
        asyncio.run(serve(settings()))
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
