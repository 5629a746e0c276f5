"""From a column's summary to its codec, and the encoder that writes its codes.

The codec goes into the model; the encoder stays here: it knows how likely each mode is, which decoding does not need.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, Codec, IdentityCodec, NumericCodec
from rowmint.codecs.category import integer_weights
from rowmint.codecs.identity import parse_pattern
from rowmint.errors import InvalidFieldError
from rowmint.schema import Cell, ColumnSpec, DataType, Domain, cell_text
from rowmint.schema.arrays import ColumnArray, native_cell
from trainer_service.config import MAX_CATEGORIES, MAX_MODES, PREFIX, ColumnOverride, HighCardinality, TrainingConfig
from trainer_service.datasets.column_types import canonical_type
from trainer_service.fitting.encoding.modes import fit_mixture, log_density
from trainer_service.fitting.encoding.summary import CategorySummary, IdentitySummary, NumberSummary, Summary
from trainer_service.fitting.encoding.table import coded, ordered

OTHER = "other"
"""The explicit category of folded values; a real value of this text is one with it."""
MAX_TAIL = 100_000
POINT_SHARE = 0.01
POINT_ROWS = 5
BINS = 256
WIDTH_SIGMAS = 4.0
"""A mode's half-width in standard deviations (arXiv:1907.00503, section 4.2)."""
_LEAST_DIGITS = 10
_MOST_DIGITS = 18
_TEXT_PATTERN = "id-[0-9]{12}"
_SAFE_RANGE = 1 << 62
_CHUNK = 8192


@dataclass(frozen=True)
class CategoryEncoder:
    """Writes the slots of a categorical column.

    Attributes:
        column: The column.
        codec: Its codec.
        known: Every value found, as Arrow values.
        codes: int32 code of each, shape (len(known),).
    """

    column: ColumnSpec
    codec: CategoryCodec
    known: pa.Array
    codes: NDArray[np.int32]

    def encode(self, array: pa.Array, _: np.random.Generator) -> tuple[NDArray[np.int64], None]:
        """Return the slot of each cell, shape (n,)."""
        found = pc.index_in(coded(array, self.column), value_set=self.known, skip_nulls=True)
        index = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
        codes = np.where(index < 0, -1, self.codes[index]) if len(self.codes) else np.full(len(index), -1)
        slots, _none = self.codec.encode(ColumnArray(codes.astype(np.int32)))
        return slots.astype(np.int64), None


