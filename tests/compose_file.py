"""docker-compose.yml as it is, and as compose reads it where nothing is set."""

import re
from pathlib import Path
from typing import Any

import yaml

COMPOSE_FILE = Path(__file__).parents[1] / "docker-compose.yml"


def compose_file() -> dict[str, Any]:
    """Return the file's content, with its variables."""
    return yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))


def defaults_filled_in(text: str) -> str:
    """Return a text of the file with the default of each variable in its place, and single dollar signs."""
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text).replace("$$", "$")
