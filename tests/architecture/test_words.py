"""Names and prose of code, tests, protos and documents are plain technical English: see docs/concepts.md."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("README.md", "docs", "protos", "shared", "trainer_service", "sampler_service", "tests")
EXCLUDED = {
    ROOT / "docs" / "decisions.md": "dated records, which are not rewritten",
    ROOT / "tests" / "architecture" / "test_words.py": "has the phrases that are looked for",
    ROOT / "tests" / "golden" / "old_code": "code of an older version, as it was",
    ROOT / "tests" / "postgres_server.py": "names the user `nobody` of the operating system",
    ROOT / "tests" / "unit" / "test_pages.py": "has the phrases that are looked for",
}
"""Files and folders that are left out, and why."""
SUFFIXES = {".md", ".mjs", ".proto", ".py", ".pyi", ".sh", ".sql", ".toml", ".yaml", ".yml"}

SUGGESTIONS = {
    r"\bgo(es|ing|ne)? on with\b": "resume, continue",
    r"\b(asked|told)\b": "requested; reported",
    r"\banew\b": "again",
    r"\bafresh\b": "again; generated",
    r"\bnobody\b": "name the caller, client, process or thread that does not",
    r"\b(any|every)body\b": "every caller, every client",
    r"\bwhoever\b": "the caller, the client, the operator",
    r"\bsomebody\b": "a caller, a client, another process",
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\blet in\b": "authenticated, authorized",
    r"\blegs?\b": "attempt",
    r"\bhear(s|d)?\b": "receive, be reported; on_event",
    r"\bstor(y|ies)\b": "scenario, example; telemetry",
    r"\bcourse\b": "metrics, events",
    r"(?<!in-)\b(house|household|shelf)\b": "storage, deployment, processes, catalog",
    r"\bstrangers?\b": "another project, an unauthorized caller, an untrusted certificate",
    r"\bstarv(e|es|ed|ing)\b": "exhaust the candidate budget, delay",
}


def findings(name: str, text: str) -> Iterator[str]:
    """Yield a line for each phrase in a text that has a plainer word: where it is, and what to write."""
    for number, line in enumerate(text.splitlines(), 1):
        # Names in code are words as well.
        words = line.replace("_", " ")
        for pattern, suggestion in SUGGESTIONS.items():
            for match in re.finditer(pattern, words, re.IGNORECASE):
                yield f"{name}:{number}: {match[0]!r}; write: {suggestion}"


def files() -> Iterator[Path]:
    """Yield the files with prose that is read by users and contributors."""
    for place in PLACES:
        path = ROOT / place
        found = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES)
        yield from (one for one in found if EXCLUDED.keys().isdisjoint((one, *one.parents)))


def test_plain_words_are_used():
    found = [
        finding
        for path in files()
        for finding in findings(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The stream is gone on with.", ["x:1: 'gone on with'; write: resume, continue"]),
        ("one\nMended, and made anew", ["x:2: 'anew'; write: again", "x:2: 'Mended'; write: fix, repair"]),
        ("def test_a_seed_is_told():", ["x:1: 'told'; write: requested; reported"]),
        ("amend a renewal; recommended; a new one; ongoing; history", []),
    ],
)
def test_phrases_are_found_as_whole_words(text, expected):
    assert list(findings("x", text)) == expected
