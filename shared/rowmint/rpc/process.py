"""Entry point of a service process: command line, settings, logging, and errors at start."""

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
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
    """Run a service until it ends; exit with one line on standard error, and code 1, if it cannot run.

    Args:
        label: ``trainer`` or ``sampler``.
        settings: Class of the settings, which are read from the environment.
        serve: Serves until a signal.
        options: Help texts, by name, of the settings that can also be given on the command line; each takes a number.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {label}_service",
        description=f"Serves the {label}. Settings are read from the environment (ROWMINT_*); all have defaults.",
    )
    for name, text in (options or {}).items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="N", default=argparse.SUPPRESS, help=text)
    given = vars(parser.parse_args())
    with one_line_errors(label):
        found = settings(**given)
        configure_logs(label, log_format=found.log_format, level=found.log_level)
        asyncio.run(serve(found))
        _exit()


@contextlib.contextmanager
def one_line_errors(label: str) -> Iterator[None]:
    """Exit with one line on standard error, and code 1, where what is done raises what a person can act upon.

    Args:
        label: What the line starts with.
    """
    try:
        yield
    except ValidationError as error:
        sys.exit(f"{label}: the settings are invalid: {'; '.join(map(_setting_problem, error.errors()))}")
    except SettingsError as error:
        sys.exit(f"{label}: the settings are invalid: {error}")
    except RowmintError as error:
        sys.exit(f"{label}: {error.message}")
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        sys.exit(f"{label}: {name}{error.strerror or error}")


def _exit() -> NoReturn:
    """End the process with code 0, without finalizing the interpreter; everything has been closed.

    gRPC's own threads are still running. If one acquires the GIL during finalization, Python ends that thread inside
    C++ code that does not allow it, and the process aborts (seen about once in a hundred exits).
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def _setting_problem(problem: Any) -> str:
    """Return one line about an invalid setting; without its value, which may be a secret."""
    name = "".join(f"ROWMINT_{part}: ".upper() for part in problem["loc"][:1])
    return name + str(problem["msg"]).removeprefix("Value error, ")
