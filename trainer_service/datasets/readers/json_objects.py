"""JSON: one object per line, or one array of objects; the first character decides which."""

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
_CELLS = 1 << 20  # one object can add a column to all others of its batch
_BATCH_CHARACTERS = 4 << 20
_SPACE = " \t\r\n"
_SPACES = re.compile(f"[{_SPACE}]*")
# A string, complete or truncated at the end; or a structural character.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{,}\]]', re.DOTALL)

Located = tuple[int, int, Any]
"""Line from 1, length in characters, and the value."""


class JsonReader:
    """Reads JSON objects; see `TableReader`. Absent keys and null are missing cells.

    Args:
        source: The bytes, UTF-8, seekable.
        limits: Limits of columns and objects.

    Raises:
        InvalidDataError: The file is empty, or starts with neither an object nor an array.
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
                message = "the file starts with neither { nor [; it must contain JSON objects"
                raise InvalidDataError([DataProblem(message, line=1)])
        raise InvalidDataError([DataProblem("the file is empty; it must contain JSON objects")])

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
                message = f"there are {len(known)} different keys up to here; {self._limits.columns_reason}"
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
            # Objects without keys are rows, too.
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
        return pa.RecordBatch.from_arrays(columns, names=names)

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """See `TableReader.lines_of`; the file is read once more."""
        requested, found, row = set(rows), {}, 0
        for line, _, value in self._located(Problems()):
            if isinstance(value, dict):
                row += 1
                if row in requested:
                    found[row] = line
            if len(found) == len(requested):
                break
        return found

    def _located(self, problems: Problems) -> Iterator[Located]:
        if self._is_array:
            return _ArrayScanner(self._texts(), self._decoder, problems, self._limits).elements()
        return self._lines(problems)

    def _texts(self) -> Iterator[str]:
        """Yield the file's text in pieces.

        Raises:
            InvalidDataError: It is not UTF-8; the error has the line.
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
    """Reads the elements of one JSON array; only the current element and a chunk are in memory."""

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
            InvalidDataError: The array is malformed; later elements cannot be located.
        """
        self._next_character()
        self._at += 1  # the opening bracket, already checked
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
            # A number at the end of the text may continue in the next piece: parse again.

    def _more(self) -> bool:
        """Read more text; return whether there was any."""
        self._here()
        pieces = [self._text[self._at :]]
        # The amount doubles, so that an incomplete element is parsed only a few times.
        amount = max(_CHUNK, len(pieces[0]))
        while amount > 0 and not self._ended:
            piece = next(self._texts, None)
            self._ended = piece is None
            pieces.append(piece or "")
            amount -= len(pieces[-1])
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
    """The value is complete but not allowed: reading more text would not help."""


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not a JSON value; write null for a missing number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise _RefusedError(f"the key {_shown(twice)!r} is given more than once")
    return found


def _shown(key: str) -> str:
    """Return a key, truncated and as valid text, for a message."""
    return key[:_SHOWN].encode("utf-8", "replace").decode()


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
        _RefusedError: It has more.
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
    """Return the cells of one column of a batch: typed if all are of one kind, else all as text."""
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
                problems.add("has an unpaired surrogate, which is not valid text", row=first_row + index, column=name)
                texts[index] = None
        return pa.array(texts, pa.string())


def _text(value: Any) -> str:
    """Return a cell as text, in the same form as `conversion.to_text`."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool) else repr(value)
