"""Ordered columns: from the summary of values to a codec of step grid, points and modes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rowmint.codecs import NumericCodec
from rowmint.schema import ColumnSpec, DataType
from rowmint.schema.arrays import native_cell
from trainer_service.fitting.encoding.fitted_column import FittedColumn
from trainer_service.fitting.encoding.modes import fit_mixture
from trainer_service.fitting.encoding.number_encoder import WIDTH_SIGMAS, NumberEncoder
from trainer_service.fitting.encoding.summary import NumberSummary
from trainer_service.fitting.options import EncodingOptions, Pieces

POINT_SHARE = 0.01
POINT_ROWS = 5
_NEAR_GAPS = 8  # on each side, that a gap is compared with
_WIDE_GAP = 15.0  # times the median of these
_SAFE_RANGE = 1 << 62


@dataclass(frozen=True)
class _Modes:
    """Modes and points of a column, in units of x."""

    centers: NDArray[np.float64]
    widths: NDArray[np.float64]
    weights: NDArray[np.float64]
    gaussian: NDArray[np.bool_]
    points: NDArray[np.float64]


def fit_number(column: ColumnSpec, summary: NumberSummary, options: EncodingOptions) -> FittedColumn:
    """Fit an ordered column: step grid, points, modes; every value found lies in a mode or is a point.

    Args:
        column: The column.
        summary: What was found.
        options: How columns are encoded; where they say so, modes are equal-mass pieces.
    """
    nullable = bool(summary.missing) or column.nullable or summary.minimum is None
    codec = _grid(column, summary, nullable)
    domain = replace(column.domain, categories=(), nullable=nullable, minimum=None, maximum=None)
    if summary.minimum is None or summary.maximum is None:
        empty = np.zeros(0)
        encoder = NumberEncoder(column, codec, empty, empty.astype(np.bool_))
        return FittedColumn(replace(column, domain=domain), codec, encoder)
    kind = np.int64 if codec.integral else np.float64
    lower, upper = codec.positions(np.array([summary.minimum, summary.maximum], kind)).tolist()
    if codec.integral:
        upper = min(upper, float((1 << 63) - 1024))  # what float64 rounds up to 2**63 does not fit in int64
    codec = replace(codec, lower=lower, upper=upper)
    override = options.override(column.name)
    most = options.max_modes if override.max_modes is None else override.max_modes
    modes = _modes(codec, summary, most, options.pieces)
    codec = replace(codec, centers=modes.centers, widths=modes.widths, points=modes.points)
    domain = replace(domain, minimum=native_cell(summary.minimum, column), maximum=native_cell(summary.maximum, column))
    return FittedColumn(
        replace(column, domain=domain), codec, NumberEncoder(column, codec, modes.weights, modes.gaussian)
    )


def _grid(column: ColumnSpec, summary: NumberSummary, nullable: bool) -> NumericCodec:
    """Return the codec without modes and points."""
    decimals = column.domain.decimals or 0 if summary.on_grid and column.data_type is DataType.DOUBLE else 0
    origin = 0
    if summary.on_grid and summary.minimum is not None and summary.maximum is not None:
        least, greatest = (round(bound * 10.0**decimals) if decimals else int(bound) for bound in _bounds(summary))
        # Over a wider range, distances from the smallest value would not fit in int64.
        origin = least if greatest - least < _SAFE_RANGE else 0
    empty = np.zeros(0)
    return NumericCodec(
        on_grid=summary.on_grid,
        origin=origin,
        step=max(1, summary.step),
        decimals=decimals,
        integral=column.data_type is not DataType.DOUBLE,
        nullable=nullable,
        lower=0.0,
        upper=0.0,
        centers=empty,
        widths=empty,
        points=empty,
    )


def _bounds(summary: NumberSummary) -> tuple[Any, Any]:
    return summary.minimum, summary.maximum


def _modes(codec: NumericCodec, summary: NumberSummary, max_modes: int, pieces: Pieces | None) -> _Modes:
    x = codec.positions(summary.values)
    counts = summary.counts.astype(np.float64)
    pointed = counts >= max(POINT_SHARE * summary.rows, POINT_ROWS)
    if summary.complete and (len(x) == 1 or (pieces is not None and _all_points(pieces, counts, pointed))):
        return _Modes(*(np.zeros(0),) * 3, np.zeros(0, np.bool_), x)
    points = x[pointed]
    if summary.complete:
        x, counts = x[~pointed], counts[~pointed]
    else:
        x, index = np.unique(codec.positions(summary.sampled()), return_counts=True)
        kept = ~np.isin(x, points)
        x, counts = x[kept], index[kept].astype(np.float64)
    if len(x) <= 1 and summary.complete:
        return _Modes(*(np.zeros(0),) * 3, np.zeros(0, np.bool_), np.sort(np.concatenate([points, x])))
    if not len(x):  # all the sample saw were points
        x, counts = np.unique([codec.lower, codec.upper]), np.ones(2)
    found = (
        _mixture(codec, x, counts, summary, max_modes)
        if pieces is None
        else _cut(codec, x, counts, _most_pieces(pieces, counts, summary), complete=summary.complete)
    )
    return replace(found, points=np.unique(np.concatenate([points, found.points])))


def _mixture(
    codec: NumericCodec, x: NDArray[np.float64], counts: NDArray[np.float64], summary: NumberSummary, max_modes: int
) -> _Modes:
    """Gaussian modes, and one uniform mode for each gap between or beyond them that holds a value."""
    least = 0.5 if codec.on_grid else max((codec.upper - codec.lower) * 1e-6, 1e-300)
    mixture = fit_mixture(x, counts, max_modes, least)
    widths = WIDTH_SIGMAS * mixture.sigmas
    gaps = _gaps(mixture.means - widths, mixture.means + widths, codec.lower, codec.upper)
    spans: list[tuple[float, float, float]] = []
    points: list[float] = []
    for low, high in gaps:
        if not summary.complete:
            spans.append((low, high, 1e-3))
            continue
        inside = (x >= low) & (x <= high)
        if inside.any():
            first, last = float(x[inside][0]), float(x[inside][-1])
            if first == last:
                points.append(first)
            else:
                spans.append((first, last, float(counts[inside].sum() / counts.sum())))
    lows, highs, masses = (
        (np.array(part, np.float64) for part in zip(*spans, strict=True)) if spans else (np.zeros(0),) * 3
    )
    extra, half = _span(lows, highs, on_grid=codec.on_grid)
    return _Modes(
        np.concatenate([mixture.means, extra]),
        np.concatenate([widths, half]),
        np.concatenate([mixture.weights, masses]),
        np.repeat([True, False], [len(widths), len(half)]),
        np.array(points),
    )


def _gaps(
    lows: NDArray[np.float64], highs: NDArray[np.float64], lower: float, upper: float
) -> list[tuple[float, float]]:
    """Return the parts of [lower, upper] that none of the intervals covers, ascending."""
    gaps = []
    reached = lower
    for index in np.argsort(lows):
        if lows[index] > reached:
            gaps.append((reached, min(float(lows[index]), upper)))
        reached = max(reached, float(highs[index]))
        if reached >= upper:
            break
    if reached < upper:
        gaps.append((reached, upper))
    return gaps


def _span(
    lows: NDArray[np.float64], highs: NDArray[np.float64], *, on_grid: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres and half-widths of uniform modes over closed spans.

    On a step grid a uniform scalar gives each integer from low to high the same share: half a step is added at both
    ends, less a little, so that no tie rounds outwards.
    """
    widths = (highs - lows) / 2
    widths = widths + 0.4995 if on_grid else np.maximum(widths * (1 + 1e-12), 1e-300)
    return (lows + highs) / 2, widths


