"""What every family of synthesizer offers and declares: candidates in tiles, forward only, exact arithmetic."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rowmint.conditions import ColumnCondition, ColumnWeights
from rowmint.errors import CancelledError, InvalidConditionError
from rowmint.rng import StreamKey, TileKey
from rowmint.schema import Cell, TableSchema
from rowmint.schema.arrays import ColumnArray, concatenate
from rowmint.steps import Steps, finish

JsonObject = Mapping[str, Any]
"""JSON values by name; integers below 2**53."""


MOST_ROWS = 1024
"""Most rows that are completed or scored at once."""

TILE_SIZE = 4096
"""Candidates of a tile, unless a family says otherwise."""


class Unit(StrEnum):
    """What one generated unit is."""

    ROW = "row"
    SEQUENCE = "sequence"


class ConditionSupport(StrEnum):
    """How a family meets conditions.

    `REJECTION` draws candidates and tests them: the acceptance depends on how rare the conditions are. `EXACT` meets
    any AND of predicates by construction, with acceptance 1.
    """

    REJECTION = "rejection"
    EXACT = "exact"


class Mechanism(StrEnum):
    """A differentially private mechanism that a family can be fitted under."""

    DP_SGD = "dp_sgd"
    NOISY_MARGINALS = "noisy_marginals"


@dataclass(frozen=True)
class Capabilities:
    """What a family offers; declared by the family, stored in the manifest of each of its models.

    Attributes:
        unit: What one generated unit is.
        conditions: How conditions are met.
        likelihood: Whether log P(row) and P(conditions) can be computed exactly.
        privacy: Mechanisms it can be fitted under.
    """

    unit: Unit = Unit.ROW
    conditions: ConditionSupport = ConditionSupport.REJECTION
    likelihood: bool = False
    privacy: frozenset[Mechanism] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return the capabilities as JSON values."""
        return {
            "unit": str(self.unit),
            "conditions": str(self.conditions),
            "likelihood": self.likelihood,
            "privacy": sorted(str(mechanism) for mechanism in self.privacy),
        }

    @classmethod
    def from_json(cls, body: JsonObject) -> Self:
        """Return the capabilities that `to_json` wrote.

        Mechanisms that this version does not know are left out: no row depends on them, and a newer trainer's models
        are served by older samplers.

        Raises:
            KeyError: A part is missing.
            TypeError: A part is of another type.
            ValueError: The unit, or how conditions are met, is not one that this version knows.
        """
        likelihood = body["likelihood"]
        if not isinstance(likelihood, bool):
            raise TypeError(f"likelihood is {likelihood!r}, not a truth value")
        return cls(
            Unit(body["unit"]),
            ConditionSupport(body["conditions"]),
            likelihood,
            frozenset(mechanism for mechanism in Mechanism if mechanism in tuple(body["privacy"])),
        )


