"""Completing rows of which some cells are known: candidates by group, ids.

A row is a pure function of model digest, seed, row index, known cells, tolerance and number of candidates. Rows
of one group of 256 indices share their candidates; each has draws of its own.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import rfc8785

from rowmint.artifact import Model
from rowmint.codecs import IdentityCodec
from rowmint.codecs.identity import identity_key
from rowmint.errors import CancelledError, RowRangeError
from rowmint.rng import StreamKey
from rowmint.sampling.known_cells import KnownCells
from rowmint.sampling.messages import StreamHeader, StreamSummary
from rowmint.sampling.spec import CompletionSpec, expect_digest
from rowmint.schema import Cell
from rowmint.synthesizer import Completer, CompletionOptions, CompletionSupport

GROUP_ROWS = 256
"""Row indices that share candidates; also the most rows completed at once."""
COMPLETION_DIGEST = hashlib.sha256(b"rowmint/completion/2").digest()
"""Stands where a plan's digest stands in the keys of sampled rows, so that no random number is shared with them."""


def completion_digest(model: Model, spec: CompletionSpec) -> bytes:
    """Return the digest of what completed rows depend on beside seed, index and known cells, 32 bytes."""
    tolerance = repr(float(spec.tolerance))
    body = rfc8785.dumps({"model": model.digest.hex(), "candidates": spec.candidates, "tolerance": tolerance})
    return hashlib.sha256(b"rowmint/completion/2\0" + body).digest()


@dataclass(frozen=True)
class CompletedRow:
    """One completed row.

    Attributes:
        row: Its index.
        cells: All cells by column, in the schema's order.
        effective_sample_size: Kish's effective number of candidates it was drawn from; 0 without support.
        tolerance: Kernel width used.
        support: Whether candidates agree with the known cells.
    """

    row: int
    cells: dict[str, Cell]
    effective_sample_size: float
    tolerance: float
    support: CompletionSupport


