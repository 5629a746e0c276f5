"""Reading a hostile model: it is refused, or its rows, conditions and completions are held against its schema."""

import csv
import io
import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from rowmint.artifact import Model, read_model
from rowmint.conditions import AnyOf, IsNull, Predicate, Range, Test, canonical
from rowmint.errors import DataLossError, InvalidConditionError, RowmintError, RowRangeError
from rowmint.rng import StreamKey
from rowmint.rpc.converters import schema_to_proto
from rowmint.sampling.formats import RowFormat, TypedBatch, make_encoder
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema import ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray, is_coded
from rowmint.schema.forms import DatetimeForm
from rowmint.schema.forms.cells import read as read_cell
from rowmint.steps import finish
from rowmint.synthesizer import CompletionOptions, Kernel, choose_kernel, propose
from rowmint.synthesizer.interface import RowKeys
from tests.hostile.model_files import KERNELS, ROWS
from tests.hostile.uploads import equal

_KEY = StreamKey(bytes(32), bytes(32), 7)
_turn = itertools.count()


@dataclass(frozen=True)
class Refused:
    """What was said of a model that was refused."""

    message: str


@dataclass(frozen=True)
class Sound:
    """A model that was loaded, drawn from and found sound."""

    columns: int


@cache
def kernel(name: str) -> Kernel:
    return choose_kernel(name)


def read(manifest: bytes, weights: bytes, *, every: bool = False, kernels: Sequence[str] = KERNELS) -> Refused | Sound:
    """Read a model as the sampler does and draw from it. Any other error is raised.

    Args:
        manifest: Bytes of `manifest.json`.
        weights: Bytes of `weights.safetensors`.
        every: Whether every column is tested and completed, by real plans; else one, another one each time.
        kernels: Kernels that it is read with, and that must draw the same.
    """
    if b'"family":"independent"' in manifest:
        kernels = kernels[:1]  # it has no network
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            models = [read_model(manifest, weights, kernel(name)) for name in kernels]
        except DataLossError as error:
            if not 0 < len(error.message.encode()) < 2000:
                raise AssertionError(f"{error.message[:2000]!r}") from error
            return Refused(error.message)
        first, *others = (first_rows(model) for model in models)
        equal([first] * len(others), others)
        schema_to_proto(models[0].schema)
        columns = models[0].schema.columns
        turn = next(_turn)
        for column in columns if every else [columns[turn % len(columns)]]:
            conditioned(models[turn % len(models)], column)
            if every:
                planned(models[turn % len(models)], column)
    return Sound(len(columns))


def first_rows(model: Model) -> dict[RowFormat, Any]:
    """Return the first rows in every format, checked; nothing where ids are fewer than rows."""
    plan = compile_plan(model.digest, model.synthesizer, ())
    try:
        block = RowSource(model, plan, 3, model.schema.names).block(0, min(ROWS, model.grid))
    except RowRangeError:
        return {}
    return in_every_format(model, block.columns, block.rows)


def tests_of(column: ColumnSpec) -> Iterator[Test]:
    """Yield conditions that are valid for `column`."""
    domain = column.domain
    if domain.categories:
        yield AnyOf((domain.categories[0], domain.categories[-1]))
    elif not is_coded(column):
        yield Range(minimum=domain.minimum, maximum=domain.maximum)
        yield AnyOf((domain.minimum, domain.maximum))
    yield IsNull()
    yield IsNull(null=False)


def planned(model: Model, column: ColumnSpec) -> None:
    """Draw rows by the plan that is compiled for a condition on `column`; nothing where none can be met."""
    try:
        conditions = canonical([Predicate(column.name, next(tests_of(column)))], model.schema)
    except RowmintError:
        return
    try:
        plan = compile_plan(model.digest, model.synthesizer, conditions)
    except InvalidConditionError:  # the family knows that no row satisfies them
        return
    source = RowSource(model, plan, 3, model.schema.names)
    block = source.block(3, min(ROWS, plan.block_size, model.grid))
    if block.rows:
        in_every_format(model, block.columns, block.rows)


