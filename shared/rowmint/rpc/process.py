"""A service as a process: its command line, its log, its settings, and how it says that it cannot run."""

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from rowmint.errors import RowmintError
from rowmint.logs import configure_logs
from rowmint.rpc.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


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
        _leave()
    except ValidationError as error:
        sys.exit(f"{label}: the settings are wrong: {'; '.join(map(_told, error.errors()))}")
    except SettingsError as error:
        sys.exit(f"{label}: the settings are wrong: {error}")
    except RowmintError as error:
        sys.exit(f"{label}: {error.message}")
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        sys.exit(f"{label}: {name}{error.strerror or error}")


def _leave() -> NoReturn:
    """End the process with code 0: everything is closed, and there is nothing left for the interpreter to take down.

    gRPC's own threads are still there. One that asks for the interpreter while it is being taken down is ended within
    C++ code that allows no such end, and the whole process aborts (seen once in some hundred ends).
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def _told(problem: Any) -> str:
    """Return one line about a setting; its value may be a secret and is not shown."""
    name = "".join(f"ROWMINT_{part}: ".upper() for part in problem["loc"][:1])
    return name + str(problem["msg"]).removeprefix("Value error, ")
