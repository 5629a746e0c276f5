"""Specifications of streams, sampled, completed and scored: what is requested of a model, and its validation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from rowmint.artifact import Model
from rowmint.conditions import Predicate, Weights
from rowmint.errors import InvalidConditionError, InvalidFieldError, RowRangeError, StreamMismatchError
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.limits import MAX_MESSAGE_BYTES, MAX_REUSE, MAX_ROWS, MIN_MESSAGE_BYTES
from rowmint.synthesizer import ConditionSupport, exact_families

_MIN_CANDIDATES = 256
_MAX_CANDIDATES = 65_536
_MAX_TOLERANCE = 10.0


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """What sampled and completed streams have in common.

    Attributes:
        seed: 0 to 2**64 - 1; None leaves it to the service that opens the stream.
        start_row: Index of the first row delivered.
        expected_model_digest: What the model's digest must be; empty for any.
        expected_plan_digest: What the plan's digest must be, or that of a completion; empty for any.
    """

    seed: int | None = None
    start_row: int = 0
    expected_model_digest: bytes = b""
    expected_plan_digest: bytes = b""

    def seeded(self, draw_seed: Callable[[], int]) -> Self:
        """Return the spec with its seed, drawn where none is given; `draw_seed` returns 0 to 2**64 - 1."""
        return self if self.seed is not None else replace(self, seed=draw_seed())

    def known_seed(self) -> int:
        """Return the seed.

        Raises:
            InvalidFieldError: None is given.
        """
        if self.seed is None:
            raise InvalidFieldError("seed", "is required")
        return self.seed


@dataclass(frozen=True)
class SampleSpec(StreamSpec):
    """A stream of sampled rows.

    Attributes:
        rows: Length of the logical stream, 1 to `MAX_ROWS`.
        end_row: Row after the last one delivered; None for `rows`.
        where: Conditions that every row satisfies.
        weights: Shares that values of a column have among the rows; None for those of the model.
        columns: Columns delivered, in order; empty for all.
        row_format: How rows are written.
        continued: Whether the stream is what follows another part of it: it begins on the grid and without a header.
        received_bytes: Bytes that were received of the file that the stream resumes, wherever it was cut; None where it
            resumes none.
        allow_partial: Whether rows are left out that could not be found within the candidate budget.
        message_bytes: Size of messages aimed at, bytes.
        escape_formulas: Whether CSV text that looks like a formula is preceded by an apostrophe.
        max_reuse: Most rows of the logical stream that may share a candidate, a power of two up to `MAX_REUSE`; None
            for 1, independent rows.
    """

    rows: int
    end_row: int | None = None
    where: tuple[Predicate, ...] = ()
    weights: Weights | None = None
    columns: tuple[str, ...] = ()
    row_format: RowFormat = RowFormat.ARROW_STREAM
    continued: bool = False
    received_bytes: int | None = None
    allow_partial: bool = False
    message_bytes: int = 256 * 1024
    escape_formulas: bool = False
    max_reuse: int | None = None

    @property
    def stop_row(self) -> int:
        """Row after the last one delivered."""
        return self.rows if self.end_row is None else self.end_row

    def validate(self) -> None:
        """Check everything that needs no model.

        Raises:
            InvalidFieldError: A field is out of its range.
            RowRangeError: The rows delivered do not lie in the stream.
        """
        if not 1 <= self.rows <= MAX_ROWS:
            raise InvalidFieldError("rows", f"is {self.rows}; must be 1 to {MAX_ROWS}")
        if not 0 <= self.start_row <= self.rows:
            raise RowRangeError(f"is {self.start_row}; must be 0 to rows ({self.rows})", field="start_row")
        if not self.start_row <= self.stop_row <= self.rows:
            raise RowRangeError(
                f"is {self.stop_row}; must be start_row ({self.start_row}) to rows ({self.rows})", field="end_row"
            )
        if self.continued and self.start_row == 0:
            raise RowRangeError(
                "is 0, before which there is no other part; resume a stream of which no row came with FRAMING_RESUME",
                field="start_row",
            )
        if self.received_bytes is not None and self.received_bytes < 0:
            raise InvalidFieldError("received_bytes", f"is {self.received_bytes}; must be 0 or more")
        if not MIN_MESSAGE_BYTES <= self.message_bytes <= MAX_MESSAGE_BYTES:
            raise InvalidFieldError(
                "message_bytes", f"is {self.message_bytes}; must be {MIN_MESSAGE_BYTES} to {MAX_MESSAGE_BYTES}"
            )
        if self.max_reuse is not None and not (_power_of_two(self.max_reuse) and self.max_reuse <= MAX_REUSE):
            raise InvalidFieldError("max_reuse", f"is {self.max_reuse}; must be a power of two, 1 to {MAX_REUSE}")

    def require_grid(self, grid: int) -> None:
        """Check that the stream starts at a multiple of `grid`, or has no rows.

        Raises:
            RowRangeError: It does not.
        """
        if self.start_row < self.stop_row and self.start_row % grid:
            raise RowRangeError(
                f"is {self.start_row}, not on the grid; a stream that resumes another starts at a multiple of {grid}",
                field="start_row",
                metadata={"grid": str(grid)},
            )

    def validate_for(self, model: Model) -> None:
        """Check everything that needs the model but no plan.

        Raises:
            StreamMismatchError: The model's digest is not the expected one.
            RowRangeError: A resumed stream does not start on the grid, or an id column has too few ids.
            ColumnNotFoundError: A column does not exist.
            InvalidConditionError: A column has weights, and the model's family does not meet conditions exactly.
            InvalidFieldError: A column is named twice.
        """
        expect_digest("model", self.expected_model_digest, model.digest)
        if self.weights is not None and model.capabilities.conditions is not ConditionSupport.EXACT:
            raise InvalidConditionError(
                f"column {self.weights.column!r} cannot have weights: the model's family meets conditions by rejection."
                f" Families that meet them exactly: {', '.join(exact_families())}",
                metadata={"column": self.weights.column},
            )
        if self.continued:
            self.require_grid(model.grid)
        for column in model.schema.project(self.columns).columns:
            codec = model.identities.get(column.name)
            if codec is not None and self.stop_row > codec.size:
                raise RowRangeError(
                    f"column {column.name!r} has {codec.size} ids, too few for row {self.stop_row - 1}; request fewer"
                    " rows, leave the column out, or declare a wider id_pattern, such as"
                    f" {codec.wider_pattern(self.stop_row)!r}, and train again",
                    metadata={"column": column.name, "size": str(codec.size)},
                )


@dataclass(frozen=True)
class CompletionSpec(StreamSpec):
    """A stream of completed rows.

    Attributes:
        tolerance: Kernel width for known numbers, standard deviations.
        candidates: Candidates compared for each row, a power of two.
    """

    tolerance: float = 0.1
    candidates: int = 4096

    def validate(self) -> None:
        """Check every field.

        Raises:
            InvalidFieldError: A field is out of its range.
            RowRangeError: `start_row` is.
        """
        _check_start_row(self.start_row)
        if not 0 < self.tolerance <= _MAX_TOLERANCE:
            raise InvalidFieldError(
                "config.tolerance", f"is {self.tolerance}; must be above 0 and at most {_MAX_TOLERANCE:g}"
            )
        if not _power_of_two(self.candidates) or not _MIN_CANDIDATES <= self.candidates <= _MAX_CANDIDATES:
            raise InvalidFieldError(
                "config.candidates",
                f"is {self.candidates}; must be a power of two, {_MIN_CANDIDATES} to {_MAX_CANDIDATES}",
            )


@dataclass(frozen=True, kw_only=True)
class ScoringSpec:
    """A stream of scores of rows; they depend on the model alone.

    Attributes:
        start_row: Index of the first row.
        expected_model_digest: What the model's digest must be; empty for any.
    """

    start_row: int = 0
    expected_model_digest: bytes = b""

    def validate(self) -> None:
        """Check every field.

        Raises:
            RowRangeError: `start_row` is out of its range.
        """
        _check_start_row(self.start_row)


def _check_start_row(start_row: int) -> None:
    if not 0 <= start_row <= MAX_ROWS:
        raise RowRangeError(f"is {start_row}; must be 0 to {MAX_ROWS}", field="config.start_row")


def _power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def expect_digest(what: str, expected: bytes, actual: bytes) -> None:
    """Check the digest of the model or the plan, as `what` says, against the one a spec expects; empty for any.

    Raises:
        StreamMismatchError: They differ.
    """
    if expected and expected != actual:
        raise StreamMismatchError(
            f"the {what} digest is {actual.hex()}, where the stream to be resumed had {expected.hex()}; resume it with"
            " the version in its header",
            metadata={f"{what}_digest": actual.hex()},
        )
