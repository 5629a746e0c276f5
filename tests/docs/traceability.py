"""docs/traceability.md: which tests hold which promise, from the pages' tables and promises.toml."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from tests.docs.pages import DOCS, GENERATED, ROOT, cells, table, text

PAGE = DOCS / "traceability.md"
PROMISES = Path(__file__).with_name("promises.toml")
PAGES: Mapping[str, str] = {
    "R": "reliability",
    "F": "reliability",
    "S": "security",
}
"""The page in whose tables the ids of each letter stand."""

_TITLES = {
    "R": "Reliability",
    "F": "Faults found while this was built",
    "S": "Security",
}
_ID = re.compile(r"([A-Z])-(\d+)")

_TEMPLATE = """# Traceability

{generated}

Which tests hold which promise. The promises are those of `docs/reliability.md` and `docs/security.md`, named by id; the
tests are listed in `tests/docs/promises.toml`. A file alone stands for all its tests.

{sections}
"""


def held() -> dict[str, list[str]]:
    """Return the tests that hold each promise, by its id: a path, or a path and a test's name after `::`."""
    found: dict[str, list[str]] = tomllib.loads(PROMISES.read_text(encoding="utf-8"))["promises"]
    return found


def promised() -> dict[str, str]:
    """Return each promise as the pages state it, by its id."""
    found: dict[str, str] = {}
    for page in dict.fromkeys(PAGES.values()):
        for line in text(DOCS / f"{page}.md").splitlines():
            row = cells(line)
            if row and (match := _ID.fullmatch(row[0])):
                if PAGES.get(match[1]) != page or row[0] in found:
                    raise ValueError(f"docs/{page}.md: the id {row[0]} is used twice, or belongs to another page")
                found[row[0]] = row[1]
    return found


def is_there(test: str) -> bool:
    """Return whether a test, a path or a path and a name after `::`, exists."""
    path, _, name = test.partition("::")
    file = ROOT / path
    if not file.is_file():
        return False
    return not name or bool(re.search(rf"^ *(?:async )?def {name.rpartition('::')[2]}\(", text(file), re.MULTILINE))


def render() -> str:
    """Return the page."""
    tests, promises = held(), promised()
    sections = []
    for letter, title in _TITLES.items():
        rows = [
            (key, promise, ", ".join(f"`{test}`" for test in tests.get(key, [])))
            for key, promise in sorted(promises.items(), key=lambda item: int(item[0].partition("-")[2]))
            if key.startswith(f"{letter}-")
        ]
        sections.append(f"## {title}\n\n{table(('id', 'promise', 'held by'), rows)}")
    return _TEMPLATE.format(generated=GENERATED, sections="\n\n".join(sections))
