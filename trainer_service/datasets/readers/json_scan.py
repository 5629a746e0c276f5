"""Scanning of a JSON document value by value: only the current value and a chunk of text are in memory."""

import codecs
import io
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.signatures import is_utf16, refuse_other_format

_SHOWN = 256
CHUNK = 1 << 20
"""Bytes read at once."""
SPACE = " \t\r\n"
_SPACES = re.compile(f"[{SPACE}]*")
# A string, complete or truncated at the end; or a structural character.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{,}\]]', re.DOTALL)
_NUMBER = re.compile(r"[0-9.eE+-]*")
_EXACT_DIGITS = 15
_MOST_DIGITS = 17  # of a double: more than these cannot tell one from another
_TEXT = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SCALAR = rf"(?:{_TEXT}|-?[0-9][0-9.eE+-]*+|true|false|null)"
# Scalars one after another, each with the comma that follows it.
_RUNS = {
    "[": re.compile(rf"(?:[{SPACE}]*+{_SCALAR}[{SPACE}]*+,)*+", re.DOTALL),
    "{": re.compile(rf"(?:[{SPACE}]*+{_TEXT}[{SPACE}]*+:[{SPACE}]*+{_SCALAR}[{SPACE}]*+,)*+", re.DOTALL),
}
_RUN_CHARACTERS = 64 << 10
_CLOSING = {"[": ("]", "bracket"), "{": ("}", "brace")}

Located = tuple[int, int, Any]
"""Line from 1, length in characters, and the value."""


class RefusedError(ValueError):
    """The value is complete but not allowed: reading more text would not help."""


class RoundedFloat(float):
    """A number that was written with more digits than a double holds."""


def decoder() -> json.JSONDecoder:
    """Return a decoder that keeps every digit or says so, and refuses repeated keys and NaN."""
    return json.JSONDecoder(parse_constant=_constant, parse_float=_number, object_pairs_hook=_unique)


def _constant(name: str) -> float:
    if name == "NaN":
        raise RefusedError(f"{name} is not a JSON value; write null for a missing number")
    return float(name)


