"""Completing rows of which some cells are known: validation, candidates by group, ids.

A row is a pure function of model digest, seed, row index, known cells, tolerance and number of candidates. Rows
of one group of 256 indices share their candidates; each has draws of its own.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rowmint.codecs import IdentityCodec
from rowmint.codecs.identity import identity_key
from rowmint.errors import (
    ColumnNotFoundError,
    InvalidConditionError,
    InvalidFieldError,
    RowmintError,
    RowRangeError,
    ValueNotFoundError,
)
from rowmint.names import ModelVersionRef
from rowmint.rng import StreamKey
from rowmint.schema import (
    INT64_MAX,
    INT64_MIN,
    Cell,
    ColumnKind,
    ColumnSpec,
    DataType,
    cell_text,
    near_names,
    shown_cell,
)
from rowmint.schema.arrays import is_coded, native_number
from rowmint.synthesizer import Completer, CompletionOptions
from sampler_service.model_cache import LoadedModel

GROUP_ROWS = 256
"""Row indices that share candidates; also the most rows completed at once."""
COMPLETION_DIGEST = hashlib.sha256(b"rowmint/completion/1").digest()
"""Stands where a plan's digest stands in the keys of sampled rows, so that no word is shared with them."""

_MAX_ROW = 10**15
_MIN_CANDIDATES = 256
_MAX_CANDIDATES = 65_536
_MAX_TOLERANCE = 10.0


@dataclass(frozen=True)
class CompletionSpec:
    """What is asked of a stream of completed rows.

    Attributes:
        model: The version.
        seed: 0 to 2**64 - 1; None to draw one.
        start_row: Index of the first row sent.
        tolerance: Kernel width for known numbers, standard deviations.
        candidates: Candidates compared for each row, a power of two.
    """

    model: ModelVersionRef
    seed: int | None = None
    start_row: int = 0
    tolerance: float = 0.1
    candidates: int = 4096

    def validate(self) -> None:
        """Check everything that needs no model.

        Raises:
            InvalidFieldError: A field is out of its range.
            RowRangeError: `start_row` is.
        """
        if not 0 <= self.start_row <= _MAX_ROW:
            raise RowRangeError(f"is {self.start_row}; must be 0 to {_MAX_ROW}", field="config.start_row")
        if not 0 < self.tolerance <= _MAX_TOLERANCE:
            raise InvalidFieldError(
                "config.tolerance", f"is {self.tolerance}; must be above 0 and at most {_MAX_TOLERANCE:g}"
            )
        power = self.candidates > 0 and self.candidates & (self.candidates - 1) == 0
        if not power or not _MIN_CANDIDATES <= self.candidates <= _MAX_CANDIDATES:
            raise InvalidFieldError(
                "config.candidates",
                f"is {self.candidates}; must be a power of two, {_MIN_CANDIDATES} to {_MAX_CANDIDATES}",
            )


@dataclass(frozen=True)
class CompletedRow:
    """One completed row.

    Attributes:
        row: Its index.
        cells: All cells by column, in the schema's order.
        effective_sample_size: Kish's effective number of candidates it was drawn from.
        tolerance: Kernel width used.
    """

    row: int
    cells: dict[str, Cell]
    effective_sample_size: float
    tolerance: float


