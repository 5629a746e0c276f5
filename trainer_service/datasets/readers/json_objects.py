"""JSON: one object a line, or one array of objects, recognised by the first character."""

import codecs
import io
import json
import re
from collections.abc import Collection, Iterator
from typing import Any, NoReturn

import pyarrow as pa

from rowmint.errors import DataProblem, InvalidDataError
from rowmint.schema import INT64_MAX, INT64_MIN
from trainer_service.datasets.column_types import EXACT_DOUBLE, Inference
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_types import check_names

_SHOWN = 256
_CHUNK = 1 << 20
_ROWS = 8192
_CELLS = 1 << 20  # an object may bring a column that all others of its batch then have too
_BATCH_CHARACTERS = 4 << 20
_SPACE = " \t\r\n"
_SPACES = re.compile(f"[{_SPACE}]*")
# A text, whole or cut off at the end; or what stands between values.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{,}\]]', re.DOTALL)

Located = tuple[int, int, Any]
"""Line from 1, length in characters, and what stands there."""


class JsonReader:
    """Reads JSON objects; see `TableReader`. A key that an object lacks is a missing cell, and so is null.

    Args:
        source: The bytes, UTF-8, seekable.
        limits: How many columns there may be, and how long an object.

    Raises:
        InvalidDataError: The file is empty, or begins neither with an object nor with an array.
    """

    inference = Inference.DATETIMES

    def __init__(self, source: io.RawIOBase, limits: IngestLimits) -> None:
        self._source = source
        self._limits = limits
        self._decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique)
        self._is_array = self._first_character() == "["

    def _first_character(self) -> str:
        for text in self._texts():
            start = text.lstrip(_SPACE)[:1]
            if start in ("[", "{"):
                return start
            if start:
                message = "the file begins neither with { nor with [; it must hold JSON objects"
                raise InvalidDataError([DataProblem(message, line=1)])
        raise InvalidDataError([DataProblem("the file is empty; it must hold JSON objects")])

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """See `TableReader.batches`."""
        rows: list[dict[str, Any]] = []
        first_row, characters, known = 1, 0, set[str]()
        for line, length, found in self._located(problems):
            if problems.full:
                return
            if not isinstance(found, dict):
                problems.add("is not a JSON object", line=line)
                continue
            nested = [key for key, value in found.items() if isinstance(value, dict | list)]
            for key in nested:
                message = "is nested; a cell is a text, a number, true, false or null"
                problems.add(message, line=line, column=_shown(key))
            known.update(found)
            if len(known) > self._limits.columns:
                message = f"{len(known)} different keys have come up by here; {self._limits.columns_reason}"
                raise InvalidDataError([*problems.found, DataProblem(message, line=line)])
            rows.append({} if nested else found)
            characters += length
            if len(rows) >= min(_ROWS, _CELLS // max(len(known), 1)) or characters >= _BATCH_CHARACTERS:
                yield self._batch(rows, first_row, problems)
                first_row += len(rows)
                rows, characters = [], 0
        if rows:
            yield self._batch(rows, first_row, problems)

    def _batch(self, rows: list[dict[str, Any]], first_row: int, problems: Problems) -> pa.RecordBatch:
        names = list(dict.fromkeys(key for row in rows for key in row))
        check_names(names or ["-"], self._limits)
        columns = [_column([row.get(name) for row in rows], name, first_row, problems) for name in names]
        if not names:
            # Objects without any key are rows all the same.
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
        return pa.RecordBatch.from_arrays(columns, names=names)

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """See `TableReader.lines_of`; the file is read once more."""
        wanted, found, row = set(rows), {}, 0
        for line, _, value in self._located(Problems()):
            if isinstance(value, dict):
                row += 1
                if row in wanted:
                    found[row] = line
            if len(found) == len(wanted):
                break
        return found

    def _located(self, problems: Problems) -> Iterator[Located]:
        if self._is_array:
            return _ArrayScanner(self._texts(), self._decoder, problems, self._limits).elements()
        return self._lines(problems)

    def _texts(self) -> Iterator[str]:
        """Yield the file's text in pieces.

        Raises:
            InvalidDataError: It is not UTF-8; the line is told.
        """
        self._source.seek(0)
        decoder, line, first = codecs.getincrementaldecoder("utf-8")("strict"), 1, True
        while True:
            raw = self._source.read(_CHUNK) or b""
            try:
                text = decoder.decode(raw, final=not raw)
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

    def _lines(self, problems: Problems) -> Iterator[Located]:
        line, left = 1, ""
        for text in self._texts():
            pieces = (left + text).split("\n")
            left = pieces.pop()
            for piece in pieces:
                yield from self._line(piece, line, problems)
                line += 1
            if len(left) > self._limits.row_bytes:
                raise _too_long(line, problems, self._limits)
        yield from self._line(left, line, problems)

    def _line(self, text: str, line: int, problems: Problems) -> Iterator[Located]:
        text = text.strip(_SPACE)
        if not text:
            return
        if _exceeds(text, self._limits):
            raise _too_long(line, problems, self._limits)
        try:
            _check_structure(text, 0, self._limits)
            yield line, len(text), self._decoder.decode(text)
        except (ValueError, RecursionError) as error:
            problems.add(f"is not a JSON object: {_meaning(error)}", line=line)


class _ArrayScanner:
    """Reads the elements of one JSON array, holding no more of it than the one being read and a chunk."""

    def __init__(
        self, texts: Iterator[str], decoder: json.JSONDecoder, problems: Problems, limits: IngestLimits
    ) -> None:
        self._texts = texts
        self._limits = limits
        self._decoder = decoder
        self._problems = problems
        self._text, self._at, self._ended = "", 0, False
        self._line, self._counted = 1, 0  # `_line` is the line of the position `_counted`.

    def elements(self) -> Iterator[Located]:
        """Yield each element.

        Raises:
            InvalidDataError: The array is malformed; what follows cannot be told apart.
        """
        self._next_character()
        self._at += 1  # the opening bracket, seen already.
        separator = "]" if self._next_character() == "]" else ","
        self._at += separator == "]"
        while separator == ",":
            self._next_character()
            yield self._element()
            separator = self._next_character()
            if separator not in (",", "]") or not separator:
                raise self._failure("a comma or a closing bracket is missing here")
            self._at += 1
        if self._next_character():
            raise self._failure("text follows the end of the array")

    def _element(self) -> Located:
        retried = False
        while True:
            try:
                if retried:
                    _check_structure(self._text, self._at, self._limits)
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self._failure("is nested too deeply") from error
            except _RefusedError as error:
                raise self._failure(str(error)) from error
            except ValueError as error:
                if len(self._text) - self._at > self._limits.row_bytes:
                    raise _too_long(self._here(), self._problems, self._limits) from error
                if not self._more():
                    raise self._failure(f"is not a JSON object: {_meaning(error)}") from error
                retried = True
                continue
            if _exceeds(self._text[self._at : end], self._limits):
                raise _too_long(self._here(), self._problems, self._limits)
            if end < len(self._text) or not self._more():
                located = self._here(), end - self._at, value
                self._at = end
                return located
            # A number at the end of what is there may go on in the next piece: once more.

    def _more(self) -> bool:
        """Read on; return whether there was anything."""
        self._here()
        pieces = [self._text[self._at :]]
        # As much again as is there: an element read in vain is then read in vain a few times only.
        wanted = max(_CHUNK, len(pieces[0]))
        while wanted > 0 and not self._ended:
            piece = next(self._texts, None)
            self._ended = piece is None
            pieces.append(piece or "")
            wanted -= len(pieces[-1])
        self._text, self._at, self._counted = "".join(pieces), 0, 0
        return any(pieces[1:])

    def _next_character(self) -> str:
        """Skip space and return the next character, or "" at the end."""
        while True:
            space = _SPACES.match(self._text, self._at)
            self._at = self._at if space is None else space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _failure(self, message: str) -> InvalidDataError:
        return InvalidDataError([*self._problems.found, DataProblem(message, line=self._here())])


class _RefusedError(ValueError):
    """What stands there is whole but not allowed: reading on would not help."""


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is no JSON value; write null for a missing number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _RefusedError(f"the key {_shown(twice)!r} is given more than once")
    return found


def _shown(key: str) -> str:
    """Return a key as a message may hold it: of bounded length, and text."""
    return key[:_SHOWN].encode("utf-8", "replace").decode()


def _too_long(line: int, problems: Problems, limits: IngestLimits) -> InvalidDataError:
    return InvalidDataError([*problems.found, DataProblem(f"the object here {limits.row_reason}", line=line)])


def _exceeds(text: str, limits: IngestLimits) -> bool:
    """Return whether an object's text is too long."""
    if 4 * len(text) <= limits.row_bytes:
        return False
    return (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) > limits.row_bytes


def _check_structure(text: str, start: int, limits: IngestLimits) -> None:
    """Check that a long text holds no more values than a row has: parsed, each may take thirty times its text.

    Raises:
        _RefusedError: It does.
    """
    if len(text) - start <= _CHUNK:
        return
    values = depth = 0
    for token in _TOKEN.finditer(text, start):
        character = token[0]
        if character in "[{,":
            values += 1
            depth += character != ","
            if values > limits.columns + 1:
                raise _RefusedError(f"it has more values than a row has columns; {limits.columns_reason}")
        elif character in "]}":
            depth -= 1
        if depth <= 0:
            return


def _meaning(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _column(values: list[Any], name: str, first_row: int, problems: Problems) -> pa.Array:
    """Return the cells of one column of a batch: typed where they are of one kind, else all as text."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds <= {int, float}:
        whole = [value for value in values if type(value) is int]
        low, high = min(whole, default=0), max(whole, default=0)
        if kinds == {int} and low >= INT64_MIN and high <= INT64_MAX:
            return pa.array(values, pa.int64())
        if float in kinds and max(-low, high) <= EXACT_DOUBLE:
            return pa.array(values, pa.float64(), from_pandas=False)
    texts = [None if value is None else _text(value) for value in values]
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        for index, text in enumerate(texts):
            if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
                problems.add("has half of a surrogate pair, which is no text", row=first_row + index, column=name)
                texts[index] = None
        return pa.array(texts, pa.string())


def _text(value: Any) -> str:
    """Return a cell as text; what `conversion.to_text` makes of a typed one."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool) else repr(value)
