"""Brings a registry to a revision, forth or back: ``python -m rowmint.migrations URL [SCHEMA=REVISION ...]``.

A trainer does so by itself when it starts; this is for who goes back to the release before.
"""

import argparse
import sys

from rowmint.errors import RowmintError
from rowmint.registry import migrate, open_registry
from rowmint.registry.tables import SCHEMAS


def main() -> None:
    """Read the command line, migrate, exit; with one line on standard error, and code 1, where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m rowmint.migrations",
        description="Brings a registry to a revision. Going back forgets what only the newer revision can hold.",
    )
    parser.add_argument("registry", help="sqlite:///folder or postgresql+psycopg://...")
    parser.add_argument(
        "revisions",
        nargs="*",
        metavar="SCHEMA=REVISION",
        help=f"revision of a schema ({', '.join(SCHEMAS)}), such as rowmint_data=data_0001; none: the newest of each",
    )
    arguments = parser.parse_args()
    revisions = dict(text.partition("=")[::2] for text in arguments.revisions)
    unknown = sorted(set(revisions) - set(SCHEMAS))
    if unknown:
        parser.error(f"{unknown[0]!r} is no schema; there are {', '.join(SCHEMAS)}")
    try:
        registry = open_registry(arguments.registry)
        migrate(registry.engine, revisions or None)
        registry.close()
    except RowmintError as error:
        sys.exit(f"migrations: {error.message}")


if __name__ == "__main__":
    main()
