"""Upgrades or downgrades a registry to a revision: ``python -m rowmint.migrations URL [SCHEMA=REVISION ...]``.

A trainer upgrades its registry when it starts; this command is for downgrades to the previous release.
"""

import argparse
import sys

from rowmint.errors import RowmintError
from rowmint.registry import migrate, open_registry
from rowmint.registry.tables import SCHEMAS


def main() -> None:
    """Parse the command line and migrate; on failure, exit with one line on standard error, and code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m rowmint.migrations",
        description="Migrates a registry to a revision. A downgrade discards data that only newer revisions can store.",
    )
    parser.add_argument("registry", help="sqlite:///folder or postgresql+psycopg://...")
    parser.add_argument(
        "revisions",
        nargs="*",
        metavar="SCHEMA=REVISION",
        help=f"revision of a schema ({', '.join(SCHEMAS)}), such as rowmint_data=data_0001; default: the newest",
    )
    arguments = parser.parse_args()
    revisions = dict(text.partition("=")[::2] for text in arguments.revisions)
    unknown = sorted(set(revisions) - set(SCHEMAS))
    if unknown:
        parser.error(f"{unknown[0]!r} is not a schema; schemas are {', '.join(SCHEMAS)}")
    try:
        registry = open_registry(arguments.registry)
        migrate(registry.engine, revisions or None)
        registry.close()
    except RowmintError as error:
        sys.exit(f"migrations: {error.message}")


if __name__ == "__main__":
    main()