def _number(token: str) -> float:
    value = float(token)
    if len(token) <= _EXACT_DIGITS + 1 or repr(value) == token:  # with its point
        return value
    digits = len(token.lower().partition("e")[0].lstrip("+-0.").replace(".", ""))
    if digits <= _EXACT_DIGITS or Decimal(token) == Decimal(repr(value)):
        return value
    if digits <= _MOST_DIGITS and Decimal(token) == Decimal(f"{value:.{digits - 1}e}"):
        return value
    return RoundedFloat(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise RefusedError(f"the key {shown(twice)!r} is given more than once")
    return found


def shown(key: str) -> str:
    """Return a key, truncated and as valid text, for a message."""
    return key[:_SHOWN].encode("utf-8", "replace").decode()


def texts(source: io.RawIOBase) -> Iterator[str]:
    """Yield a file's text in pieces, from its start.

    Raises:
        InvalidDataError: It is not UTF-8, the error has the line; or is of another format.
    """
    refuse_other_format(source, "JSON")
    if is_utf16(source):
        raise InvalidDataError(
            [DataProblem("the bytes are UTF-16; convert the file to UTF-8, which JSON is written in")]
        )
    source.seek(0)
    utf8, line, first = codecs.getincrementaldecoder("utf-8")("strict"), 1, True
    while True:
        raw = source.read(CHUNK) or b""
        try:
            text = utf8.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line += raw[: error.start].count(b"\n")
            raise InvalidDataError([DataProblem("the bytes here are not UTF-8", line=line)]) from error
        line += raw.count(b"\n")
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text
        if not raw:
            return


class JsonLines:
    """Reads one value per line.

    Args:
        pieces: The text, in pieces.
        problems: Receives the lines that are not JSON.
        limits: Limits of a row.
    """

    def __init__(self, pieces: Iterator[str], problems: Problems, limits: IngestLimits) -> None:
        self._pieces = pieces
        self._problems = problems
        self._limits = limits
        self._decoder = decoder()

    def values(self) -> Iterator[Located]:
        """Yield the values.

        Raises:
            InvalidDataError: One is too long, or the text is not UTF-8.
        """
        line, left = 1, ""
        for text in self._pieces:
            pieces = (left + text).split("\n")
            left = pieces.pop()
            for piece in pieces:
                yield from self._value(piece, line)
                line += 1
            if len(left) > self._limits.row_bytes:
                raise _too_long(line, self._problems, self._limits)
        yield from self._value(left, line)

    def _value(self, text: str, line: int) -> Iterator[Located]:
        text = text.strip(SPACE)
        if not text:
            return
        if _exceeds(text, self._limits):
            raise _too_long(line, self._problems, self._limits)
        try:
            _check_structure(text, 0, self._limits)
            yield line, len(text), self._decoder.decode(text)
        except (ValueError, RecursionError) as error:
            self._problems.add(f"is not a JSON object: {_meaning(error)}", line=line)


class JsonScanner:
    """A cursor in one JSON document.

    Args:
        pieces: Its text, in pieces.
        problems: Problems found so far, which come first in errors.
        limits: Limits of a value.
    """

    def __init__(self, pieces: Iterator[str], problems: Problems, limits: IngestLimits) -> None:
        self._pieces = pieces
        self._limits = limits
        self._decoder = decoder()
        self._run_decoder = json.JSONDecoder(parse_constant=_constant, parse_float=_number, object_pairs_hook=list)
        self._run_length = 0
        self._problems = problems
        self._text, self._at, self._ended = "", 0, False
        self._line, self._counted = 1, 0  # `_line` is the line of the position `_counted`.

    def elements(self) -> Iterator[Located]:
        """Yield each element of the array here.

        Raises:
            InvalidDataError: The array is malformed; later elements cannot be located. So of all methods.
        """
        for _ in self._separated("["):
            yield self.value()

    def members(self) -> Iterator[tuple[int, str]]:
        """Yield the line and key of each member of the object here; its value must be read before the next one is."""
        for _ in self._separated("{"):
            line = self._here()
            yield line, self._key()

    def cells(self) -> Iterator[tuple[str | None, Located]]:
        """Yield the key of each member of the object here, or None for each element of an array, and its value.

        Runs of scalars are parsed at once, which is several times faster than one by one.
        """
        opening = "[" if self.peek() == "[" else "{"
        for _ in self._separated(opening):
            line = self._here()
            run = self._run(opening)
            for key, value in run:
                yield key, (line, self._run_length // len(run), value)
            if opening == "[":
                yield None, self.value()
            else:
                yield self._key(), self.value()

    def _run(self, opening: str) -> list[tuple[str | None, Any]]:
        """Return the scalars here that a comma follows, with their keys; none where one of them is invalid."""
        most = min(_RUN_CHARACTERS, self._limits.row_bytes)
        found = _RUNS[opening].match(self._text, self._at, self._at + most)
        if found is None or found.end() == self._at:
            return []
        closing = _CLOSING[opening][0]
        try:
            values = self._run_decoder.decode(opening + found[0][:-1] + closing)
        except ValueError:
            # One by one, the error has its line.
            return []
        self._at, self._run_length = found.end(), len(found[0])
        return values if opening == "{" else [(None, value) for value in values]

    def _key(self) -> str:
        """Return the key here, and pass its colon."""
        _, _, key = self.value()
        if not isinstance(key, str):
            raise self.failure("a key in quotes is missing here")
        if self.peek() != ":":
            raise self.failure("a colon is missing here")
        self._at += 1
        return key

    def _separated(self, opening: str) -> Iterator[None]:
        """Yield before each item of a list from its opening character to its closing one."""
        closing, word = _CLOSING[opening]
        if self.peek() != opening:
            raise self.failure(f"{opening!r} is missing here")
        self._at += 1
        separator = closing if self.peek() == closing else ","
        self._at += separator == closing
        while separator == ",":
            self.peek()
            yield
            separator = self.peek()
            if separator not in (",", closing) or not separator:
                raise self.failure(f"a comma or a closing {word} is missing here")
            self._at += 1

    def end(self) -> None:
        """Check that nothing follows."""
        if self.peek():
            raise self.failure("text follows the end of the array or object")

    def value(self) -> Located:
        """Return the value here."""
        self.peek()
        retried = False
        while True:
            try:
                if retried:
                    _check_structure(self._text, self._at, self._limits)
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self.failure("is nested too deeply") from error
            except RefusedError as error:
                raise self.failure(str(error)) from error
            except ValueError as error:
                if len(self._text) - self._at > self._limits.row_bytes:
                    raise _too_long(self._here(), self._problems, self._limits) from error
                if not self._more():
                    raise self.failure(f"is not a JSON object: {_meaning(error)}") from error
                retried = True
                continue
            if _exceeds(self._text[self._at : end], self._limits):
                raise _too_long(self._here(), self._problems, self._limits)
            if not self._may_go_on(value, end) or not self._more():
                located = self._here(), end - self._at, value
                self._at = end
                return located
            # Parse again.

    def _may_go_on(self, value: Any, end: int) -> bool:
        """Return whether a value that ends here may continue in the next piece of text, as 0 may in 0.5."""
        if isinstance(value, int | float):
            tail = _NUMBER.match(self._text, end)
            end = end if tail is None else tail.end()
        return end == len(self._text)

    def skip(self) -> None:
        """Skip the value here, of any length; arrays and objects are not nested in it."""
        if self.peek() == "[":
            for _ in self.elements():
                pass
        else:
            self.value()

    def peek(self) -> str:
        """Skip space and return the next character, or "" at the end."""
        while True:
            space = _SPACES.match(self._text, self._at)
            self._at = self._at if space is None else space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read more text; return whether there was any."""
        self._here()
        pieces = [self._text[self._at :]]
        # The amount doubles, so that an incomplete element is parsed only a few times.
        amount = max(CHUNK, len(pieces[0]))
        while amount > 0 and not self._ended:
            piece = next(self._pieces, None)
            self._ended = piece is None
            pieces.append(piece or "")
            amount -= len(pieces[-1])
        self._text, self._at, self._counted = "".join(pieces), 0, 0
        return any(pieces[1:])

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def failure(self, message: str) -> InvalidDataError:
        """Return the error of what is here, after the problems found before."""
        return InvalidDataError([*self._problems.found, DataProblem(message, line=self._here())])


def _too_long(line: int, problems: Problems, limits: IngestLimits) -> InvalidDataError:
    return InvalidDataError([*problems.found, DataProblem(f"the object here {limits.row_reason}", line=line)])


def _exceeds(text: str, limits: IngestLimits) -> bool:
    """Return whether an object's text is too long."""
    if 4 * len(text) <= limits.row_bytes:
        return False
    return (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) > limits.row_bytes


def _check_structure(text: str, start: int, limits: IngestLimits) -> None:
    """Check that a long text has no more values than a row may have: parsed, each may take thirty times its size.

    Raises:
        RefusedError: It has more.
    """
    if len(text) - start <= CHUNK:
        return
    values = depth = 0
    for token in _TOKEN.finditer(text, start):
        character = token[0]
        if character in "[{,":
            values += 1
            depth += character != ","
            if values > limits.columns + 1:
                raise RefusedError(f"it has more values than a row has columns; {limits.columns_reason}")
        elif character in "]}":
            depth -= 1
        if depth <= 0:
            return


def _meaning(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
