"""The sampler: from what is asked to a stream that is ready to run, and to the parts it may be cut into."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

from rowmint.conditions import Predicate
from rowmint.errors import InvalidFieldError, LimitError, RowRangeError, StreamMismatchError
from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.sampling.completion import CompletionSpec, RowCompletion
from rowmint.sampling.formats import RowFormat, make_encoder
from rowmint.sampling.formats.natives import category_texts, is_dictionary
from rowmint.sampling.plan import Plan
from rowmint.sampling.rows import CandidateCache, RowSource
from rowmint.sampling.stream import BlockDone, Framing, SampleStream, StreamHeader
from rowmint.schema import TableSchema
from sampler_service.model_cache import LoadedModel, ModelCache

MAX_ROWS = 10**15
MAX_PARTS = 1024
_CANDIDATE_BYTES = 64 * 1024 * 1024
_MIN_MESSAGE = 16 * 1024
_MAX_MESSAGE = 1024 * 1024


@dataclass(frozen=True)
class SampleSpec:
    """What is asked of a stream.

    Attributes:
        model: The version.
        rows: Length of the logical stream, 1 to `MAX_ROWS`.
        start_row: First row delivered.
        end_row: Row after the last one delivered; None for `rows`.
        where: Which rows are wanted.
        columns: Columns delivered, in order; empty for all.
        seed: 0 to 2**64 - 1; None to draw one.
        row_format: How rows are written.
        continued: Whether the stream goes on with another.
        allow_partial: Whether rows that the conditions starve are left out.
        message_bytes: Size of messages aimed at.
        expected_model_digest: What the model's digest must be; empty for any.
        expected_plan_digest: What the plan's digest must be; empty for any.
        escape_formulas: Whether CSV text that looks like a formula is preceded by an apostrophe.
    """

    model: ModelVersionRef
    rows: int
    start_row: int = 0
    end_row: int | None = None
    where: tuple[Predicate, ...] = ()
    columns: tuple[str, ...] = ()
    seed: int | None = None
    row_format: RowFormat = RowFormat.ARROW_STREAM
    continued: bool = False
    allow_partial: bool = False
    message_bytes: int = 256 * 1024
    expected_model_digest: bytes = b""
    expected_plan_digest: bytes = b""
    escape_formulas: bool = False

    @property
    def stop_row(self) -> int:
        """Row after the last one delivered."""
        return self.rows if self.end_row is None else self.end_row

    def validate(self, max_rows: int) -> None:
        """Check everything that needs no model.

        Raises:
            InvalidFieldError: A field is out of its range.
            LimitError: `rows` is above `max_rows`.
            RowRangeError: The rows delivered do not lie in the stream.
        """
        if not 1 <= self.rows <= MAX_ROWS:
            raise InvalidFieldError("rows", f"is {self.rows}; must be 1 to {MAX_ROWS}")
        if self.rows > max_rows:
            raise LimitError(
                f"rows: {self.rows} is more than this sampler allows ({max_rows}); ask for fewer or raise"
                " ROWMINT_MAX_ROWS",
                metadata={"limit": str(max_rows), "setting": "ROWMINT_MAX_ROWS"},
            )
        if not 0 <= self.start_row <= self.rows:
            raise RowRangeError(f"is {self.start_row}; must be 0 to rows ({self.rows})", field="start_row")
        if not self.start_row <= self.stop_row <= self.rows:
            raise RowRangeError(
                f"is {self.stop_row}; must be start_row ({self.start_row}) to rows ({self.rows})", field="end_row"
            )
        if not _MIN_MESSAGE <= self.message_bytes <= _MAX_MESSAGE:
            raise InvalidFieldError(
                "message_bytes", f"is {self.message_bytes}; must be {_MIN_MESSAGE} to {_MAX_MESSAGE}"
            )


@dataclass(frozen=True)
class OpenedSample:
    """A stream that could run.

    Attributes:
        header: What it is made from.
        loaded: The model.
        plan: The plan.
        schema: Columns delivered.
    """

    header: StreamHeader
    loaded: LoadedModel
    plan: Plan
    schema: TableSchema


@dataclass(frozen=True)
class PlannedPart:
    """One contiguous part of a stream.

    Attributes:
        start_row: First row.
        end_row: Row after the last.
        continued: Whether it goes on with the part before.
    """

    start_row: int
    end_row: int
    continued: bool


@dataclass(frozen=True)
class PlannedSample:
    """What a stream would be made of.

    Attributes:
        header: Its header.
        plan: Its plan.
        conditioned_column: Column asked of the network, or empty.
        parts: Parts whose data, joined, is the stream's.
    """

    header: StreamHeader
    plan: Plan
    conditioned_column: str
    parts: tuple[PlannedPart, ...]


class Sampler:
    """Opens streams. For one event loop; holds no state but its cache.

    Args:
        models: Models and plans.
        executor_of: Gives the threads that compute rows, for the id of a project.
        draw_seed: Gives seeds, 0 to 2**64 - 1.
        max_rows: Longest logical stream.
        observe: Told of each block, with the name of its model version, on the thread that computed it.
    """

    def __init__(
        self,
        models: ModelCache,
        executor_of: Callable[[str], Executor],
        draw_seed: Callable[[], int],
        *,
        max_rows: int = MAX_ROWS,
        observe: Callable[[ModelVersionName, BlockDone], None] = lambda _version, _done: None,
    ) -> None:
        self._candidates = CandidateCache(_CANDIDATE_BYTES)
        self._models = models
        self._executor_of = executor_of
        self._observe = observe
        self._draw_seed = draw_seed
        self._max_rows = max_rows

    async def open(self, spec: SampleSpec) -> SampleStream:
        """Return the stream that `spec` asks for.

        Raises:
            RowmintError: It asks for what there is not; see `SampleSpec.validate`, `ModelCache.get` and `.plan`.
        """
        opened = await self._resolve(spec)
        model = opened.loaded.model
        header = opened.header
        project = spec.model.model.project
        names = opened.schema.names
        source = RowSource(model, opened.plan, header.seed, names, self._candidates, owner=project)
        encoder = make_encoder(spec.row_format, opened.schema, model.identities, escape_formulas=spec.escape_formulas)
        framing = Framing(spec.continued, spec.message_bytes, spec.allow_partial)
        return SampleStream(
            header,
            source,
            opened.plan.block_size,
            encoder=encoder,
            framing=framing,
            executor=self._executor_of(project),
            observe=partial(self._observe, opened.loaded.name),
        )

    async def plan(self, spec: SampleSpec, parts: int) -> PlannedSample:
        """Say what the stream would be made of and cut it into up to `parts` parts, on the grid.

        Raises:
            InvalidFieldError: `parts` is not 1 to `MAX_PARTS`.
            RowmintError: As for `open`.
        """
        if not 1 <= parts <= MAX_PARTS:
            raise InvalidFieldError("parts", f"is {parts}; must be 1 to {MAX_PARTS}")
        opened = await self._resolve(spec)
        header, plan = opened.header, opened.plan
        cuts = cut_rows(header.start_row, header.end_row, parts, header.grid, plan.block_size)
        return PlannedSample(
            header,
            plan,
            opened.loaded.model.synthesizer.conditioned_column(plan.conditions),
            tuple(
                PlannedPart(start, stop, spec.continued if index == 0 else True)
                for index, (start, stop) in enumerate(cuts)
            ),
        )

    async def complete(self, spec: CompletionSpec) -> RowCompletion:
        """Return what completes rows as `spec` asks.

        Raises:
            RowmintError: As for `open`.
        """
        spec.validate()
        loaded = await self._models.get(spec.model)
        return RowCompletion(loaded, spec, self._draw_seed() if spec.seed is None else spec.seed)

    async def _resolve(self, spec: SampleSpec) -> OpenedSample:
        spec.validate(self._max_rows)
        # Who names the digest goes on with a stream, or with a plan, that was made from it.
        loaded = await self._models.get(spec.model, deleted=bool(spec.expected_model_digest))
        model = loaded.model
        _expect("model", spec.expected_model_digest, model.digest)
        if spec.continued and spec.start_row < spec.stop_row and spec.start_row % model.grid:
            raise RowRangeError(
                f"is {spec.start_row}, not on the grid; a stream that goes on with another starts at a multiple of"
                f" {model.grid}",
                field="start_row",
                metadata={"grid": str(model.grid)},
            )
        schema = model.schema.project(spec.columns)
        for column in schema.columns:
            codec = model.identities.get(column.name)
            if codec is not None and spec.stop_row > codec.size:
                raise RowRangeError(
                    f"column {column.name!r} has {codec.size} ids, too few for row {spec.stop_row - 1}; ask for fewer"
                    " rows, leave the column out, or declare a wider id_pattern",
                    metadata={"column": column.name, "size": str(codec.size)},
                )
        plan = await self._models.plan(model, spec.where, spec.model.model.project)
        _expect("plan", spec.expected_plan_digest, plan.digest)
        header = StreamHeader(
            model_version=str(loaded.name),
            model_digest=model.digest,
            plan_digest=plan.digest,
            seed=self._draw_seed() if spec.seed is None else spec.seed,
            grid=model.grid,
            rows=spec.rows,
            start_row=spec.start_row,
            end_row=spec.stop_row,
            schema=schema,
        )
        if spec.row_format is RowFormat.COLUMNS:
            lists = (category_texts(column) if is_dictionary(column) else () for column in schema.columns)
            header = replace(header, categories=tuple(tuple(texts) for texts in lists))
        return OpenedSample(header, loaded, plan, schema)


def _expect(what: str, expected: bytes, actual: bytes) -> None:
    if expected and expected != actual:
        raise StreamMismatchError(
            f"the {what} digest is {actual.hex()}, where the stream that is gone on with had {expected.hex()}; go on"
            " with the version in its header",
            metadata={f"{what}_digest": actual.hex()},
        )


def cut_rows(start: int, end: int, parts: int, grid: int, block: int) -> list[tuple[int, int]]:
    """Cut rows into at most `parts` ranges of about equal length that meet on the grid.

    They meet between blocks where there are enough of them, as two parts that share a block both compute it.

    Args:
        start: First row.
        end: Row after the last.
        parts: At least 1.
        grid: Rows of a grid cell, a power of two.
        block: Rows of a block, a power of two.
    """
    unit = max(grid, block)
    if (end - 1) // unit - start // unit + 1 < parts:
        unit = grid
    first = start // unit
    count = max(1, -(-end // unit) - first)
    parts = min(parts, count)
    edges = [(first + count * part // parts) * unit for part in range(1, parts)]
    return list(zip([start, *edges], [*edges, end], strict=True))
