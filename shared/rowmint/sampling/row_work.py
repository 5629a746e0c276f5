"""Work on rows that a caller sends, one after the other: what completing and scoring them have in common."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from rowmint.artifact import Model
from rowmint.sampling.known_cells import KnownCells
from rowmint.sampling.messages import StreamHeader, StreamSummary
from rowmint.schema import Cell

GROUP_ROWS = 256
"""Row indices that share candidates; also the most rows of such a model that are worked on at once."""


class RowWork(ABC):
    """Counts rows as they come, and checks their known cells. For one caller at a time.

    Args:
        model: The model.
        start_row: Index of the first row.

    Attributes:
        model: The model.
        start_row: Index of the first row.
        next_row: Index of the row that comes next.
        candidates_drawn: Candidates drawn so far.
    """

    def __init__(self, model: Model, start_row: int) -> None:
        self.model = model
        self.start_row = start_row
        self.next_row = start_row
        self.candidates_drawn = 0
        self._known = KnownCells(model.schema)
        self._columns: set[str] = set()

    def header(self, version: str) -> StreamHeader:
        """Return the header of the stream; its length is not known, and so 0.

        Args:
            version: Name of the model's version.
        """
        return StreamHeader(
            model_version=version,
            model_digest=self.model.digest,
            plan_digest=b"",
            seed=0,
            grid=self.model.grid,
            rows=0,
            start_row=self.start_row,
            end_row=0,
            schema=self.model.schema,
        )

    def summary(self, *, complete: bool) -> StreamSummary:
        """Return what was done so far.

        Args:
            complete: Whether every row that was sent is answered.
        """
        rows = self.next_row - self.start_row
        return StreamSummary(
            candidates=self.candidates_drawn,
            accepted=rows,
            rows_delivered=rows,
            complete=complete,
            next_row=self.next_row,
        )

    def memory_bytes(self, rows: Sequence[Mapping[str, Cell]]) -> int:
        """Return the most bytes that answering these rows, and those before them, takes beside the rows."""
        self._columns.update(*rows)
        return self.bytes_for(self._columns)

    @abstractmethod
    def bytes_for(self, known: Collection[str]) -> int:
        """Return the most bytes that answering rows takes that know these columns."""

    def checked(self, rows: Sequence[Mapping[str, Cell]]) -> list[dict[str, Cell]]:
        """Return the known cells of the rows that come next as the model knows them.

        Raises:
            ColumnNotFoundError: A column does not exist.
            ValueNotFoundError: A category never occurred in training.
            InvalidConditionError: A cell is not a value of its column.
        """
        return self._known.checked(self.next_row, rows)

    def modelled(self, rows: Sequence[dict[str, Cell]]) -> Sequence[dict[str, Cell]]:
        """Return rows without their ids, which no model makes."""
        ids = self.model.identities
        return [{name: cell for name, cell in row.items() if name not in ids} for row in rows] if ids else rows
