"""Completing rows of which some cells are known: candidates by group, ids.

A row is a pure function of model digest, seed, row index, known cells, tolerance and number of candidates. Rows
of one group of 256 indices share their candidates; each has draws of its own.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import rfc8785

from rowmint.artifact import Model
from rowmint.codecs import IdentityCodec
from rowmint.codecs.identity import identity_key
from rowmint.errors import CancelledError, RowRangeError
from rowmint.rng import StreamKey
from rowmint.sampling.messages import StreamHeader, StreamSummary
from rowmint.sampling.row_work import GROUP_ROWS, RowWork
from rowmint.sampling.spec import CompletionSpec, expect_digest
from rowmint.schema import Cell
from rowmint.steps import Steps
from rowmint.synthesizer import CompletedCells, Completer, CompletionOptions, CompletionSupport, RowKeys
from rowmint.synthesizer.interface import MOST_ROWS

COMPLETION_DIGEST = hashlib.sha256(b"rowmint/completion/2").digest()
"""Stands where a plan's digest stands in the keys of sampled rows, so that no random number is shared with them."""


def completion_digest(model: Model, spec: CompletionSpec) -> bytes:
    """Return the digest of what completed rows depend on beside seed, index and known cells, 32 bytes."""
    tolerance = repr(float(spec.tolerance))
    body = rfc8785.dumps({"model": model.digest.hex(), "candidates": spec.candidates, "tolerance": tolerance})
    return hashlib.sha256(b"rowmint/completion/2\0" + body).digest()


class CompletedRow(NamedTuple):
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


class RowCompletion(RowWork):
    """Completes rows in the order they come. For one caller at a time.

    Args:
        model: The model.
        spec: The completion requested, valid, its seed given.
        stopped: Says whether the caller waits no longer; called before each row and each piece of its work.

    Attributes:
        digest: Stands where a plan's digest stands in a header.
        is_exact: Whether each row is an exact draw, so that no candidates are drawn and rows share none.
        group_rows: Row indices whose words, or candidates, are drawn together; the most rows completed at once.
        seed: The seed.
        candidates_used: Distinct candidates that the rows were drawn from; a row that shares none counts as one.
        rows_per_candidate: Most rows that were drawn from one candidate.

    Raises:
        InvalidFieldError: The spec has no seed.
        StreamMismatchError: A digest is not the expected one.
    """

    def __init__(self, model: Model, spec: CompletionSpec, stopped: Callable[[], bool] = lambda: False) -> None:
        super().__init__(model, spec.start_row)
        expect_digest("model", spec.expected_model_digest, model.digest)
        self.digest = completion_digest(model, spec)
        expect_digest("plan", spec.expected_plan_digest, self.digest)
        self.is_exact = model.capabilities.likelihood
        self.group_rows = MOST_ROWS if self.is_exact else GROUP_ROWS
        self.seed = spec.known_seed()
        self.candidates_used = 0
        self.rows_per_candidate = 0
        self._spec = spec
        self._options = CompletionOptions(spec.candidates, spec.tolerance, stopped)
        self._key = StreamKey(model.digest, COMPLETION_DIGEST, self.seed)
        self._names = model.schema.names
        self._group = -1
        self._completer: Completer | None = None
        self._drawn_from: Counter[int] = Counter()
        self._id_keys = {name: identity_key(model.digest, "", name, self.seed) for name in model.identities}

    def header(self, version: str) -> StreamHeader:
        """See `RowWork`."""
        return replace(
            super().header(version),
            plan_digest=self.digest,
            seed=self.seed,
            rows_per_candidate=1 if self.is_exact else GROUP_ROWS,
        )

    def summary(self, *, complete: bool) -> StreamSummary:
        """See `RowWork`."""
        return replace(
            super().summary(complete=complete),
            distinct_candidates=self.candidates_used,
            rows_per_candidate=self.rows_per_candidate,
        )

    def bytes_for(self, known: Collection[str]) -> int:
        """See `RowWork`."""
        return self.model.synthesizer.completion_bytes(known, self._spec.candidates)

    def complete(self, rows: Sequence[Mapping[str, Cell]]) -> Steps[Sequence[CompletedRow]]:
        """Complete the rows that come next, in steps.

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
        checked = self.checked(rows)
        ids = {name: self._ids(name, codec, first, len(rows)) for name, codec in self.model.identities.items()}
        modelled = self.modelled(checked)
        done: list[CompletedRow] = []
        while len(done) < len(rows):
            start = len(done)
            completions = yield from self._of_group(first + start, modelled[start:])
            for offset, completion in enumerate(completions, start):
                cells = {**completion.cells, **checked[offset]}
                for name, own in ids.items():
                    cells.setdefault(name, own[offset])
                done.append(self._completed(first + offset, cells, completion))
            if len(completions) < min(self.group_rows - (first + start) % self.group_rows, len(rows) - start):
                break
        self.next_row = first + len(done)
        return done

    def _completed(self, row: int, cells: Mapping[str, Cell], completion: CompletedCells) -> CompletedRow:
        ordered = {name: cells[name] for name in self._names}
        self._count(completion.chosen)
        return CompletedRow(row, ordered, completion.effective_sample_size, completion.tolerance, completion.support)

    def _of_group(self, first: int, rows: Sequence[Mapping[str, Cell]]) -> Steps[Sequence[CompletedCells]]:
        """Complete those rows that are of the group of index `first`; only the first of them where it was stopped."""
        group, place = divmod(first, self.group_rows)
        try:
            completer = self._completer_of(group)
        except CancelledError:
            return ()
        yield
        return (yield from completer.complete(rows[: self.group_rows - place], RowKeys(self._key, group, place, first)))

    def _count(self, chosen: int | None) -> None:
        """Count the candidate, of its group, that a row was drawn from."""
        rows = 1
        if chosen is not None:
            self._drawn_from[chosen] += 1
            rows = self._drawn_from[chosen]
        self.candidates_used += rows == 1
        self.rows_per_candidate = max(self.rows_per_candidate, rows)

    def _completer_of(self, group: int) -> Completer:
        """Return what completes the rows of a group, its candidates drawn.

        Raises:
            CancelledError: The caller waits no longer.
        """
        if self._completer is None or group != self._group:
            self._options.check_stopped()
            key = self._key.tile(group, 0)
            self._completer = None  # before the next takes memory
            self._completer = self.model.synthesizer.completer(key, self._options)
            self._group = group
            self._drawn_from.clear()
            self.candidates_drawn += 0 if self.is_exact else self._spec.candidates
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
