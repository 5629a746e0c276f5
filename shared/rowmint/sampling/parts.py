"""Parts of a stream: contiguous ranges of rows whose data, joined, is the stream's."""

from collections.abc import Sequence
from dataclasses import dataclass

from rowmint.sampling.messages import StreamHeader
from rowmint.sampling.plan import Plan


@dataclass(frozen=True)
class PlannedPart:
    """One contiguous part of a stream.

    Attributes:
        start_row: First row.
        end_row: Row after the last.
        continued: Whether it resumes the part before, and so has no header.
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
        conditioned_column: See `Synthesizer.conditioned_column`.
        parts: Parts whose data, joined, is the stream's.
    """

    header: StreamHeader
    plan: Plan
    conditioned_column: str
    parts: tuple[PlannedPart, ...]


def plan_parts(header: StreamHeader, plan: Plan, parts: int, *, continued: bool) -> tuple[PlannedPart, ...]:
    """Cut a stream into at most `parts` parts, at least 1.

    Args:
        header: The stream's header.
        plan: Its plan.
        parts: At least 1.
        continued: Whether the stream itself resumes another.
    """
    # Two parts that share candidates, of a period or of a block, both draw them.
    edges = [plan.pools.period, plan.block_size] if plan.reuse > 1 else [plan.block_size]
    cuts = cut_rows(header.start_row, header.end_row, parts, header.grid, edges)
    return tuple(PlannedPart(start, stop, continued or index > 0) for index, (start, stop) in enumerate(cuts))


def cut_rows(start: int, end: int, parts: int, grid: int, preferred: Sequence[int]) -> list[tuple[int, int]]:
    """Cut rows into at most `parts` ranges of about equal length that meet on the grid.

    Args:
        start: First row.
        end: Row after the last.
        parts: At least 1.
        grid: Rows of a batch, a power of two.
        preferred: Powers of two, the first first: the ranges meet at multiples of one where there are enough of them.
    """
    units = [max(grid, unit) for unit in preferred]
    unit = next((unit for unit in units if (end - 1) // unit - start // unit + 1 >= parts), grid)
    first = start // unit
    count = max(1, -(-end // unit) - first)
    parts = min(parts, count)
    edges = [(first + count * part // parts) * unit for part in range(1, parts)]
    return list(zip([start, *edges], [*edges, end], strict=True))