@dataclass(frozen=True)
class Candidates:
    """Candidates that satisfied every condition, before their untested columns are made.

    Attributes:
        size: How many, n.
        latents: What the untested columns are made from, by name; n along the first axis of each.
        cells: The tested columns, n cells each.
    """

    size: int
    latents: Mapping[str, NDArray[np.generic]]
    cells: Mapping[str, ColumnArray]

    def first(self, count: int) -> "Candidates":
        """Return the first `count` of them."""
        if count >= self.size:
            return self
        return Candidates(
            count,
            {name: array[:count] for name, array in self.latents.items()},
            {name: cells.take(slice(0, count)) for name, cells in self.cells.items()},
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        cells = sum(array.values.nbytes + (0 if array.valid is None else len(array)) for array in self.cells.values())
        return cells + sum(array.nbytes for array in self.latents.values())


def join(parts: Sequence[Candidates]) -> Candidates:
    """Join candidates of one proposal, in order; at least one part."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Candidates(
        sum(part.size for part in parts),
        {name: np.concatenate([part.latents[name] for part in parts]) for name in first.latents},
        {name: concatenate([part.cells[name] for part in parts]) for name in first.cells},
    )


@dataclass(frozen=True)
class Units:
    """Finished units.

    Attributes:
        columns: The requested columns by name, in the order requested, n cells each.
        offsets: Where each unit begins, and where the last one ends, int64, shape (units + 1,), where a unit is a
            sequence of rows; None where it is one row.
    """

    columns: dict[str, ColumnArray]
    offsets: NDArray[np.int64] | None = None


class Proposal(Protocol):
    """Conditions and columns compiled for drawing. Immutable, thread-safe.

    Attributes:
        plan_inputs: What the rows depend on beside model and conditions, such as a kernel's fingerprint; it enters the
            plan digest. Empty for exact families.
        acceptance: Share of candidates that satisfy the conditions, where the family knows it exactly: 1 where it meets
            them by construction, or where there are none. None where a pilot has to estimate it.
        probability: Probability that a row of the model satisfies the conditions, and has a weight where a column has
            weights, above 0; None where the family cannot compute it exactly.
        size_bytes: About how much memory it takes at most, beside the model, what it keeps later on included.
        tile_size: Candidates of a tile, a power of two; another tile is drawn with another key.
    """

    @property
    def plan_inputs(self) -> JsonObject:
        """See the class."""
        ...

    @property
    def acceptance(self) -> float | None:
        """See the class."""
        ...

    @property
    def probability(self) -> float | None:
        """See the class."""
        ...

    @property
    def size_bytes(self) -> int:
        """See the class."""
        ...

    @property
    def tile_size(self) -> int:
        """See the class."""
        ...

    def requesting(self, columns: Sequence[str]) -> "Proposal":
        """Return what makes these modelled columns under the same conditions; it takes hardly any time or memory."""
        ...

    def candidates(self, key: TileKey, size: int) -> Candidates:
        """Draw `size` candidates of a tile and keep those that satisfy the conditions.

        Candidate j depends on `key` and j alone: the first of a tile are the same however many are drawn.
        """
        ...

    def finish(self, found: Candidates, key: TileKey) -> Units:
        """Make the requested columns of candidates that this proposal found.

        Given a candidate, its tested cells included, its untested columns are random still: drawn with another key they
        are other rows, each distributed as any row that satisfies the conditions. Unit j depends on candidate j of
        `found`, `key` and j alone.
        """
        ...


@dataclass(frozen=True)
class CompletionOptions:
    """How partial rows are completed.

    Attributes:
        candidates: Candidates that each row is drawn from, n.
        tolerance: Kernel width for known numbers, in standard deviations of the column's normalised values.
        stopped: Says whether the caller waits no longer; called between pieces of work, on any thread.
    """

    candidates: int
    tolerance: float
    stopped: Callable[[], bool] = lambda: False

    def check_stopped(self) -> None:
        """Let work end early.

        Raises:
            CancelledError: The caller waits no longer.
        """
        check_stopped(self.stopped)

    def until_stopped(self, rows: Iterable["CompletedCells"]) -> Steps[Sequence["CompletedCells"]]:
        """Complete rows one after the other, each a step; return the first of them where the work ends early."""
        done: list[CompletedCells] = []
        # Appended one by one: those before the one that was stopped are whole.
        with suppress(CancelledError):
            for row in rows:
                done.append(row)
                yield
        return done


def check_stopped(stopped: Callable[[], bool]) -> None:
    """Let work end early whose caller waits no longer.

    Raises:
        CancelledError: The caller waits no longer.
    """
    if stopped():
        raise CancelledError("the caller does not wait for these rows any more")


class CompletionSupport(StrEnum):
    """How well candidates agree with the known cells of a row.

    `MATCHED`: some agree with all at the requested tolerance. `WIDENED`: only at a wider one, or with known cells taken
    as near that are not equal. `UNSUPPORTED`: none does; those that come nearest were used.
    """

    MATCHED = "matched"
    WIDENED = "widened"
    UNSUPPORTED = "unsupported"


class CompletedCells(NamedTuple):
    """The cells of one completed row.

    Attributes:
        cells: Every modelled column's cell by name.
        effective_sample_size: Kish's effective number of candidates, (sum w)**2 / sum w**2, of the draw; 0 where the
            known cells have no support.
        tolerance: Kernel width used for known numbers, in standard deviations.
        support: Whether candidates agree with the known cells.
        chosen: The candidate that the row was drawn from, 0 to n - 1; None where rows share no candidates.
    """

    cells: dict[str, Cell]
    effective_sample_size: float
    tolerance: float
    support: CompletionSupport
    chosen: int | None


@dataclass(frozen=True)
class RowKeys:
    """What keys the draws of consecutive rows of one group: each row's depend on its index alone.

    Attributes:
        stream: What all rows depend on.
        group: The group.
        place: Place of the first row in its group, from 0.
        first_row: Its index.
    """

    stream: StreamKey
    group: int
    place: int
    first_row: int

    def after(self, offset: int) -> "RowKeys":
        """Return the keys of the rows from an offset on."""
        return RowKeys(self.stream, self.group, self.place + offset, self.first_row + offset)

    def of(self, offset: int) -> TileKey:
        """Return the key of one row, for words of its own."""
        return self.stream.tile(self.first_row + offset, 1)

    def words(self, purpose: str, count: int) -> NDArray[np.uint64]:
        """Return a word of each of the first `count` rows, shape (count,); a group's are drawn together."""
        return self.stream.tile(self.group, 2).words(purpose, self.place + count)[self.place :]

    def words32(self, purpose: str, count: int) -> NDArray[np.uint32]:
        """Return a word of 32 bits of each of the first `count` rows, shape (count,)."""
        return self.stream.tile(self.group, 2).words32(purpose, self.place + count)[self.place :]


class Completer(Protocol):
    """Completes partial rows of one group, all from the same candidates. Immutable, thread-safe."""

    def complete(self, rows: Sequence[Mapping[str, Cell]], keys: RowKeys) -> Steps[Sequence[CompletedCells]]:
        """Complete rows that follow one another, in steps. What a row becomes does not depend on the rows beside it.

        Args:
            rows: Known cells of each by column, validated: categories exist, numbers are of the column's type.
            keys: Keys their draws.

        Returns:
            The rows; only the first of them where `CompletionOptions.stopped` returned True.
        """
        ...


@dataclass(frozen=True)
class RowScores:
    """Exact scores of rows.

    Attributes:
        log_probability: Natural logarithm of the probability of each row's known cells, of the density of those that
            have one; float64, shape (n,), 0 where impossible.
        impossible: Whether the model never makes a row with these cells, bool, shape (n,).
    """

    log_probability: NDArray[np.float64]
    impossible: NDArray[np.bool_]


class Scorer(Protocol):
    """Scores rows exactly, by their known cells: the others are summed over. Immutable, thread-safe."""

    def score(self, rows: Sequence[Mapping[str, Cell]]) -> Steps[RowScores]:
        """Score rows, in steps. A row's score does not depend on the rows beside it.

        Args:
            rows: Known cells of each by column, validated as for a `Completer`.

        Raises:
            CancelledError: The caller waits no longer.
        """
        ...


class Synthesizer(Protocol):
    """A fitted generative model. Immutable, thread-safe.

    Attributes:
        schema: Shape of the rows, ids included; ids are not the synthesizer's to make.
        memory_bytes: About how much memory it takes, beside schema and codecs, once everything that it keeps for
            requests has been made.
    """

    schema: TableSchema

    @property
    def memory_bytes(self) -> int:
        """See the class."""
        ...

    def propose_steps(self, tests: Sequence[ColumnCondition], weights: ColumnWeights | None = None) -> Steps[Proposal]:
        """Compile the drawing of rows that satisfy `tests` (canonical conditions); no column is requested yet.

        Args:
            tests: Canonical conditions, none on a column that has weights.
            weights: Canonical weights of a column's values; only for families that meet conditions exactly.

        Raises:
            InvalidConditionError: The family knows that no row satisfies the tests or an entry of the weights, or it
                cannot weight columns.
        """
        ...

    def conditioned_column(self, tests: Sequence[ColumnCondition]) -> str:
        """Return the first tested column that candidates are drawn for, not only tested for; empty for none."""
        ...

    def completer(self, key: TileKey, options: CompletionOptions) -> Completer:
        """Draw the candidates, keyed by `key`, that partial rows are completed from.

        Raises:
            CancelledError: `CompletionOptions.stopped` returned True.
        """
        ...

    def completion_bytes(self, known: Collection[str], candidates: int) -> int:
        """Return the most bytes that a completer of so many candidates takes for rows that know these columns."""
        ...


@runtime_checkable
class LikelihoodSynthesizer(Synthesizer, Protocol):
    """A synthesizer whose capabilities have `likelihood`."""

    def scorer(self, stopped: Callable[[], bool]) -> Scorer:
        """Return what scores rows.

        Args:
            stopped: Says whether the caller waits no longer; called between pieces of work, on any thread.
        """
        ...

    def scoring_bytes(self, known: Collection[str]) -> int:
        """Return the most bytes that scoring takes, of as many rows at once as are scored, that know these columns."""
        ...


def propose(
    synthesizer: Synthesizer,
    tests: Sequence[ColumnCondition],
    columns: Sequence[str],
    weights: ColumnWeights | None = None,
) -> Proposal:
    """Compile the drawing of `columns` of rows that satisfy `tests`, at once; see `Synthesizer.propose_steps`."""
    return finish(synthesizer.propose_steps(tests, weights)).requesting(columns)


def refuse_weights(weights: ColumnWeights | None) -> None:
    """Let a family that meets conditions by rejection be given no weights.

    Raises:
        InvalidConditionError: There are some.
    """
    if weights is not None:
        raise InvalidConditionError(
            f"column {weights.column!r} cannot have weights: the family meets conditions by rejection",
            metadata={"column": weights.column},
        )
