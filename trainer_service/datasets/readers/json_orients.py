"""How a JSON document holds a table, in the words of pandas: seen from its beginning, and read row by row."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.formats import JsonOrient
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.json_scan import SPACE, JsonScanner, Located, shown

_SPACES = re.compile(f"[{SPACE}]*")
# A string, complete or truncated at the end; or a structural character.
_TOKEN = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"|\\?\Z)|[\[{,:}\]]', re.DOTALL)
_WHOLE = re.compile(r"-?[0-9]+")
_SPLIT = {"columns", "index", "data"}
_INDEX = "index"
"""Name that pandas gives an index without one."""


@dataclass
class Labels:
    """The labels of rows, which are not read, and whether they are only row numbers.

    Attributes:
        rows: Number of labels so far.
        counted: Whether they count from 0.
    """

    rows: int = 0
    counted: bool = True

    def add(self, label: Any) -> None:
        """Add the label of the next row."""
        self.counted = self.counted and str(label) == str(self.rows)
        self.rows += 1


@dataclass
class _Outline:
    """The members of the first object of a document, as far as they are seen.

    Attributes:
        keys: Their keys.
        kinds: First character of the value of each.
        inner: First key within the first value, if that is an object.
        follows: Whether text follows the object.
        spread: Whether the object ends on another line than it begins.
    """

    keys: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    inner: str = ""
    follows: bool = False
    spread: bool = False


def seen_orient(text: str) -> JsonOrient:
    """Return how a document is read of which `text` is the beginning.

    An object of objects is one of columns, as pandas writes by default, unless its keys count rows and those within do
    not: then each is a row.
    """
    start = text.lstrip(SPACE)
    if start.startswith("["):
        return JsonOrient.VALUES if start[1:].lstrip(SPACE).startswith("[") else JsonOrient.RECORDS
    outline = _outline(start)
    kinds = set(outline.kinds)
    if outline.follows or not kinds <= {"{", "["} or not kinds:
        return JsonOrient.LINES
    found = dict(zip(outline.keys, outline.kinds, strict=True))
    if set(found) <= {"schema", "data", "pandas_version"} and found.get("schema") == "{":
        return JsonOrient.TABLE
    if {"columns"} < set(found) <= _SPLIT and kinds == {"["}:
        return JsonOrient.SPLIT
    if kinds == {"{"}:
        counted = all(key == str(number) for number, key in enumerate(outline.keys))
        return JsonOrient.INDEX if counted and not _WHOLE.fullmatch(outline.inner) else JsonOrient.COLUMNS
    return JsonOrient.COLUMNS if kinds == {"["} else JsonOrient.LINES


def is_spread(text: str) -> bool:
    """Return whether the first object of a document has several lines, so that no line is an object."""
    start = text.lstrip(SPACE)
    return start.startswith("{") and _outline(start).spread


def _outline(text: str) -> _Outline:
    """Return the members of the object that a text begins with."""
    outline, depth, key = _Outline(), 0, ""
    for token in _TOKEN.finditer(text):
        character = token[0][0]
        if character == '"':
            key = token[1]
            if depth == 2 and not outline.inner and outline.kinds == ["{"]:
                outline.inner = key
        elif character == ":" and depth == 1:
            space = _SPACES.match(text, token.end())
            at = token.end() if space is None else space.end()
            first = text[at : at + 1]
            if first:
                outline.keys.append(key)
                outline.kinds.append(first)
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if not depth:
            outline.follows = bool(text[token.end() :].strip(SPACE))
            outline.spread = "\n" in text[: token.end()]
            return outline
    return outline


class OrientedRows:
    """The rows of one JSON document as objects.

    Args:
        scanner: At its start.
        orient: How it holds them: not COLUMNS; LINES for objects of several lines, one after another.
        problems: Receives the rows that do not fit.
        labels: Receives the labels of its rows.
    """

    def __init__(self, scanner: JsonScanner, orient: JsonOrient, problems: Problems, labels: Labels) -> None:
        self._scanner = scanner
        self._orient = orient
        self._problems = problems
        self._labels = labels

    def rows(self) -> Iterator[Located]:
        """Yield each row; those that are not objects, as they are.

        Raises:
            InvalidDataError: The document is malformed, or not of this orient.
        """
        match self._orient:
            case JsonOrient.INDEX:
                for _, label in self._scanner.members():
                    self._labels.add(label)
                    yield self._scanner.value()
            case JsonOrient.SPLIT:
                yield from self._split()
            case JsonOrient.TABLE:
                yield from self._table()
            case JsonOrient.VALUES:
                yield from self._named(self._scanner.elements(), None)
            case JsonOrient.LINES:
                while self._scanner.peek():
                    yield self._scanner.value()
            case _:
                yield from self._scanner.elements()
        self._scanner.end()

    def _split(self) -> Iterator[Located]:
        names: list[str] | None = None
        for line, key in self._scanner.members():
            if key == "columns":
                names = self._names(self._scanner.value()[2], line)
            elif key == "index":
                for _, _, label in self._scanner.elements():
                    self._labels.add(label)
            elif key == "data":
                if names is None:
                    raise self._wrong("has its data before its columns", line)
                yield from self._named(self._scanner.elements(), names)
            else:
                raise self._wrong(f"has the key {shown(key)!r}", line)

    def _table(self) -> Iterator[Located]:
        index = None
        for line, key in self._scanner.members():
            if key == "schema":
                schema = self._scanner.value()[2]
                keys = schema.get("primaryKey") if isinstance(schema, dict) else None
                index = _INDEX if keys == [_INDEX] else ""
            elif key == "data":
                if index is None:
                    raise self._wrong("has its data before its schema", line)
                for place, length, row in self._scanner.elements():
                    if index and isinstance(row, dict) and index in row:
                        self._labels.add(row.pop(index))
                    yield place, length, row
            else:
                self._scanner.skip()

    def _named(self, rows: Iterator[Located], names: list[str] | None) -> Iterator[Located]:
        """Yield rows that are arrays as objects."""
        for line, length, row in rows:
            if not isinstance(row, list):
                self._problems.add("is not a JSON array, as the rows before it are", line=line)
                continue
            if names is None:
                names = [f"column{number}" for number in range(1, len(row) + 1)]
            if len(row) != len(names):
                self._problems.add(f"has {len(row)} values; there are {len(names)} columns", line=line)
                continue
            yield line, length, dict(zip(names, row, strict=True))

    def _names(self, found: Any, line: int) -> list[str]:
        if not isinstance(found, list) or any(isinstance(name, list | dict | None) for name in found):
            raise self._wrong("has columns that are not a list of names", line)
        names = [name if isinstance(name, str) else str(name) for name in found]
        if len(set(names)) < len(names):
            raise self._wrong("has two columns of the same name", line)
        return names

    def _wrong(self, what: str, line: int) -> InvalidDataError:
        message = f"a document of orient {self._orient} {what}; write it with orient='records'"
        return InvalidDataError([*self._problems.found, DataProblem(message, line=line)])
