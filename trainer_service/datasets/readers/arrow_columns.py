"""The columns of one Parquet or Arrow table: their types, and their cells in the few types that ingest supports.

***No cell changes without an error or a notice***: what a type of ingest cannot hold is an error with its row, and what
it holds in another way, the hints or a notice say.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.errors import DataProblem, InvalidDataError
from rowmint.schema.forms import StorageType
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import Notice, NoticeCode, Notices
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_cells import CellReader, plain, plain_numbers, view_lengths
from trainer_service.datasets.readers.arrow_types import check_types, extension, inner

EXPANDED_BYTES = 16 << 20
"""Maximum size of a batch once dictionaries and views are expanded."""
_CELL_BYTES = 16  # of the widest type other than text
_UUID_BYTES = 36
_ROWS = 65_536
_MAX_DICTIONARY = 64 << 20
_INDEX = re.compile(r"__index_level_[0-9]+__")
_EXTENSION_NAME = b"ARROW:extension:name"

_STORAGE: tuple[tuple[Callable[[pa.DataType], bool], StorageType], ...] = (
    (pa.types.is_int8, StorageType.INT8),
    (pa.types.is_int16, StorageType.INT16),
    (pa.types.is_int32, StorageType.INT32),
    (pa.types.is_uint8, StorageType.UINT8),
    (pa.types.is_uint16, StorageType.UINT16),
    (pa.types.is_uint32, StorageType.UINT32),
    (pa.types.is_uint64, StorageType.UINT64),
    (pa.types.is_float16, StorageType.FLOAT16),
    (pa.types.is_float32, StorageType.FLOAT32),
    (pa.types.is_date64, StorageType.DATE64),
    (pa.types.is_large_string, StorageType.LARGE_STRING),
)
_UNITS = {
    "timestamp": {"s": StorageType.TIMESTAMP_S, "ms": StorageType.TIMESTAMP_MS, "ns": StorageType.TIMESTAMP_NS},
    "time": {
        "s": StorageType.TIME32_S,
        "ms": StorageType.TIME32_MS,
        "us": StorageType.TIME64_US,
        "ns": StorageType.TIME64_NS,
    },
    "duration": {
        "s": StorageType.DURATION_S,
        "ms": StorageType.DURATION_MS,
        "us": StorageType.DURATION_US,
        "ns": StorageType.DURATION_NS,
    },
}


def storage_of(kind: pa.DataType) -> StorageType | None:
    """Return the type that a column came in, where that is not the canonical one of its data type."""
    kind = inner(kind)
    for name, is_kind in (
        ("timestamp", pa.types.is_timestamp),
        ("time", pa.types.is_time),
        ("duration", pa.types.is_duration),
    ):
        if is_kind(kind):
            return _UNITS[name].get(kind.unit)
    return next((storage for is_kind, storage in _STORAGE if is_kind(kind)), None)


class ArrowColumns:
    """The columns of one table.

    Args:
        schema: Its schema; untrusted.
        limits: Limits of columns, texts and rows.

    Attributes:
        hints: Types and time zones of the columns.
        notices: What was decided about them. Those that concern cells are there once a pass has been completed.

    Raises:
        InvalidDataError: A name or type is not supported; all are listed.
    """

    def __init__(self, schema: pa.Schema, limits: IngestLimits) -> None:
        check_types(schema, limits)
        self._limits = limits
        self._complete = False
        self.notices = Notices()
        found = {field.name: storage_of(field.type) for field in schema}
        instants = [field for field in schema if pa.types.is_timestamp(inner(field.type))]
        zones = {field.name: inner(field.type).tz for field in instants if inner(field.type).tz}
        self.hints = FormatHints(
            storage={name: kind for name, kind in found.items() if kind is not None},
            arrow_zones={name: zone for name, zone in zones.items() if zone != "UTC"},
        )
        for field in schema:
            self._note_type(field)

    def _note_type(self, field: pa.Field) -> None:
        """Add the notices on the type of one column."""
        said = []
        name = extension(field.type)
        if not name and field.metadata:
            name = field.metadata.get(_EXTENSION_NAME, b"").decode(errors="replace")[:64]
        if name == "arrow.bool8":
            said.append("bytes that stand for booleans are read as booleans")
        elif name and name != "arrow.uuid":
            said.append(f"values of the extension type {name} are read as what they are stored as")
        if field.name in self.hints.arrow_zones:
            zone = self.hints.arrow_zones[field.name]
            said.append(f"instants are kept in UTC; the time zone {zone} stays in the type only, text is in UTC")
        if pa.types.is_dictionary(field.type) and field.type.ordered:
            said.append("categories are ordered in the file; their order is not kept")
        if _INDEX.fullmatch(field.name):
            said.append("the column is an index that pandas stored; it is read like any other")
        for message in said:
            flag = f"--column {field.name}=ignored" if _INDEX.fullmatch(field.name) else ""
            self.notices.add(Notice(NoticeCode.STORAGE, field.name, message, flag))

    def reading(self) -> "ArrowPass":
        """Return a pass over all batches."""
        return ArrowPass(self._limits, self._completed)

    def _completed(self, found: Notices) -> None:
        if not self._complete:
            self._complete = True
            self.notices.extend(found.all())


class ArrowPass:
    """One pass over the batches of a table."""

    def __init__(self, limits: IngestLimits, completed: Callable[[Notices], None]) -> None:
        self._limits = limits
        self._completed = completed
        self._notices = Notices()

    def note(self, notice: Notice) -> None:
        """Add a notice of this pass."""
        self._notices.add(notice)

    def complete(self) -> None:
        """End the pass; its notices become those of the table, if it was the first."""
        self._completed(self._notices)

    def pieces(self, batch: pa.RecordBatch, first_row: int, problems: Problems) -> Iterator[pa.RecordBatch]:
        """Yield a batch in one or more slices with few types.

        They are null, bool, int64, float64, decimal128, string, date32, timestamp[us] and timestamp[us, UTC]. Times of
        day are integers, microseconds since midnight; durations are integers of their unit. Unsigned integers are text
        in slices that have one beyond 64 bits.

        Args:
            batch: A batch whose types have passed `check_types`; it is untrusted, so its offsets and text are validated
                here first.
            first_row: Number of its first row, from 1.
            problems: Receives the rows with values that these types cannot represent.

        Raises:
            InvalidDataError: The batch is inconsistent, or a text is too long.
        """
        try:
            # Numbers that are no days or times of day are errors of their rows.
            viewed = [plain_numbers(column) for column in batch.columns]
            pa.RecordBatch.from_arrays(viewed, names=batch.schema.names).validate(full=True)
        except pa.ArrowInvalid as error:
            raise InvalidDataError(
                [DataProblem("the batch of this row is corrupt; write the file again", row=first_row)]
            ) from error
        names = batch.schema.names
        columns = [
            plain(column, name, first_row, _MAX_DICTIONARY) for name, column in zip(names, batch.columns, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(columns, names=names)
        step = _rows_at_a_time(batch, first_row, self._limits)
        for start in range(0, len(batch), step):
            piece = batch.slice(start, step)
            cells = CellReader(first_row + start, problems, self._notices)
            columns = [cells.read(column, name) for name, column in zip(names, piece.columns, strict=True)]
            _check_rows(columns, first_row + start, problems, self._limits)
            yield pa.RecordBatch.from_arrays(columns, names=names)


def _check_rows(columns: list[pa.Array], first_row: int, problems: Problems, limits: IngestLimits) -> None:
    """Report the rows whose texts together are too long."""
    texts = [column for column in columns if pa.types.is_string(column.type) and len(column) > column.null_count]
    if sum(pc.max(pc.binary_length(column)).as_py() for column in texts) <= limits.row_bytes:
        return
    lengths = np.zeros(len(columns[0]), np.int64)
    for column in texts:
        lengths += pc.binary_length(column).fill_null(0).to_numpy()
    problems.add_rows(limits.row_reason, lengths > limits.row_bytes, first_row, "")


def _rows_at_a_time(batch: pa.RecordBatch, first_row: int, limits: IngestLimits) -> int:
    """Return how many rows can be expanded at once, as many cells can refer to one long text."""
    longest = _CELL_BYTES * max(batch.num_columns, 1)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        texts = column.dictionary if pa.types.is_dictionary(column.type) else column
        if extension(column.type):
            longest += _UUID_BYTES
            continue
        if pa.types.is_string_view(texts.type):
            most = int(view_lengths(texts).max(initial=0))
        elif texts is not column and (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
            most = pc.max(pc.binary_length(texts)).as_py() or 0
        else:
            continue
        if most > limits.text_bytes:
            message = f"a text in the batch of this row {limits.text_reason}"
            raise InvalidDataError([DataProblem(message, row=first_row, column=name)])
        longest += most
    return int(max(1, min(len(batch), _ROWS, EXPANDED_BYTES // longest)))