class RowCompletion:
    """Completes rows in the order they come. For one caller at a time.

    Args:
        model: The model.
        spec: The completion requested, valid, its seed given.
        stopped: Says whether the caller waits no longer; called before each row and each piece of its work.

    Attributes:
        model: The model.
        digest: Stands where a plan's digest stands in a header.
        seed: The seed.
        start_row: Index of the first row.
        next_row: Index of the row that comes next.
        candidates_drawn: Candidates drawn so far.
        candidates_used: Distinct candidates that the rows were drawn from; a row that shares none counts as one.
        rows_per_candidate: Most rows that were drawn from one candidate.

    Raises:
        InvalidFieldError: The spec has no seed.
        StreamMismatchError: A digest is not the expected one.
    """

    def __init__(self, model: Model, spec: CompletionSpec, stopped: Callable[[], bool] = lambda: False) -> None:
        expect_digest("model", spec.expected_model_digest, model.digest)
        self.digest = completion_digest(model, spec)
        expect_digest("plan", spec.expected_plan_digest, self.digest)
        self.model = model
        self.seed = spec.known_seed()
        self.start_row = spec.start_row
        self.next_row = spec.start_row
        self.candidates_drawn = 0
        self.candidates_used = 0
        self.rows_per_candidate = 0
        self._spec = spec
        self._options = CompletionOptions(spec.candidates, spec.tolerance, stopped)
        self._columns: set[str] = set()
        self._key = StreamKey(model.digest, COMPLETION_DIGEST, self.seed)
        self._known = KnownCells(model.schema)
        self._group = -1
        self._completer: Completer | None = None
        self._drawn_from: Counter[int] = Counter()
        self._id_keys = {name: identity_key(model.digest, "", name, self.seed) for name in model.identities}

    def header(self, version: str) -> StreamHeader:
        """Return the header of the stream; its length is not known, and so 0.

        Args:
            version: Name of the model's version.
        """
        return StreamHeader(
            model_version=version,
            model_digest=self.model.digest,
            plan_digest=self.digest,
            seed=self.seed,
            grid=self.model.grid,
            rows=0,
            start_row=self.start_row,
            end_row=0,
            schema=self.model.schema,
            rows_per_candidate=GROUP_ROWS,
            distinct_candidates=0,
        )

    def summary(self, *, complete: bool) -> StreamSummary:
        """Return what was done so far.

        Args:
            complete: Whether every row that was sent is completed.
        """
        rows = self.next_row - self.start_row
        return StreamSummary(
            candidates=self.candidates_drawn,
            accepted=rows,
            rows_delivered=rows,
            complete=complete,
            next_row=self.next_row,
            distinct_candidates=self.candidates_used,
            rows_per_candidate=self.rows_per_candidate,
        )

    def complete(self, rows: Sequence[Mapping[str, Cell]]) -> list[CompletedRow]:
        """Complete the rows that come next.

        Args:
            rows: Known cells of each row by column; None for one that is known to be missing.

        Returns:
            The rows; only the first of them where it was stopped.

        Raises:
            ColumnNotFoundError: A column does not exist.
            ValueNotFoundError: A category never occurred in training.
            InvalidConditionError: A cell is not a value of its column.
            RowRangeError: An id column has no id for a row.
        """
        first = self.next_row
        checked = [self._known.checked(first + offset, known) for offset, known in enumerate(rows)]
        ids = {name: self._ids(name, codec, first, len(rows)) for name, codec in self.model.identities.items()}
        done: list[CompletedRow] = []
        for offset, known in enumerate(checked):
            try:
                self._options.check_stopped()
                done.append(self._completed(first + offset, known, {name: ids[name][offset] for name in ids}))
            except CancelledError:
                break
        self.next_row = first + len(done)
        return done

    def memory_bytes(self, rows: Sequence[Mapping[str, Cell]]) -> int:
        """Return the most bytes that completing these rows, and those before them, takes beside the rows."""
        self._columns.update(*rows)
        return self.model.synthesizer.completion_bytes(self._columns, self._spec.candidates)

    def _completed(self, row: int, known: dict[str, Cell], ids: dict[str, Cell]) -> CompletedRow:
        modelled = {name: cell for name, cell in known.items() if name not in ids}
        completion = self._of_group(row // GROUP_ROWS).complete(modelled, self._key.tile(row, 1))
        cells = {**completion.cells, **ids, **known}
        ordered = {name: cells[name] for name in self.model.schema.names}
        self._count(completion.chosen)
        return CompletedRow(row, ordered, completion.effective_sample_size, completion.tolerance, completion.support)

    def _count(self, chosen: int | None) -> None:
        """Count the candidate, of its group, that a row was drawn from."""
        rows = 1
        if chosen is not None:
            self._drawn_from[chosen] += 1
            rows = self._drawn_from[chosen]
        self.candidates_used += rows == 1
        self.rows_per_candidate = max(self.rows_per_candidate, rows)

    def _of_group(self, group: int) -> Completer:
        """Return what completes the rows of a group, its candidates drawn."""
        if self._completer is None or group != self._group:
            key = self._key.tile(group, 0)
            self._completer = None  # before the next takes memory
            self._completer = self.model.synthesizer.completer(key, self._options)
            self._group = group
            self._drawn_from.clear()
            self.candidates_drawn += self._spec.candidates
        return self._completer

    def _ids(self, name: str, codec: IdentityCodec, first: int, count: int) -> Sequence[Cell]:
        try:
            cells = codec.cells(first, count, self._id_keys[name])
        except RowRangeError as error:
            about = {**error.metadata, "column": name}
            raise RowRangeError(f"column {name!r}: {error.message}", metadata=about) from error
        values = cells.values.astype(np.int64)
        made: list[Cell] = values.tolist() if codec.integral else list(codec.texts(values))
        return [None if absent else cell for cell, absent in zip(made, cells.missing().tolist(), strict=True)]