def conditioned(model: Model, column: ColumnSpec) -> None:
    """Draw rows with conditions on `column`, and complete one where it is known."""
    names = [name for name in model.schema.names if name not in model.identities]
    for test in tests_of(column):
        try:
            conditions = canonical([Predicate(column.name, test)], model.schema)
        except RowmintError:
            continue
        # What a plan's pilot and a block do, with fewer candidates.
        try:
            proposal = propose(model.synthesizer, conditions, names)
        except InvalidConditionError:  # the family knows that no row satisfies them
            continue
        found = proposal.candidates(_KEY.tile(0, 0), 64).first(ROWS)
        made = proposal.finish(found, _KEY.tile(0, 0)).columns
        if found.size and conditions and names:
            held = [bool(test.satisfied(made[test.column]).all()) for test in conditions]
            equal([True] * len(conditions), held)
    if column.name in names:
        domain = column.domain
        known = domain.categories[-1] if domain.categories else domain.maximum
        cells = {column.name: known} if known is not None or column.nullable else {}
        completer = model.synthesizer.completer(_KEY.tile(0, 0), CompletionOptions(64, 0.1))
        (completed,) = finish(completer.complete([cells], RowKeys(_KEY, 0, 0, 0)))
        equal(set(names), set(completed.cells))


def in_every_format(model: Model, columns: Mapping[str, ColumnArray], rows: int) -> dict[RowFormat, Any]:
    return {row_format: checked(model, columns, rows, row_format) for row_format in RowFormat}


def checked(model: Model, columns: Mapping[str, ColumnArray], rows: int, row_format: RowFormat) -> Any:
    """Return rows in a format, after reading them back."""
    encoder = make_encoder(row_format, model.schema, model.identities)
    batch = encoder.batch(columns, 0, rows)
    if isinstance(batch, TypedBatch):
        typed(model, batch)
        return batch
    data = encoder.header() + batch + encoder.end()
    names = list(model.schema.names)
    match row_format:
        case RowFormat.ARROW_STREAM:
            table = pa.ipc.open_stream(data).read_all()
            table.validate(full=True)
            equal((rows, names), (table.num_rows, table.column_names))
            for column in model.schema.columns:
                if table[column.name].null_count and not column.nullable:
                    raise AssertionError(f"a cell of {column.name!r} is missing")
        case RowFormat.CSV:
            header, *lines = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
            equal(names, header)
            equal([len(names)] * rows, [len(line) for line in lines])
        case _:
            objects = [json.loads(line, parse_constant=float.fromhex) for line in data.decode().split("\n")[:-1]]
            equal(rows, len(objects))
            for row in objects:
                equal(names, list(row))
                for column in model.schema.columns:
                    moment(column, row[column.name])
    return data


def moment(column: ColumnSpec, text: str | None) -> None:
    """Raise where a date or time is none of the years 1 to 9999, or not in the form of its column."""
    form = column.written_form.form
    if text is not None and isinstance(form, DatetimeForm) and form.pattern:
        read_cell(text, column)
        return
    if text is not None and column.data_type is DataType.DATE:
        date.fromisoformat(text)
    if text is not None and column.data_type is DataType.TIMESTAMP:
        datetime.fromisoformat(text)


def typed(model: Model, batch: TypedBatch) -> None:
    """Raise where a typed column is not as long as it must be, or an index lies outside the category list."""
    for column, cells in zip(model.schema.columns, batch.columns, strict=True):
        equal(batch.rows, len(cells.values))
        if cells.kind == "indices":
            top = max(1, len(column.domain.categories))
            equal([], [index for index in cells.values if not 0 <= index < top])


def refused(manifest: bytes, weights: bytes, words: str = "") -> None:
    """Read a model that must be refused; `words` must stand in the message."""
    found = read(manifest, weights)
    if not isinstance(found, Refused) or words not in found.message:
        raise AssertionError(f"not refused with {words!r}: {found}")


def sound(manifest: bytes, weights: bytes) -> None:
    """Read a model that must be sound."""
    found = read(manifest, weights)
    if not isinstance(found, Sound):
        raise AssertionError(f"refused: {found.message}")


@contextmanager
def raised(words: str = "") -> Iterator[None]:
    """Hold that `DataLossError` is raised within; `words` must stand in its message."""
    try:
        yield
    except DataLossError as error:
        if words not in error.message:
            raise AssertionError(f"{words!r} is not said, but {error.message!r}") from error
        return
    raise AssertionError("a damaged model was read")
