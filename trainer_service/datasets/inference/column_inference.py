"""Type inference: the type of a column is the narrowest that represents all of its values.

The type of text is found by elimination: all families of types are possible at first, each batch eliminates those that
do not fit one of its values, and counts of the rest decide how values are written. Counts can be added in any order, so
the result depends neither on the order of rows nor on batches. The rules:

- ``true``/``false`` in any case are booleans; 0 and 1 are integers.
- Integers fit int64. A column with leading zeros ("00123") is text, as are phone numbers with a plus sign and integers
  beyond int64, which would lose digits as a double.
- Numbers with a fraction or an exponent are doubles, or decimals where a double would lose digits. They may have a sign
  of currency, a unit, groups and a decimal comma. ``NaN`` among numbers is a missing cell.
- Days and moments are recognised in the usual forms; where day and month are digits before the year, only if some value
  or another column says which comes first.
- Spaces around such values are ignored. Everything else is text, unchanged. A column without values is text.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rowmint.errors import InvalidFieldError
from rowmint.schema import KINDS_OF_TYPE, ColumnKind, ColumnSpec, DataType
from rowmint.schema.forms import BooleanForm, DatetimeForm, NumberForm, StorageType, WrittenForm
from rowmint.schema.forms.moments import directives, form_of_strptime, is_time_of_day, strptime_of
from rowmint.schema.forms.number_layouts import MAX_SHAPE
from rowmint.schema.forms.storage import STORAGE_OF_TYPE
from trainer_service.datasets.column_types import EXACT_DOUBLE, MAX_SCALE, Inference
from trainer_service.datasets.declarations import declared_pattern
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.inference.booleans import BooleanState
from trainer_service.datasets.inference.decision import Decision, Evidence
from trainer_service.datasets.inference.moment_decision import decide_moment, witnessed_order
from trainer_service.datasets.inference.moments import MomentState
from trainer_service.datasets.inference.number_decision import Request, decide_number
from trainer_service.datasets.inference.numbers import NumberState
from trainer_service.datasets.notices import Notice, NoticeCode
from trainer_service.datasets.shapes import groups
from trainer_service.datasets.target import Target

_NUMERIC = (DataType.INT64, DataType.DOUBLE, DataType.DECIMAL)
_TEMPORAL = (DataType.DATE, DataType.TIMESTAMP)
_TIMES = frozenset({StorageType.TIME32_S, StorageType.TIME32_MS, StorageType.TIME64_US, StorageType.TIME64_NS})
_DAY_WORDS = frozenset({"date", "day", "dt", "datum", "fecha"})
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
MAX_SHAPES = 2_048
"""Shapes of the texts of a column, from which on it is text: no numbers or moments are written in so many ways."""
NULL_WORDS = frozenset(
    ["NA", "N/A", "n/a", "#N/A", "#NA", "NULL", "null", "Null", "None", "none", "NaT", "-", "--", "?", ".", "missing"]
)
"""Words that often represent a missing value; they are text unless declared, which a notice suggests."""
_MAX_FLAGS = 3
_FIRST_TEXTS = 64
_MAX_PAD = 64
_CLOCK = DatetimeForm("%H:%M:%S[.%6f]")


@dataclass
class _Padding:
    """Spaces around texts, in rows; and the fewest and most bytes of a text."""

    leading: int = 0
    trailing: int = 0
    shortest: int = 1 << 31
    longest: int = 0

    def add(self, texts: pa.Array, trimmed: pa.Array, weights: NDArray[np.int64]) -> None:
        if not len(texts):
            return
        lengths = pc.binary_length(texts).to_numpy()
        self.shortest = min(self.shortest, int(lengths.min()))
        self.longest = max(self.longest, int(lengths.max()))
        changed = lengths != pc.binary_length(trimmed).to_numpy()
        if changed.any():
            places = np.flatnonzero(changed)
            some = texts.take(pa.array(places))
            leading = pc.not_equal(pc.utf8_ltrim_whitespace(some), some).to_numpy(zero_copy_only=False)
            trailing = pc.not_equal(pc.utf8_rtrim_whitespace(some), some).to_numpy(zero_copy_only=False)
            self.leading += int(weights[places][leading].sum())
            self.trailing += int(weights[places][trailing].sum())

    @property
    def width(self) -> int:
        """The width that texts are padded to on their left; 0 if they are not."""
        aligned = self.leading and not self.trailing and self.shortest == self.longest <= _MAX_PAD
        return self.longest if aligned else 0


class ColumnInference:
    """Infers the type of a column from its batches.

    Args:
        name: Name of the column.
        inference: Types that are inferred from text.
        declared: The declared column, or None.

    Raises:
        InvalidFieldError: The declared datetime format is invalid.
    """

    def __init__(self, name: str, inference: Inference, declared: ColumnSpec | None) -> None:
        self.name = name
        self._declared = ColumnSpec(name) if declared is None else declared
        self._seen: set[DataType] = set()
        self._seen_utc = False
        self._text_seen = False
        self._largest_whole = 0.0
        self._scale = 0
        self._padding = _Padding()
        self._empty = 0
        self._shapes: set[int] = set()
        self._null_words: Counter[str] = Counter()
        self._numbers, self._moments, self._booleans = self._families(inference)

    def _families(self, inference: Inference) -> tuple[NumberState | None, MomentState | None, BooleanState | None]:
        """Return the families of types that are possible."""
        column = self._declared
        form, kind, data_type = column.written_form.form, column.kind, column.data_type
        pattern = form.pattern if isinstance(form, DatetimeForm) else ""
        if column.datetime_format and not pattern:
            pattern = declared_pattern(column.datetime_format, f"datetime_format of column {self.name!r}")
        number = isinstance(form, NumberForm) or kind is ColumnKind.NUMERICAL or data_type in _NUMERIC
        moment = bool(pattern) or kind is ColumnKind.DATETIME or data_type in _TEMPORAL
        boolean = isinstance(form, BooleanForm) or kind is ColumnKind.BOOLEAN or data_type is DataType.BOOL
        declared = self._is_declared = number or moment or boolean
        scalars, datetimes = (
            inference is Inference.ALL and not declared,
            inference is not Inference.NONE and not declared,
        )
        if data_type is DataType.STRING:
            scalars = datetimes = False
        numbers = NumberState(lenient=number) if number or scalars else None
        compact = moment or bool(_DAY_WORDS & {word.lower() for word in _WORDS.findall(self.name)})
        moments = None
        if moment or datetimes:
            moments = MomentState(pattern, compact=compact, lenient=moment)
        booleans = None
        if boolean or scalars:
            booleans = BooleanState(form if isinstance(form, BooleanForm) else None, any_pair=boolean)
        return numbers, moments, booleans

    def add(self, array: pa.Array) -> None:
        """Add a batch: text, or values of one of the types of `normalised`."""
        if array.null_count == len(array):
            return
        if not pa.types.is_string(array.type):
            self._add_typed(array)
            if not (self._declared.datetime_format and pa.types.is_int64(array.type)):
                return
            array = array.cast(pa.string())
        elif not self._text_seen:
            self._text_seen = True
            # Most columns of text are known as such by their first values.
            self._add_text(array.slice(0, _FIRST_TEXTS))
            array = array.slice(_FIRST_TEXTS)
        self._add_text(array)

    def _alive(self) -> bool:
        return len(self._shapes) <= MAX_SHAPES and (
            (self._numbers is not None and bool(self._numbers.separators))
            or (self._moments is not None and self._moments.alive)
            or (self._booleans is not None and self._booleans.alive)
        )

    def _add_text(self, array: pa.Array) -> None:
        if not self._alive() or not len(array):
            return
        counted = pc.value_counts(array)
        texts, weights = counted.field("values"), counted.field("counts").to_numpy()
        trimmed = pc.utf8_trim_whitespace(texts)
        full = np.array(pc.greater(pc.binary_length(trimmed), 0).fill_null(False).to_numpy(zero_copy_only=False))
        if not full.all():
            present = np.array(texts.is_valid().to_numpy(zero_copy_only=False))
            self._empty += int(weights[present & ~full].sum())
            texts, trimmed, weights = texts.filter(pa.array(full)), trimmed.filter(pa.array(full)), weights[full]
        self._padding.add(texts, trimmed, weights)
        for group in groups(trimmed, MAX_SHAPE):
            self._shapes.add(hash(group.shape))
            if not self._alive():
                break
            rows = weights[group.places]
            if group.shape in NULL_WORDS and not self._is_declared:
                self._null_words[group.shape] += int(rows.sum())
                continue
            if self._numbers is not None and self._numbers.separators:
                self._numbers.add(group, rows)
            if self._moments is not None and self._moments.alive:
                self._moments.add(group, rows)
            if self._booleans is not None and self._booleans.alive:
                self._booleans.add(group, rows)

    def _add_typed(self, array: pa.Array) -> None:
        kind = _type_of(array.type)
        self._seen.add(kind)
        if kind is DataType.TIMESTAMP:
            self._seen_utc = array.type.tz is not None
        elif kind is DataType.DECIMAL:
            self._scale = max(self._scale, array.type.scale)
        elif kind is DataType.INT64:
            extremes = pc.min_max(array).as_py()
            largest = max(abs(extremes["min"]), abs(extremes["max"]))
            self._largest_whole = max(self._largest_whole, float(largest))

    @property
    def decimal(self) -> str:
        """The decimal separator that the column's values leave no choice about; empty if they do, or it has none."""
        numbers = self._numbers
        return numbers.decimal if numbers is not None and self._text_seen else ""

    @property
    def order(self) -> tuple[str, bool] | None:
        """The separator of the column's days and whether the day is first, if its values say so."""
        return witnessed_order(self._moments) if self._moments is not None and self._moments.alive else None

    def decide(self, evidence: Evidence, *, is_key: bool) -> tuple[Target, tuple[Notice, ...]]:
        """Return the target type of the column, and what to report; declarations take precedence.

        Args:
            evidence: What the format and other columns say.
            is_key: Whether it is the declared primary key, which is an integer or text.

        Raises:
            InvalidFieldError: The declaration does not fit the values; the message names the column.
        """
        column = self._declared
        natural = self._natural(evidence)
        chosen, notices = self._padded(natural)
        if column.data_type is not None:
            chosen = self._as(column.data_type, chosen)
        elif column.kind is not None or column.datetime_format:
            chosen = self._of_kind(column.kind or ColumnKind.DATETIME, chosen, notices)
        if column.kind is not None:
            self._require_kind(column.kind, chosen)
        if is_key and (ColumnKind.ID not in KINDS_OF_TYPE[chosen.data_type] or not self._is_exact(chosen, notices)):
            if column.data_type is not None:
                self._require_kind(ColumnKind.ID, chosen)
            else:
                chosen = Target(DataType.STRING, why="it is the primary key")
        return self._stored(chosen, evidence.hints), notices

    def _natural(self, evidence: Evidence) -> Decision:
        if self._seen and not (self._declared.datetime_format and self._seen == {DataType.INT64}):
            return Decision(self._natural_typed())
        if not self._text_seen and not self._seen:
            return Decision(Target(DataType.STRING, why="it has no values"))
        notices: list[Notice] = []
        for decision in self._decisions(evidence) if len(self._shapes) <= MAX_SHAPES else ():
            if decision.target is not None and self._null_words:
                return Decision(None, (self._null_notice(decision.target),))
            notices += decision.notices
            if decision.target is not None:
                return Decision(decision.target, tuple(notices))
        return Decision(Target(DataType.STRING, why="its values are text"), tuple(notices))

    def _null_notice(self, target: Target) -> Notice:
        """Return the notice that words for a missing value are all that keeps a column from a type."""
        listed = ", ".join(sorted(self._null_words))
        flags = [f"--column-null {shlex.quote(f'{self.name}={word}')}" for word in sorted(self._null_words)]
        message = f"all other values are of type {target.data_type}, but text such as {listed} makes the column text"
        rows = self._null_words.total()
        return Notice(NoticeCode.MIXED_FORMS, self.name, message, " ".join(flags[:_MAX_FLAGS]), rows)

    def _decisions(self, evidence: Evidence) -> Iterator[Decision]:
        """Yield what each family that fits all texts makes of the column, the narrowest first."""
        column = self._declared
        form = column.written_form.form
        if self._booleans is not None and self._booleans.alive and self._booleans.words:
            yield self._booleans.decide(self.name)
        if self._moments is not None and self._moments.alive and self._moments.facts:
            declared = form if isinstance(form, DatetimeForm) else None
            yield decide_moment(self.name, self._moments, evidence.orders, declared, column.datetime_format)
        if self._numbers is not None and self._numbers.separators:
            declared_number = form if isinstance(form, NumberForm) else None
            requested = column.data_type if column.data_type in _NUMERIC else None
            numerical = column.kind is ColumnKind.NUMERICAL or requested is not None
            yield decide_number(
                self.name, self._numbers, evidence, Request(declared_number, requested, numerical=numerical)
            )

    def _padded(self, natural: Decision) -> tuple[Target, tuple[Notice, ...]]:
        """Return the target and notices of a column, with what its spaces and empty texts add to them."""
        target, notices = natural.target, list(natural.notices)
        if target is None or target.data_type is DataType.STRING:
            return target or Target(DataType.STRING), natural.notices
        padding = self._padding
        if padding.leading or padding.trailing:
            target = replace(target, trim=True, form=replace(target.form, pad_width=padding.width))
            message = f"values are padded to {padding.width} characters" if padding.width else "spaces are removed"
            rows = max(padding.leading, padding.trailing)
            notices.append(Notice(NoticeCode.PADDING, self.name, message, rows=rows))
        if self._empty:
            message = "texts without characters are missing cells"
            notices.append(Notice(NoticeCode.QUOTED_EMPTY, self.name, message, rows=self._empty))
        return target, tuple(notices)

    def _require_kind(self, kind: ColumnKind, chosen: Target) -> None:
        if kind not in KINDS_OF_TYPE[chosen.data_type]:
            raise InvalidFieldError(
                "dataset.column_overrides",
                f"column {self.name!r} has {chosen.data_type} values, which cannot be {kind}",
            )

    def _of_kind(self, kind: ColumnKind, natural: Target, notices: tuple[Notice, ...]) -> Target:
        """Return the type for a declared kind; values that do not fit are reported by the conversion."""
        known = self._text_seen or bool(self._seen)
        if kind in (ColumnKind.CATEGORICAL, ColumnKind.ID, ColumnKind.IGNORED):
            fits = kind in KINDS_OF_TYPE[natural.data_type] and self._is_exact(natural, notices)
            return natural if fits else Target(DataType.STRING, why=f"it is declared {kind}; its values are unchanged")
        is_clock = natural.data_type is DataType.INT64 and isinstance(natural.form.form, DatetimeForm)
        if (kind in KINDS_OF_TYPE[natural.data_type] and known) or is_clock:
            return natural
        requested = {
            ColumnKind.NUMERICAL: DataType.DOUBLE,
            ColumnKind.DATETIME: DataType.TIMESTAMP,
            ColumnKind.BOOLEAN: DataType.BOOL,
        }.get(kind, natural.data_type)
        return self._as(requested, natural)

    def _is_exact(self, target: Target, notices: tuple[Notice, ...]) -> bool:
        """Return whether a column's cells are written exactly as they came without a form of their own."""
        mixed = any(notice.code in (NoticeCode.MIXED_FORMS, NoticeCode.DIGITS_DROPPED) for notice in notices)
        return not (self._text_seen and (target.form or target.trim or target.learned or mixed))

    def _as(self, requested: DataType, natural: Target) -> Target:
        declared = self._declared
        if requested is DataType.STRING:
            return Target(requested, why="it is declared so")
        if requested is DataType.DECIMAL:
            decimals = declared.domain.decimals
            scale = max(self._scale, natural.decimals or 0) if decimals is None else decimals
            kept = natural if natural.data_type in _NUMERIC else Target(requested)
            return replace(kept, data_type=requested, decimals=min(scale, MAX_SCALE), learned=False, trim=True)
        if requested is natural.data_type:
            return natural
        if requested in _TEMPORAL:
            return self._as_moment(requested, natural)
        if requested in _NUMERIC and natural.data_type in _NUMERIC:
            decimals = 0 if requested is DataType.DOUBLE and self._text_seen else None
            return replace(natural, data_type=requested, decimals=decimals, trim=True)
        form = declared.written_form
        return Target(requested, form, trim=True, typed=not self._text_seen, learned=not self._text_seen)

    def _as_moment(self, requested: DataType, natural: Target) -> Target:
        """Return the target of a column that is declared to have days or moments."""
        declared = self._declared
        if natural.data_type in _TEMPORAL:
            utc = natural.utc and requested is DataType.TIMESTAMP
            # A form with a clock is not that of days, and one without is not that of moments.
            form = WrittenForm() if requested is not natural.data_type else natural.form
            return replace(natural, data_type=requested, utc=utc, trim=True, form=form, datetime_format="")
        form = declared.written_form
        if declared.datetime_format:
            form = WrittenForm(form_of_strptime(declared.datetime_format))
        if isinstance(form.form, DatetimeForm):
            pattern, found = form.form.pattern, directives(form.form.pattern)
            if declared.data_type is None:
                requested = DataType.TIMESTAMP if found & set("HIs") else DataType.DATE
                requested = DataType.INT64 if is_time_of_day(pattern) else requested
            return Target(
                requested,
                form,
                utc="z" in found and requested is DataType.TIMESTAMP,
                trim=True,
                pattern=pattern,
                datetime_format=declared.datetime_format or strptime_of(form.form),
                why="it is declared so",
            )
        return Target(requested, trim=True, template="Y-m-d", why="it is declared so")

    def _stored(self, target: Target, hints: FormatHints) -> Target:
        """Return the target with the type and the time zone that a typed format has for the column."""
        storage, zone = hints.storage.get(self.name), hints.arrow_zones.get(self.name, "")
        storage = self._declared.written_form.storage or storage
        if storage is not None and storage not in STORAGE_OF_TYPE[target.data_type]:
            storage = None
        form = target.form
        kind, width = form.form, form.pad_width or self._declared.written_form.pad_width
        if storage in _TIMES and kind is None:
            kind = _CLOCK
        if zone and target.data_type is DataType.TIMESTAMP and not isinstance(kind, NumberForm | BooleanForm):
            kind = replace(kind or DatetimeForm(""), arrow_zone=zone)
        return replace(target, form=WrittenForm(kind, storage, width))

    def _natural_typed(self) -> Target:
        why = "the file says so"
        if not self._text_seen:
            if len(self._seen) == 1:
                (only,) = self._seen
                if only is DataType.DECIMAL:
                    return Target(only, decimals=self._scale, why=why)
                return Target(only, utc=self._seen_utc, typed=True, learned=True, why=why)
            if self._seen == {DataType.INT64, DataType.DOUBLE} and self._largest_whole <= EXACT_DOUBLE:
                return Target(DataType.DOUBLE, typed=True, learned=True, why="some values are not integers")
        return Target(DataType.STRING, why="its values are of several types")


def _type_of(arrow_type: pa.DataType) -> DataType:
    if pa.types.is_boolean(arrow_type):
        return DataType.BOOL
    if pa.types.is_int64(arrow_type):
        return DataType.INT64
    if pa.types.is_float64(arrow_type):
        return DataType.DOUBLE
    if pa.types.is_decimal128(arrow_type):
        return DataType.DECIMAL
    if pa.types.is_date32(arrow_type):
        return DataType.DATE
    return DataType.TIMESTAMP