class RowCompletion:
    """Completes rows in the order they come. For one caller at a time.

    Args:
        loaded: The model.
        spec: What is asked, valid.
        seed: The seed, drawn where none was given.
    """

    def __init__(self, loaded: LoadedModel, spec: CompletionSpec, seed: int) -> None:
        self.loaded = loaded
        self.seed = seed
        self.start_row = spec.start_row
        self.next_row = spec.start_row
        self.candidates_drawn = 0
        self._model = loaded.model
        self._spec = spec
        self._key = StreamKey(self._model.digest, COMPLETION_DIGEST, seed)
        self._columns = [_KnownColumn(column) for column in self._model.schema.columns]
        self._names = set(self._model.schema.names)
        self._group = -1
        self._completer: Completer | None = None
        self._id_keys = {name: identity_key(self._model.digest, "", name, seed) for name in self._model.identities}

    def complete(self, rows: Sequence[Mapping[str, Cell]]) -> list[CompletedRow]:
        """Complete the rows that come next.

        Args:
            rows: Known cells of each row by column; None for one that is known to be missing.

        Raises:
            ColumnNotFoundError: A column does not exist.
            ValueNotFoundError: A category was never seen in training.
            InvalidConditionError: A cell is not one of its column's.
            RowRangeError: An id column has no id for a row.
        """
        first = self.next_row
        checked = [self._checked(first + offset, known) for offset, known in enumerate(rows)]
        ids = {name: self._ids(name, codec, first, len(rows)) for name, codec in self._model.identities.items()}
        done = [
            self._completed(first + offset, known, {name: texts[offset] for name, texts in ids.items()})
            for offset, known in enumerate(checked)
        ]
        self.next_row = first + len(rows)
        return done

    def _checked(self, row: int, known: Mapping[str, Cell]) -> dict[str, Cell]:
        """Return the known cells in the schema's order, as products of weights are taken in that order."""
        for name in known:
            if name not in self._names:
                error = ColumnNotFoundError(name, near_names(name, list(self._model.schema.names)))
                raise _of_row(error, row)
        found = {}
        for column in self._columns:
            if column.name in known:
                try:
                    found[column.name] = column.checked(known[column.name])
                except ValueError as error:
                    raise InvalidConditionError(
                        f"row {row}, column {column.name!r}: {error}",
                        metadata={"row": str(row), "column": column.name},
                    ) from error
                except ValueNotFoundError as error:
                    raise _of_row(error, row) from error
        return found

    def _completed(self, row: int, known: dict[str, Cell], ids: dict[str, Cell]) -> CompletedRow:
        modelled = {name: cell for name, cell in known.items() if name not in ids}
        completion = self._pool(row // GROUP_ROWS).complete(modelled, self._key.tile(row, 1))
        cells = {**completion.cells, **ids, **known}
        ordered = {name: cells[name] for name in self._model.schema.names}
        return CompletedRow(row, ordered, completion.effective_sample_size, completion.tolerance)

    def _pool(self, group: int) -> Completer:
        if self._completer is None or group != self._group:
            key = self._key.tile(group, 0)
            options = CompletionOptions(self._spec.candidates, self._spec.tolerance)
            self._completer = self._model.synthesizer.completer(key, options)
            self._group = group
            self.candidates_drawn += self._spec.candidates
        return self._completer

    def _ids(self, name: str, codec: IdentityCodec, first: int, count: int) -> Sequence[Cell]:
        try:
            values = codec.values(first, count, self._id_keys[name])
        except RowRangeError as error:
            about = {**error.metadata, "column": name}
            raise RowRangeError(f"column {name!r}: {error.message}", metadata=about) from error
        integers: list[int] = values.tolist()
        return integers if codec.integral else codec.texts(values)


class _KnownColumn:
    """Checks known cells of one column."""

    def __init__(self, column: ColumnSpec) -> None:
        self.name = column.name
        self._column = column
        # A truth value equals a number in Python, but is another category.
        self._categories = {(isinstance(cell, bool), cell): cell for cell in column.domain.categories}
        self._texts = {cell_text(cell): cell for cell in column.domain.categories if cell is not None}

    def checked(self, cell: Cell) -> Cell:
        """Return the cell as the model knows it.

        Raises:
            ValueError: It is not one of the column's.
            ValueNotFoundError: The category was never seen.
        """
        column = self._column
        if column.kind is ColumnKind.ID:
            expected = int if column.data_type is DataType.INT64 else str
            if not isinstance(cell, expected) or isinstance(cell, bool):
                raise ValueError(f"{shown_cell(cell)} is no id; ids of this column are of type {column.data_type}")
            return cell
        if cell is None:
            if not column.nullable:
                raise ValueError("a missing cell never occurred in training; leave the column out to have it made")
            return None
        if is_coded(column):
            return self._category(cell)
        number = native_number(cell, column)
        if column.data_type is DataType.DOUBLE:
            if not math.isfinite(_double(number.numerator, number.denominator)):
                raise ValueError("the number is beyond the range of binary64")
        elif number.denominator != 1 or not INT64_MIN <= number <= INT64_MAX:
            raise ValueError(f"{cell_text(cell)} is not one of its values: too fine or too large")
        return cell

    def _category(self, cell: Cell) -> Cell:
        key = (isinstance(cell, bool), cell)
        if key in self._categories:
            return self._categories[key]
        text = cell_text(cell)
        if text in self._texts:  # 1 for "1": the caller cannot always know a category's type
            return self._texts[text]
        texts = list(self._texts)
        raise ValueNotFoundError(self.name, text, near_names(text, texts) or texts[:3])


def _double(numerator: int, denominator: int) -> float:
    try:
        return numerator / denominator
    except OverflowError:
        return math.inf


def _of_row(error: ColumnNotFoundError | ValueNotFoundError, row: int) -> RowmintError:
    """Say which row an error is about, in its message and its metadata."""
    error.message = f"row {row}: {error.message}"
    error.metadata["row"] = str(row)
    return error