def _adjoined(
    lows: NDArray[np.float64], highs: NDArray[np.float64], wide: NDArray[np.bool_], *, on_grid: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share out the gaps between pieces that are not wide: values that no training row has are possible there too."""
    middle = highs[:-1] + (lows[1:] - highs[:-1]) / 2
    if on_grid:
        middle = np.floor(middle)
    return (
        np.append(lows[:1], np.where(wide, lows[1:], middle + on_grid)),
        np.append(np.where(wide, highs[:-1], middle), highs[-1:]),
    )


def _wide_gaps(x: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return before which values a gap is much wider than those near it, shape (n,); the first has none.

    Such are the minutes 60 to 99 of times that are written as hours and minutes.
    """
    gaps = np.diff(x)
    if not len(gaps):
        return np.zeros(len(x), np.bool_)
    near = sliding_window_view(np.pad(gaps, _NEAR_GAPS, mode="edge"), 2 * _NEAR_GAPS + 1)
    return np.append(False, gaps > _WIDE_GAP * np.median(near, axis=1))


def _all_points(pieces: Pieces, counts: NDArray[np.float64], pointed: NDArray[np.bool_]) -> bool:
    """Say whether all values are points; those that are in any case, and missing cells, speak for no other."""
    others = counts[~pointed]
    return len(counts) <= pieces.values and float(others.sum()) >= pieces.rows_per_value * len(others)


def _most_pieces(pieces: Pieces, counts: NDArray[np.float64], summary: NumberSummary) -> int:
    """Return into how many pieces what is left beside points is cut; `counts` are of a sample where not complete."""
    left = float(counts.sum()) if summary.complete else float(summary.rows - summary.missing)
    return max(min(pieces.most, int(left) // pieces.rows), 1)


def _cut(
    codec: NumericCodec, x: NDArray[np.float64], counts: NDArray[np.float64], most: int, *, complete: bool
) -> _Modes:
    """Equal-mass pieces, ascending and disjoint; a piece of one value is a point."""
    running = np.cumsum(counts)
    bins = np.minimum(((running - counts / 2) * (most / running[-1])).astype(np.intp), most - 1)
    wide = _wide_gaps(x) if complete else np.zeros(len(x), np.bool_)
    starts = np.flatnonzero((np.diff(bins, prepend=-1) != 0) | wide)
    lows, highs = x[starts], x[np.append(starts[1:], len(x)) - 1]
    points = np.zeros(0)
    if complete:
        single = lows == highs
        points = lows[single]
        kept = np.flatnonzero(~single)
        if len(kept):
            # Pieces are apart where a wide gap or a point lies between them.
            apart = np.add.reduceat(np.append((wide[starts] | single)[1:], False), kept)[:-1] > 0
            lows, highs = _adjoined(lows[kept], highs[kept], apart, on_grid=codec.on_grid)
        else:
            lows, highs = lows[kept], highs[kept]
    else:
        # Values the sample did not see may lie anywhere between: the pieces share out the whole range.
        highs[-1] = codec.upper
        lows = np.concatenate([[codec.lower], highs[:-1] + (1 if codec.on_grid else 0)])
        kept = lows <= highs
        lows, highs = lows[kept], highs[kept]
    centers, widths = _span(lows, highs, on_grid=codec.on_grid)
    return _Modes(centers, widths, np.full(len(centers), 1 / most), np.zeros(len(centers), np.bool_), points)
