"""Completion of names in a shell: those of models, datasets, jobs and families.

The services are those that the command line and the environment name. Whatever fails completes nothing: a shell has no
place for an error.
"""

import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Protocol

import typer

from rowmint.cli.output import client_of, short_name
from rowmint.client import Client
from rowmint.client.families import family_names
from rowmint.client.settings import VARIABLES, ClientSettings

LISTING_SECONDS = 1.0
"""How long a service may take to list names: a shell waits for it."""

_BASH_BREAKS = frozenset(":=@")


class _Named(Protocol):
    """A resource."""

    name: str


def complete_families(incomplete: str) -> list[str]:
    """Return the families that begin with a text."""
    return [name for name in family_names() if name.startswith(incomplete)]


def complete_models(context: typer.Context, incomplete: str) -> list[str]:
    """Return the models that begin with a text."""
    return _names(context, incomplete, Client.list_models)


def complete_datasets(context: typer.Context, incomplete: str) -> list[str]:
    """Return the datasets that begin with a text."""
    return _names(context, incomplete, Client.list_datasets)


def complete_jobs(context: typer.Context, incomplete: str) -> list[str]:
    """Return the training jobs that begin with a text."""
    return _names(context, incomplete, Client.list_jobs)


def complete_data(context: typer.Context, incomplete: str) -> list[str]:
    """Return the files and datasets that begin with a text."""
    return [*_files(incomplete), *complete_datasets(context, incomplete)]


def _names(context: typer.Context, incomplete: str, listed: "Callable[[Client], Iterator[_Named]]") -> list[str]:
    """Return the ids that begin with a text; full names where it is the beginning of one."""
    given = {name: value for name, value in context.find_root().params.items() if name in VARIABLES}
    end = time.monotonic() + LISTING_SECONDS
    found: list[str] = []
    try:
        with client_of(ClientSettings.load(given), patience=LISTING_SECONDS) as client:
            for one in listed(client):
                name = one.name if incomplete.startswith("projects/") else short_name(one.name)
                if name.startswith(incomplete):
                    found.append(name)
                if time.monotonic() > end:
                    break
    except Exception:  # noqa: BLE001  # see above
        return []
    return found


def _files(incomplete: str) -> list[str]:
    """Return the paths that begin with a text, folders with a slash after them."""
    folder, slash, start = incomplete.rpartition("/")
    try:
        inside = sorted(Path(folder + slash or ".").iterdir())
    except OSError:
        return []
    return [
        f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
        for path in inside
        if path.name.startswith(start) and path.name.startswith(".") == start.startswith(".")
    ]


def join_bash_words(environment: MutableMapping[str, str]) -> None:
    """Join again what Bash has split of the command line that is to be completed: `host:port` and `--option=value`.

    Args:
        environment: The environment, changed in place: COMP_WORDS, a word a line, and COMP_CWORD, the number of the
            word at the cursor.
    """
    words = environment.get("COMP_WORDS", "").split("\n")
    cursor = environment.get("COMP_CWORD", "")
    if len(words) == 1 or not cursor.isdigit():
        return
    joined: list[str] = []
    at = int(cursor)
    for index, word in enumerate(words):
        if index > 1 and (word in _BASH_BREAKS or words[index - 1] in _BASH_BREAKS):
            joined[-1] += word
            at -= index <= int(cursor)
        else:
            joined.append(word)
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "\n".join(joined), str(at)
