"""A stream that is ready to run: a spec, resolved against a model and a plan."""

from collections.abc import Iterator
from dataclasses import dataclass

from rowmint.artifact import Model
from rowmint.sampling.assembly import Framing, StreamAssembly
from rowmint.sampling.formats import Encoder, RowFormat, make_encoder
from rowmint.sampling.formats.natives import category_texts, is_dictionary
from rowmint.sampling.messages import StreamHeader
from rowmint.sampling.plan import Plan
from rowmint.sampling.rows import CandidateCache, RowSource
from rowmint.sampling.spec import SampleSpec, expect_digest
from rowmint.schema import TableSchema


@dataclass(frozen=True)
class PreparedStream:
    """Everything that a stream is made of. Immutable, thread-safe.

    Attributes:
        header: What it is made from.
        source: Makes the rows.
        plan: What they are computed by.
        encoder: Writes them.
        framing: How they are cut.
    """

    header: StreamHeader
    source: RowSource
    plan: Plan
    encoder: Encoder
    framing: Framing

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the blocks that are needed and the rows needed of each, counted from the block's own first row."""
        size, end = self.plan.block_size, self.header.end_row
        number = self.header.start_row // size
        while number * size < end:
            yield number, min(end - number * size, size)
            number += 1

    def assembly(self) -> StreamAssembly:
        """Return what makes its messages, once."""
        return StreamAssembly(self.header, self.encoder, self.framing, self.plan)


def stream_header(model: Model, spec: SampleSpec, plan: Plan, version: str = "") -> StreamHeader:
    """Return the header of a stream; see `prepare`."""
    spec.validate_for(model)
    expect_digest("plan", spec.expected_plan_digest, plan.digest)
    schema = model.schema.project(spec.columns)
    # Batches end on the grid: who has received rows goes on there, and who has not has no more than the header.
    received = spec.received_bytes or 0
    if received and spec.start_row % model.grid and received > len(_encoder(model, spec, schema).header()):
        spec.require_grid(model.grid)
    categories = None
    if spec.row_format is RowFormat.COLUMNS:
        categories = tuple(tuple(category_texts(column)) if is_dictionary(column) else () for column in schema.columns)
    return StreamHeader(
        model_version=version,
        model_digest=model.digest,
        plan_digest=plan.digest,
        seed=spec.known_seed(),
        grid=model.grid,
        rows=spec.rows,
        start_row=spec.start_row,
        end_row=spec.stop_row,
        schema=schema,
        rows_per_candidate=plan.pools.most_shared(0, spec.rows),
        distinct_candidates=plan.pools.distinct(0, spec.rows),
        categories=categories,
    )


def prepare(
    model: Model,
    spec: SampleSpec,
    plan: Plan,
    version: str = "",
    *,
    candidates: CandidateCache | None = None,
    owner: str = "",
) -> PreparedStream:
    """Return a stream, ready to run.

    Args:
        model: The model.
        spec: Valid by itself, its seed given.
        plan: Compiled for the model and the spec's conditions, with the reuse that the spec allows.
        version: Name of the version, for the header.
        candidates: Where candidates that serve several rows are kept; None for a small place of its own.
        owner: Whose rows they are; candidates found for one owner serve no other.

    Raises:
        StreamMismatchError: A digest is not the expected one.
        RowRangeError: The rows requested cannot be delivered.
        ColumnNotFoundError: A column does not exist.
        InvalidFieldError: A column is named twice, or there is no seed.
    """
    header = stream_header(model, spec, plan, version)
    source = RowSource(model, plan, header.seed, header.schema.names, candidates, owner=owner)
    encoder = _encoder(model, spec, header.schema)
    skipped = None if spec.continued else spec.received_bytes or 0
    framing = Framing(skipped, spec.message_bytes, spec.allow_partial)
    return PreparedStream(header, source, plan, encoder, framing)


def _encoder(model: Model, spec: SampleSpec, schema: TableSchema) -> Encoder:
    return make_encoder(spec.row_format, schema, model.identities, escape_formulas=spec.escape_formulas)