@dataclass(frozen=True)
class NumberEncoder:
    """Writes the slots and scalars of an ordered column.

    Attributes:
        column: The column.
        codec: Its codec.
        weights: Share of each mode, shape (m,).
        gaussian: Which modes are Gaussian, of a standard deviation of width / `WIDTH_SIGMAS`; the others are uniform
            over their width. Shape (m,). Where none is, modes do not overlap and ascend.
    """

    column: ColumnSpec
    codec: NumericCodec
    weights: NDArray[np.float64]
    gaussian: NDArray[np.bool_]

    def encode(self, array: pa.Array, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return slot and scalar of each cell, both shape (n,); the scalar is 0 outside modes.

        A value that several modes explain gets one of them by chance, by its responsibility for the value
        (arXiv:1907.00503, section 4.2, step 3).
        """
        return self.slots(ordered(array, self.column), random)

    def slots(self, cells: ColumnArray, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return slot and scalar of native values, both shape (n,)."""
        codec = self.codec
        slots = np.full(len(cells), codec.slots - 1, np.int64)
        alpha = np.zeros(len(cells), np.float32)
        missing = cells.missing()
        x = codec.positions(cells.values)
        modal = ~missing
        if len(codec.points):
            at = np.minimum(np.searchsorted(codec.points, x), len(codec.points) - 1)
            pointed = modal & (codec.points[at] == x)
            slots[pointed] = len(codec.centers) + at[pointed]
            modal &= ~pointed
        if not len(codec.centers):
            return slots, alpha
        chosen = np.flatnonzero(modal)
        draws = random.random(len(cells))[chosen]
        for start in range(0, len(chosen), _CHUNK):
            rows = chosen[start : start + _CHUNK]
            mode = self._modes(x[rows], draws[start : start + _CHUNK])
            slots[rows] = mode
            alpha[rows] = np.clip((x[rows] - codec.centers[mode]) / codec.widths[mode], -1, 1)
        return slots, alpha

    def _modes(self, x: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
        codec = self.codec
        if not self.gaussian.any():
            found = np.searchsorted(codec.centers + codec.widths, x)
            return np.minimum(found, len(codec.centers) - 1).astype(np.int64)
        densities = log_density(x, self.weights, codec.centers, codec.widths / WIDTH_SIGMAS) - 0.5 * math.log(math.tau)
        flat = ~self.gaussian
        densities[:, flat] = np.log(self.weights[flat] / (2 * codec.widths[flat]))
        outside = np.abs(x[:, None] - codec.centers) / codec.widths
        # A value no mode reaches, by rounding or in a row that does not train, goes to the nearest.
        densities[outside > np.maximum(outside.min(axis=1, keepdims=True), 1)] = -np.inf
        mass = np.exp(densities - densities.max(axis=1, keepdims=True))
        running = np.cumsum(mass, axis=1)
        found = np.count_nonzero(running <= (draws * running[:, -1])[:, None], axis=1)
        return np.asarray(found, np.int64)


@dataclass(frozen=True)
class FittedColumn:
    """A column of the model.

    Attributes:
        spec: The column, its domain as learned.
        codec: Its codec.
        encoder: Writes its codes; None for ids.
    """

    spec: ColumnSpec
    codec: Codec
    encoder: CategoryEncoder | NumberEncoder | None


def fit_columns(
    columns: tuple[ColumnSpec, ...], summaries: Mapping[str, Summary], config: TrainingConfig
) -> tuple[FittedColumn, ...]:
    """Fit the codec of every column.

    Args:
        columns: The columns in order, kinds and types known.
        summaries: What was found of each, by name.
        config: The training configuration.

    Raises:
        InvalidFieldError: A categorical column has too many values and is to be refused then.
    """
    binned = config.family_name == "independent"
    fitted = []
    for column in columns:
        summary = summaries[column.name]
        override = config.override(column.name)
        match summary:
            case CategorySummary():
                fitted.append(fit_category(column, summary, override))
            case NumberSummary():
                fitted.append(fit_number(column, summary, override, binned=binned))
            case IdentitySummary():
                fitted.append(fit_identity(column, summary))
    return tuple(fitted)


def fit_category(column: ColumnSpec, summary: CategorySummary, override: ColumnOverride) -> FittedColumn:
    """Fit a categorical column: values by falling frequency, rare ones folded or in the tail.

    Raises:
        InvalidFieldError: It has more values than it may.
    """
    limit = MAX_CATEGORIES if override.max_categories is None else override.max_categories
    least = 1 if override.min_category_count is None else override.min_category_count
    policy = HighCardinality.TAIL if override.high_cardinality is None else override.high_cardinality
    counts: dict[Cell, int] = {}
    place: dict[Cell, Cell] = {}
    for value, count in summary.counts.items():
        place[value] = value if count >= least else OTHER
        counts[place[value]] = counts.get(place[value], 0) + count
    order = sorted(counts, key=lambda value: (-counts[value], cell_text(value)))
    if len(order) > limit and policy is HighCardinality.REFUSE:
        raise InvalidFieldError(
            f"{PREFIX}.column_overrides",
            f"column {column.name!r} has {len(order):,} values, the limit is {limit:,}; raise max_categories, choose"
            " another policy, or make the column an ID or IGNORED",
        )
    if len(order) > limit and policy is HighCardinality.OTHER:
        kept = order[:limit]
        rest = sum(counts[value] for value in order[limit:])
        counts = {value: counts[value] for value in kept}
        counts[OTHER] = counts.get(OTHER, 0) + rest
        place = {value: chosen if chosen in counts else OTHER for value, chosen in place.items()}
        order = sorted(counts, key=lambda value: (-counts[value], cell_text(value)))
        limit += 1
    head = min(len(order), limit)
    if len(order) - head > MAX_TAIL:
        raise InvalidFieldError(
            f"{PREFIX}.column_overrides",
            f"column {column.name!r} has {len(order):,} values; at most {MAX_TAIL:,} are kept: declare it ID or"
            " IGNORED, or fold the rare ones with HIGH_CARDINALITY_OTHER",
        )
    tail = np.array([counts[value] for value in order[head:]], np.float64)
    weights = integer_weights(tail) if len(tail) else np.zeros(0, np.uint64)
    codec = CategoryCodec(len(order), head, bool(summary.missing) or column.nullable or not order, weights)
    codes = {value: code for code, value in enumerate(order)}
    known = list(place)
    kept = canonical_type(column.data_type or DataType.STRING, column.domain.decimals, utc=bool(column.time_zone))
    encoder = CategoryEncoder(
        column,
        codec,
        pa.array(known, coded(pa.array([], kept), column).type),
        np.array([codes[place[value]] for value in known], np.int32),
    )
    domain = Domain(categories=tuple(order), decimals=column.domain.decimals, nullable=codec.nullable)
    return FittedColumn(replace(column, domain=domain), codec, encoder)


def fit_identity(column: ColumnSpec, summary: IdentitySummary) -> FittedColumn:
    """Fit a column of ids: integers of the width found but at least ten digits, or texts of a pattern.

    Ten digits leave room for streams longer than the table, and no made id meets a real one of fewer digits.
    """
    domain = Domain(nullable=False)
    if column.data_type is DataType.INT64:
        largest = max(abs(summary.minimum or 0), abs(summary.maximum or 0))
        digits = min(max(len(str(largest)), _LEAST_DIGITS), _MOST_DIGITS)
        base = 10 ** (digits - 1)
        return FittedColumn(replace(column, domain=domain), IdentityCodec(True, base, 9 * base, ""), None)
    pattern = column.id_pattern or _TEXT_PATTERN
    size = math.prod(len(alphabet) for alphabet in parse_pattern(pattern))
    return FittedColumn(
        replace(column, domain=domain, id_pattern=pattern), IdentityCodec(False, 0, size, pattern), None
    )


@dataclass(frozen=True)
class _Modes:
    """Modes and points of a column, in units of x."""

    centers: NDArray[np.float64]
    widths: NDArray[np.float64]
    weights: NDArray[np.float64]
    gaussian: NDArray[np.bool_]
    points: NDArray[np.float64]


def fit_number(
    column: ColumnSpec, summary: NumberSummary, override: ColumnOverride, *, binned: bool = False
) -> FittedColumn:
    """Fit an ordered column: lattice, points, modes; every value found lies in a mode or is a point.

    Args:
        column: The column.
        summary: What was found.
        override: How it is to be fitted.
        binned: Equal-mass bins for modes, up to `BINS`, instead of a Gaussian mixture.
    """
    nullable = bool(summary.missing) or column.nullable or summary.minimum is None
    codec = _lattice(column, summary, nullable)
    domain = replace(column.domain, categories=(), nullable=nullable, minimum=None, maximum=None)
    if summary.minimum is None or summary.maximum is None:
        empty = np.zeros(0)
        encoder = NumberEncoder(column, codec, empty, empty.astype(np.bool_))
        return FittedColumn(replace(column, domain=domain), codec, encoder)
    kind = np.int64 if codec.integral else np.float64
    lower, upper = codec.positions(np.array([summary.minimum, summary.maximum], kind)).tolist()
    if codec.integral:
        upper = min(upper, float((1 << 63) - 1024))  # what float64 rounds up to 2**63 is no int64
    codec = replace(codec, lower=lower, upper=upper)
    modes = _modes(codec, summary, MAX_MODES if override.max_modes is None else override.max_modes, binned=binned)
    codec = replace(codec, centers=modes.centers, widths=modes.widths, points=modes.points)
    domain = replace(domain, minimum=native_cell(summary.minimum, column), maximum=native_cell(summary.maximum, column))
    return FittedColumn(
        replace(column, domain=domain), codec, NumberEncoder(column, codec, modes.weights, modes.gaussian)
    )


def _lattice(column: ColumnSpec, summary: NumberSummary, nullable: bool) -> NumericCodec:
    """Return the codec without modes and points."""
    lattice = summary.lattice
    decimals = column.domain.decimals or 0 if lattice and column.data_type is DataType.DOUBLE else 0
    origin = 0
    if lattice and summary.minimum is not None and summary.maximum is not None:
        least, greatest = (round(bound * 10.0**decimals) if decimals else int(bound) for bound in _bounds(summary))
        # Over a wider range, distances from the smallest value would not fit in int64.
        origin = least if greatest - least < _SAFE_RANGE else 0
    empty = np.zeros(0)
    return NumericCodec(
        lattice=lattice,
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


def _modes(codec: NumericCodec, summary: NumberSummary, max_modes: int, *, binned: bool) -> _Modes:
    x = codec.positions(summary.values)
    counts = summary.counts.astype(np.float64)
    if summary.complete and (len(x) == 1 or (binned and len(x) <= BINS)):
        return _Modes(*(np.zeros(0),) * 3, np.zeros(0, np.bool_), x)
    pointed = counts >= max(POINT_SHARE * summary.rows, POINT_ROWS)
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
    found = _bins(codec, x, counts, summary.complete) if binned else _mixture(codec, x, counts, summary, max_modes)
    return replace(found, points=np.unique(np.concatenate([points, found.points])))


def _mixture(
    codec: NumericCodec, x: NDArray[np.float64], counts: NDArray[np.float64], summary: NumberSummary, max_modes: int
) -> _Modes:
    """Gaussian modes, and one uniform mode for each gap between or beyond them that holds a value."""
    least = 0.5 if codec.lattice else max((codec.upper - codec.lower) * 1e-6, 1e-300)
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
    extra, half = _span(lows, highs, codec.lattice)
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
    lows: NDArray[np.float64], highs: NDArray[np.float64], lattice: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres and half-widths of uniform modes over closed spans.

    On a lattice a uniform scalar gives each whole number from low to high the same share: half a step is added at both
    ends, less a little, so that no tie rounds outwards.
    """
    widths = (highs - lows) / 2
    widths = widths + 0.4995 if lattice else np.maximum(widths * (1 + 1e-12), 1e-300)
    return (lows + highs) / 2, widths


def _bins(codec: NumericCodec, x: NDArray[np.float64], counts: NDArray[np.float64], complete: bool) -> _Modes:
    """Equal-mass bins, ascending and disjoint; a bin of one value is a point."""
    running = np.cumsum(counts)
    bins = np.minimum(((running - counts / 2) * (BINS / running[-1])).astype(np.intp), BINS - 1)
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    lows, highs = x[starts], x[np.append(starts[1:], len(x)) - 1]
    points = np.zeros(0)
    if complete:
        single = lows == highs
        points, lows, highs = lows[single], lows[~single], highs[~single]
    else:
        # Values the sample did not see may lie anywhere between: the bins share out the whole range.
        highs[-1] = codec.upper
        lows = np.concatenate([[codec.lower], highs[:-1] + (1 if codec.lattice else 0)])
        kept = lows <= highs
        lows, highs = lows[kept], highs[kept]
    centers, widths = _span(lows, highs, codec.lattice)
    return _Modes(centers, widths, np.full(len(centers), 1 / BINS), np.zeros(len(centers), np.bool_), points)
