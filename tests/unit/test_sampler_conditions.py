"""Conditional rows are the unconditional ones that satisfy the conditions, no more and no less likely."""

import itertools

import numpy as np
import pytest
import safetensors.numpy

from rowmint.artifact import read_model
from rowmint.conditions import AnyOf, IsNull, Predicate, Range, canonical
from rowmint.rng import StreamKey
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema.arrays import ColumnArray, concatenate
from rowmint.synthesizer import choose_kernel, propose
from tests.golden.make import FAMILIES, SCHEMA, stored
from tests.seeds import seeded

ROWS = 20_000
WHERE = (
    Predicate("grade", AnyOf((1, -7))),
    Predicate("flag", IsNull(null=False)),
    Predicate("age", Range(minimum=15)),
)
COLUMNS = tuple(name for name in SCHEMA.names if name not in ("id", "badge"))


def rows_of(model, conditions, seed, accept=None):
    """Return 20,000 rows, drawn under conditions, or plainly and then rejected by the conditions `accept`."""
    plan = compile_plan(model.digest, model.synthesizer, conditions)
    source = RowSource(model, plan, seed, COLUMNS)
    parts = []
    count = number = 0
    while count < ROWS:
        columns = source.block(number, plan.block_size).columns
        if accept is not None:
            passed = np.logical_and.reduce([test.satisfied(columns[test.column]) for test in accept])
            columns = {name: array.take(np.flatnonzero(passed)) for name, array in columns.items()}
        parts.append(columns)
        count += len(columns["age"])
        number += 1
    joined = {name: concatenate([part[name] for part in parts]) for name in COLUMNS}
    return {name: array.take(slice(0, ROWS)) for name, array in joined.items()}


def binned(name: str, array: ColumnArray, edges) -> np.ndarray:
    """Return a small code for each cell, missing ones included."""
    if array.values.dtype == np.int32:
        return array.values.astype(int) + 1
    codes = np.searchsorted(edges[name], array.values) + 1
    return np.where(array.missing(), 0, codes)


def distance(left: np.ndarray, right: np.ndarray) -> float:
    """Return the total variation distance of two samples of codes."""
    size = max(left.max(), right.max()) + 1
    return float(np.abs(np.bincount(left, minlength=size) - np.bincount(right, minlength=size)).sum()) / (2 * ROWS)


@pytest.mark.parametrize("seeds", seeded((1, 2, 3, 4, 5), (11, 12, 13, 14, 15)))
@pytest.mark.parametrize("family", FAMILIES)
def test_conditional_rows_are_plainly_rejected_ones(family, seeds):
    model = read_model(*stored(family), choose_kernel("onnxruntime"))
    conditions = canonical(list(WHERE), model.schema)
    plain = [rows_of(model, (), seed, conditions) for seed in seeds[:4]]
    drawn = rows_of(model, conditions, seeds[4])
    for test in conditions:
        assert test.satisfied(drawn[test.column]).all()
    edges = {name: np.quantile(plain[0][name].values, [0.2, 0.4, 0.6, 0.8]) for name in COLUMNS}
    coded = [{name: binned(name, rows[name], edges) for name in COLUMNS} for rows in (*plain, drawn)]
    tables = [(name,) for name in COLUMNS] + list(itertools.combinations(COLUMNS, 2))

    def table(codes, names):
        return codes[names[0]] if len(names) == 1 else codes[names[0]] * 64 + codes[names[1]]

    own, other = [], []
    for names in tables:
        made = [table(codes, names) for codes in coded]
        own.append(max(distance(left, right) for left, right in itertools.combinations(made[:4], 2)))
        other.append(np.mean([distance(one, made[4]) for one in made[:4]]))
    # Every table as near as plain runs are to each other, up to noise where that is next to nothing.
    assert all(there <= max(1.5 * here, 0.01) for here, there in zip(own, other, strict=True))
    assert np.mean(other) <= 1.1 * np.mean(own)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_row_comes_twice_more_often(family):
    model = read_model(*stored(family), choose_kernel("onnxruntime"))
    conditions = canonical(list(WHERE), model.schema)

    def distinct(rows):
        return len(set(zip(*[rows[name].values.tolist() for name in ("ratio", "day", "seen", "city")], strict=True)))

    plain = distinct(rows_of(model, (), 1, conditions))
    assert distinct(rows_of(model, conditions, 2)) >= plain - ROWS // 100


def test_a_column_satisfies_the_condition_vector_of_its_candidate():
    model = read_model(*stored("ctgan"), choose_kernel("numpy"))
    arrays = safetensors.numpy.load(stored("ctgan")[1])
    proposal = propose(model.synthesizer, (), COLUMNS)
    key = StreamKey(model.digest, bytes(32), 3).tile(0, 0)
    found = proposal.candidates(key, 4096)
    made = proposal.finish(found, key).columns
    condition = found.latents["condition"]
    requested, slots = arrays["drivers.column"][condition], arrays["drivers.slot"][condition]
    for name in ("grade", "flag", "tier"):
        column = model.schema.column(name)
        own = np.flatnonzero(requested == model.schema.names.index(name))
        missing = len(column.domain.categories)  # the slot behind the categories'
        assert len(own) > 100
        assert np.where(slots[own] == missing, -1, slots[own]).tolist() == made[name].values[own].tolist()
