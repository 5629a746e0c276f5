"""One column during the second pass: its conversion, and what its values say about its kind."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.errors import DataProblem, InvalidDataError
from rowmint.lazy import lazy
from rowmint.schema import INT64_MAX, ColumnKind, ColumnSpec, DataType
from trainer_service.datasets.canonical_file import CanonicalFile
from trainer_service.datasets.column_profile import ColumnProfile
from trainer_service.datasets.conversion import ImpossibleError, InfinityRule, Mask, convert, mask, reason
from trainer_service.datasets.declarations import converted_domain, violations
from trainer_service.datasets.inference.identifiers import LearnedPattern, all_emails, learn_pattern
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.table_options import InfinitePolicy
from trainer_service.datasets.target import Target
from trainer_service.datasets.uniqueness import DistinctnessTest, repeated_rows

_INFINITE = "is not a finite number; --infinite missing makes such cells missing, --infinite clip the declared bound"
_WIDE_DECIMAL = "has more digits than decimals here have, 64 bits of the last; convert the column to text or ignore it"


@dataclass(frozen=True)
class Repetition:
    """How often values occur.

    Attributes:
        values: Cells that are not missing.
        distinct: Distinct values.
        single: Values that occur once.
    """

    values: int
    distinct: int
    single: int


class CanonicalColumn:
    """State of the second pass for one column.

    Args:
        name: Its name.
        target: What it is converted to.
        declared: Its declaration, or None.
        infinite: What is done with infinite numbers.

    Attributes:
        infinite: Number of infinite values that were clipped or became missing.
        counts_rows: Whether the column is 0, 1, 2 and so on, or 1, 2, 3.
        has_emails: Whether all of its texts are e-mail addresses; true as well if it has none.
    """

    def __init__(self, name: str, target: Target, declared: ColumnSpec | None, infinite: InfinitePolicy) -> None:
        self.name = name
        self.target = target
        self.declared = ColumnSpec(name) if declared is None else declared
        self.domain = converted_domain(self.declared, target)
        self.profile = ColumnProfile(target.data_type)
        self.distinctness: DistinctnessTest | None = None
        self.infinite = 0
        bounds = (self.domain.minimum, self.domain.maximum) if target.data_type is DataType.DOUBLE else (None, None)
        low, high = (None if bound is None else float(bound) for bound in bounds)  # type: ignore[arg-type]
        self._infinity = InfinityRule(infinite, low, high)
        self._is_decimal = target.data_type is DataType.DECIMAL and self.declared.kind is not ColumnKind.IGNORED
        self._first: int | None = None
        self.counts_rows = target.data_type is DataType.INT64
        self.has_emails = target.data_type is DataType.STRING
        self._rows = 0

    def open(self, path: Path) -> None:
        """Prepare counting distinct values, in a file."""
        if self.target.data_type in (DataType.INT64, DataType.STRING):
            self.distinctness = DistinctnessTest(path)

    def close(self) -> None:
        """Remove the file of distinct values."""
        if self.distinctness is not None:
            self.distinctness.close()
            self.distinctness = None

    def convert(
        self, array: pa.Array | None, length: int, problems: Problems, *, limits: IngestLimits, is_key: bool
    ) -> pa.Array:
        """Return the next rows of the column converted, and count them.

        Args:
            array: Its cells; None if all of them are missing.
            length: Number of rows.
            problems: Receives the rows that are invalid.
            limits: Limits of texts.
            is_key: Whether it is the primary key, which has no missing cell.

        Raises:
            InvalidDataError: The type of the cells cannot be converted.
        """
        if array is None:
            array = pa.nulls(length)
        try:
            converted = convert(array, self.target, limits, self._infinity)
        except ImpossibleError as error:
            raise InvalidDataError([DataProblem(str(error), column=self.name)]) from error
        first_row = self._rows + 1
        problems.add_cells(reason(self.target, limits), converted.bad, first_row, self.name, array)
        if converted.refused is not None:
            problems.add_cells(_INFINITE, converted.refused, first_row, self.name, array)
        for message, rows in violations(converted.array, self.domain, self.target):
            problems.add_cells(message, rows & ~converted.bad, first_row, self.name, array)
        if self._is_decimal:
            problems.add_cells(_WIDE_DECIMAL, _wide_decimals(converted.array), first_row, self.name, array)
        self.infinite += converted.infinite
        self._count(converted.array, is_key=is_key)
        if is_key and converted.array.null_count:
            missing = converted.array.is_null().to_numpy(zero_copy_only=False)
            problems.add_rows("is missing, but is the primary key", missing, first_row, self.name)
        self._rows += length
        return converted.array

    def _count(self, array: pa.Array, *, is_key: bool) -> None:
        self.profile.add(array)
        if self.counts_rows:
            self.counts_rows = self._continues(array)
        if self.has_emails:
            # Most columns have none, and are not tested after their first text.
            self.has_emails = all_emails(array.slice(0, 1)) and all_emails(array)
        if self.distinctness is None:
            return
        self.distinctness.add(array)
        # Most columns of integers repeat a value in their first batch, and are not tested further.
        if not is_key and self.target.data_type is DataType.INT64 and not self.profile.all_distinct:
            self.close()

    def _continues(self, array: pa.Array) -> bool:
        """Return whether the next integers are consecutive, from 0 or 1 on in the first row."""
        if array.null_count or not len(array):
            return not array.null_count
        values = array.to_numpy()
        if self._first is None:
            self._first = int(values[0])
        expected = np.arange(len(values), dtype=np.int64) + (self._first + self._rows)
        return self._first in (0, 1) and bool((values == expected).all())

    def is_distinct(self, file: CanonicalFile) -> bool:
        """Return whether no cell is missing and all values are distinct.

        Args:
            file: The canonical file.
        """
        if self.distinctness is None or not self.profile.all_distinct:
            return False
        repeated = self.distinctness.repeated_keys()
        return not len(repeated) or not repeated_rows(file.batches(self.name), repeated, 1)

    @lazy
    def repetition(self) -> Repetition | None:
        """How often values occur, once all rows are converted; None for other columns than text."""
        if self.distinctness is None or self.target.data_type is not DataType.STRING:
            return None
        distinct, single = self.distinctness.counts()
        return Repetition(self.profile.values, distinct, single)

    def pattern(self, file: CanonicalFile) -> LearnedPattern | None:
        """Return the pattern of a column of text; None if it has no texts.

        Args:
            file: The canonical file.
        """
        return learn_pattern(file.batches(self.name))


def _wide_decimals(array: pa.Array) -> Mask:
    """Return which decimals have units of their last digit beyond 64 bits, shape (n,)."""
    bound = pa.scalar(Decimal(INT64_MAX).scaleb(-array.type.scale), array.type)
    return mask(pc.greater(pc.abs(array), bound).fill_null(False))
