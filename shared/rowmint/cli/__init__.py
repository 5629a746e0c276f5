"""The `rowmint` command."""

from rowmint.cli.app import main

__all__ = ["main"]
