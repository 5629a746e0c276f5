"""JSON: one object per line, one array of objects or arrays, or one object in an orient of pandas."""

import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from rowmint.errors import DataProblem, InvalidDataError
from rowmint.schema import INT64_MAX, INT64_MIN
from trainer_service.datasets.column_types import EXACT_DOUBLE, Inference
from trainer_service.datasets.formats import CsvFormat, JsonFormat, JsonOrient
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import Notice, NoticeCode, Notices
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_types import check_names
from trainer_service.datasets.readers.json_columns import JsonColumns
from trainer_service.datasets.readers.json_orients import Labels, OrientedRows, is_spread, seen_orient
from trainer_service.datasets.readers.json_scan import (
    CHUNK,
    SPACE,
    JsonLines,
    JsonScanner,
    Located,
    RoundedFloat,
    shown,
    texts,
)

_ROWS = 8192
_CELLS = 1 << 20  # one object can add a column to all others of its batch
_BATCH_CHARACTERS = 4 << 20
_NAMES = {bool: "booleans", int: "numbers", float: "numbers", str: "texts"}
_USUAL = (JsonOrient.LINES, JsonOrient.RECORDS)


class JsonReader:
    """Reads a JSON document; see `TableReader`. Absent keys and null are missing cells.

    Args:
        source: The bytes, UTF-8, seekable.
        declared: How they hold the table, if that was declared.
        limits: Limits of columns and objects.
        scratch: Folder of scratch files; None for the system's.

    Raises:
        InvalidDataError: The file is empty, or starts with neither an object nor an array.
    """

    inference = Inference.DATETIMES
    dialect: CsvFormat | None = None

    def __init__(
        self, source: io.RawIOBase, declared: JsonFormat, limits: IngestLimits, scratch: Path | None = None
    ) -> None:
        self._source = source
        self._limits = limits
        self.hints = FormatHints()
        self.notices = Notices()
        self._complete = False
        self._rounded: dict[str, int] = {}
        self._kinds: dict[str, set[str]] = {}
        self._huge: dict[str, int] = {}
        self._orient = self._seen(declared.orient)
        self._columns: JsonColumns | None = None
        if self._orient is JsonOrient.COLUMNS:
            self._columns = JsonColumns(self._scanner, self._column, limits, scratch)

    def _seen(self, declared: JsonOrient) -> JsonOrient:
        beginning = ""
        for text in texts(self._source):
            beginning += text
            start = beginning.lstrip(SPACE)[:1]
            if start and start not in ("[", "{"):
                message = "the file starts with neither { nor [; it must contain JSON objects"
                raise InvalidDataError([DataProblem(message, line=1)])
            if not start:
                beginning = ""
            # One piece more than the first shows whether a second object follows.
            elif len(beginning) > CHUNK:
                break
        if not beginning:
            raise InvalidDataError([DataProblem("the file is empty; it must contain JSON objects")])
        found = seen_orient(beginning) if declared is JsonOrient.SEEN else declared
        self._spread = declared is JsonOrient.SEEN and is_spread(beginning)
        if declared is JsonOrient.SEEN and found not in _USUAL:
            message = f"the document is read as pandas writes it with orient='{found}'"
            self.notices.add(Notice(NoticeCode.DIALECT, "", message, "--orient"))
        return found

    def _scanner(self, problems: Problems) -> JsonScanner:
        return JsonScanner(texts(self._source), problems, self._limits)

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """See `TableReader.batches`."""
        self._rounded, self._kinds, self._huge = {}, {}, {}
        if self._columns is not None:
            yield from self._columns.batches(problems)
            self._finish(self._columns.labels)
            return
        rows: list[dict[str, Any]] = []
        first_row, characters, known, labels = 1, 0, set[str](), Labels()
        for line, length, found in self._rows(problems, labels):
            if problems.full:
                return
            if not isinstance(found, dict):
                problems.add("is not a JSON object", line=line)
                continue
            nested = [key for key, value in found.items() if isinstance(value, dict | list)]
            for key in nested:
                message = "is nested; a cell is a text, a number, true, false or null"
                problems.add(message, line=line, column=shown(key))
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
        self._finish(labels)

    def _rows(self, problems: Problems, labels: Labels) -> Iterator[Located]:
        """Yield the rows; their labels are added to `labels`."""
        if self._orient is JsonOrient.LINES and not self._spread:
            yield from JsonLines(texts(self._source), problems, self._limits).values()
            return
        yield from OrientedRows(self._scanner(problems), self._orient, problems, labels).rows()

    def _finish(self, labels: Labels) -> None:
        """Add the notices on cells and rows, at the end of the first pass."""
        if self._complete:
            return
        self._complete = True
        for name, count in self._rounded.items():
            message = "numbers have more digits than a double holds; the nearest double is kept"
            self.notices.add(Notice(NoticeCode.DIGITS_DROPPED, name, message, "", count))
        for name, kinds in self._kinds.items():
            if len(kinds) > 1:
                message = f"its values are {' and '.join(sorted(kinds))} in the file; all of them become text"
                self.notices.add(Notice(NoticeCode.MIXED_FORMS, name, message))
        for name, count in self._huge.items():
            message = "integers beyond 64 bits are kept as text, digit by digit"
            self.notices.add(Notice(NoticeCode.BEYOND_INT64, name, message, "", count))
        if not labels.counted:
            message = "the labels of rows are not row numbers, and are not read; to keep them, write them as a column"
            self.notices.add(Notice(NoticeCode.STORAGE, "", message, "", labels.rows))

    def _batch(self, rows: list[dict[str, Any]], first_row: int, problems: Problems) -> pa.RecordBatch:
        names = list(dict.fromkeys(key for row in rows for key in row))
        check_names(names or ["-"], self._limits)
        columns = [self._column([row.get(name) for row in rows], name, first_row, problems) for name in names]
        if not names:
            # Objects without keys are rows, too.
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
        return pa.RecordBatch.from_arrays(columns, names=names)

    def _column(self, values: list[Any], name: str, first_row: int, problems: Problems) -> pa.Array:
        rounded = sum(type(value) is RoundedFloat for value in values)
        if rounded:
            self._rounded[name] = self._rounded.get(name, 0) + rounded
            values = [float(value) if type(value) is RoundedFloat else value for value in values]
        kinds = set(map(type, values)) - {type(None)}
        self._kinds.setdefault(name, set()).update(_NAMES[kind] for kind in kinds)
        if int in kinds:
            huge = sum(type(value) is int and not INT64_MIN <= value <= INT64_MAX for value in values)
            if huge:
                self._huge[name] = self._huge.get(name, 0) + huge
        return _array(values, kinds, name, first_row, problems)

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """See `TableReader.lines_of`; the file is read once more."""
        if self._columns is not None:
            # A row has cells on many lines.
            return {}
        requested, found, row = set(rows), {}, 0
        for line, _, value in self._rows(Problems(), Labels()):
            if isinstance(value, dict):
                row += 1
                if row in requested:
                    found[row] = line
            if len(found) == len(requested):
                break
        return found


def _array(values: list[Any], kinds: set[type], name: str, first_row: int, problems: Problems) -> pa.Array:
    """Return the cells of one column of a batch: typed if all are of one of the kinds there are, else all as text."""
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
