"""What a stream consists of: a header, messages of rows, a summary."""

from dataclasses import dataclass

from rowmint.sampling.formats import TypedBatch
from rowmint.schema import TableSchema


@dataclass(frozen=True)
class StreamHeader:
    """What a stream is made from.

    Attributes:
        model_version: Name of the version; empty for a model that has none yet.
        model_digest: 32 bytes.
        plan_digest: 32 bytes.
        seed: 0 to 2**64 - 1.
        grid: Rows of a batch, a power of two.
        rows: Length of the logical stream; 0 where it is not known.
        start_row: First row.
        end_row: Row after the last; 0 where it is not known.
        schema: Columns delivered.
        rows_per_candidate: Most rows of the logical stream that share a candidate, 1 where they are independent; 0
            where it is not known.
        distinct_candidates: Distinct candidates that the rows of the logical stream rest on; 0 where it is not known.
        categories: Category lists of the columns, in order, empty for those without; None where the format has its own.
    """

    model_version: str
    model_digest: bytes
    plan_digest: bytes
    seed: int
    grid: int
    rows: int
    start_row: int
    end_row: int
    schema: TableSchema
    rows_per_candidate: int = 0
    distinct_candidates: int = 0
    categories: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True)
class RowsMessage:
    """Some rows, encoded.

    Attributes:
        first_row: Index of the first row.
        row_count: Row indices covered, missing ones included.
        data: The rows in a format of bytes.
        batches: The rows as typed columns.
        missing: Ranges of missing row indices, first and one after the last.
    """

    first_row: int
    row_count: int
    data: bytes = b""
    batches: tuple[TypedBatch, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()

    @property
    def rows(self) -> int:
        """Rows delivered, missing ones not counted."""
        return self.row_count - sum(stop - start for start, stop in self.missing)


@dataclass(frozen=True)
class StreamSummary:
    """How a stream ended.

    Attributes:
        candidates: Candidates drawn.
        accepted: Candidates that satisfied the conditions.
        rows_delivered: Rows delivered, missing ones not counted.
        complete: Whether every requested row is covered.
        next_row: Row after the last one covered: on the grid, or the first or the row after the last requested.
        distinct_candidates: Distinct candidates that the rows delivered rest on; 0 where it is not known.
        rows_per_candidate: Most of the rows delivered that share a candidate; 0 where it is not known, or of no rows.
    """

    candidates: int
    accepted: int
    rows_delivered: int
    complete: bool
    next_row: int
    distinct_candidates: int = 0
    rows_per_candidate: int = 0
