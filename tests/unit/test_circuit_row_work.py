"""The work of rows of known cells under circuits: its steps, its memory, and which cells that contradict count."""

import tracemalloc
from functools import cache, partial

import numpy as np
import pytest

from rowmint.codecs import CategoryCodec
from rowmint.errors import CancelledError
from rowmint.rng import StreamKey
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.arrays import column_cells
from rowmint.steps import finish
from rowmint.synthesizer import CompletionOptions, CompletionSupport, RowKeys, propose
from rowmint.synthesizer.circuit import row_pairs
from rowmint.synthesizer.circuit import rows as circuit_rows
from rowmint.synthesizer.circuit.row_pairs import PairSums
from rowmint.synthesizer.circuit.row_sums import WholeSums
from rowmint.synthesizer.circuit.row_tables import EdgeTables, RowTables
from rowmint.synthesizer.circuit.rows import CircuitRows
from rowmint.synthesizer.circuit.synthesizer import CircuitSynthesizer
from tests.circuits import CHAIN, JOINT, MIXED, STAR, CircuitMaker, MadeCircuit, tree_order, whole_rows

KEY = StreamKey(bytes(32), bytes(32), 5)
LONG_CHAIN = (-1, *range(15))
BINARY = (-1, *((child - 1) // 2 for child in range(1, 15)))
WIDE_STAR = (-1, *(0,) * 15)


@cache
def wide(parents, states=16, components=4, bins=48, pairs=6):
    """Return a synthesizer of categories, each a bin of its own."""
    rng = np.random.default_rng(3)

    def rows(count, length):
        return whole_rows(rng.standard_gamma(0.5, (count, length)) + 1e-9)

    domain = Domain(tuple(f"v{number}" for number in range(bins)), nullable=False)
    columns = [ColumnSpec(f"c{at}", ColumnKind.CATEGORICAL, DataType.STRING, domain) for at in range(len(parents))]
    codec = CategoryCodec(bins, bins, nullable=False, rare_weights=np.zeros(0, np.uint64))
    order = tree_order(parents)
    arrays = {"root": rows(1, states)[0]}
    for at in order:
        arrays[f"bins.{at}.of"] = np.arange(bins, dtype=np.uint16)
        arrays[f"bins.{at}.weights"] = np.full(bins, 1 << 24, np.uint32)
        arrays[f"emission.{at}"] = rows(states, bins)
        if at == order[0]:
            continue
        weights = rows(components * bins, pairs + 1).reshape(components, bins, pairs + 1)
        arrays |= {
            f"transition.{at}": rows(states, states),
            f"mixture.{at}": rows(states, components + 1),
            f"pairs.{at}.starts": (np.arange(bins + 1) * pairs).astype(np.uint32),
            f"pairs.{at}.bins": np.tile(np.arange(pairs) * (bins // pairs), bins).astype(np.uint16),
            f"pairs.{at}.weights": np.ascontiguousarray(weights[:, :, :-1].reshape(components, -1)),
            f"pairs.{at}.rest": np.ascontiguousarray(weights[:, :, -1]),
            f"backoff.{at}.group": (np.arange(bins) % 3).astype(np.uint16),
            f"backoff.{at}.weights": rows(3, bins),
        }
    network = {"states": states, "components": components, "parents": list(parents), "order": order, "derived": {}}
    made = MadeCircuit(TableSchema(tuple(columns)), (codec,) * len(parents), network, arrays)
    return CircuitSynthesizer.load(made.parts())


def rows_that_know(synthesizer, columns, count, seed=1):
    rng = np.random.default_rng(seed)
    categories = {name: head.column.domain.categories for name, head in synthesizer.heads.items()}
    names = [f"c{at}" for at in columns]
    return [{name: categories[name][rng.integers(len(categories[name]))] for name in names} for _ in range(count)]


def leaves(parents):
    return [at for at in range(len(parents)) if at not in parents]


def completer_of(synthesizer, stopped=lambda: False):
    return synthesizer.completer(KEY.tile(0, 0), CompletionOptions(256, 1, stopped))


@pytest.mark.parametrize("kept", [True, False], ids=["tables kept", "tables made each time"])
@pytest.mark.parametrize("maker", [CircuitMaker(7, CHAIN), CircuitMaker(8, STAR), CircuitMaker(9, MIXED)], ids=str)
def test_sums_over_listed_pairs_are_those_of_every_bin(maker, kept, monkeypatch):
    """sum_x P(x | z, x_p) * A(z, x) for every x_p, by pairs, and from the probabilities of all bins."""
    monkeypatch.setattr(row_pairs, "MOST_CELLS", 1 << 20 if kept else 0)
    rng = np.random.default_rng(2)
    for column in maker.make().circuit.columns.values():
        if column.edge is None:
            continue
        tables = EdgeTables(column, column.edge)
        parent_bins, states = len(column.edge.group), maker.states
        for width in (1, states):
            weights = rng.random((3, column.bins.count, width))
            found = tables.summed_everywhere(weights, WholeSums())
            for state in range(states):
                own = tables.emission.probabilities(np.full(parent_bins, state), np.arange(parent_bins))
                expected = weights[:, :, state % width] @ own.T
                np.testing.assert_allclose(found[:, :, state], expected, rtol=1e-12)


def test_kept_tables_of_pairs_change_no_byte(monkeypatch):
    rng = np.random.default_rng(2)
    (column,) = [one for one in wide(BINARY).circuit.columns.values() if one.position == 1]
    pair_weights = column.edge.pair_weights.T / float(1 << 24)
    mixture = column.edge.mixture / float(1 << 24)
    start, weights = rng.random((4, 48, 16)), rng.random((4, 48, 16))
    one = PairSums(column.edge, mixture, pair_weights).added(start, weights)
    monkeypatch.setattr(row_pairs, "MOST_CELLS", 0)
    other = PairSums(column.edge, mixture, pair_weights)
    assert one.tobytes() == other.added(start, weights).tobytes()
    assert one[2:3].tobytes() == other.added(start[2:3], weights[2:3]).tobytes()


@pytest.mark.parametrize("parents", [LONG_CHAIN, BINARY, WIDE_STAR], ids=["chain", "tree", "star"])
@pytest.mark.parametrize("which", ["leaves", "one", "half", "all"])
def test_rows_take_no_more_memory_than_is_counted(parents, which):
    synthesizer = wide(parents)
    columns = {
        "leaves": leaves(parents),
        "one": leaves(parents)[-1:],
        "half": list(range(0, len(parents), 2)),
        "all": list(range(len(parents))),
    }[which]
    rows = rows_that_know(synthesizer, columns, 256)
    scorer, completer, keys = synthesizer.scorer(lambda: False), completer_of(synthesizer), RowKeys(KEY, 0, 0, 0)
    for counted, work in (
        (synthesizer.scoring_bytes(rows[0]), scorer.score),
        (synthesizer.completion_bytes(rows[0], 256), lambda some: completer.complete(some, keys)),
    ):
        finish(work(rows[:1]))  # the model's own tables are made, and counted by it
        tracemalloc.start()
        try:
            finish(work(rows))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= counted


@cache
def decided(choices):
    """Return a synthesizer whose second, third and fifth column are derived from a joint column of many choices."""
    return CircuitSynthesizer.load(CircuitMaker(3, JOINT, zeros=0, joint=choices).make().parts())


def rows_of_derived(synthesizer, count):
    """Rows that know one or two of the derived columns, each cell of which stands for a share of all choices."""
    made = propose(synthesizer, (), ["c1", "c2"])
    key = KEY.tile(1, 0)
    columns = made.finish(made.candidates(key, count), key).columns
    one, two = (column_cells(columns[name], synthesizer.schema.column(name)) for name in ("c1", "c2"))
    pairs = enumerate(zip(one, two, strict=True))
    return [{"c1": cell} if place % 3 else {"c1": cell, "c2": other} for place, (cell, other) in pairs]


@pytest.mark.parametrize("work", ["score", "complete"])
def test_cells_that_stand_for_thousands_of_choices_take_no_more_memory_than_is_counted(work):
    synthesizer = decided(16384)
    rows, keys = rows_of_derived(synthesizer, 1024), RowKeys(KEY, 0, 0, 0)
    known = {"c1", "c2"}
    if work == "score":
        counted, run = synthesizer.scoring_bytes(known), synthesizer.scorer(lambda: False).score
    else:
        counted, run = synthesizer.completion_bytes(known, 256), partial(completer_of(synthesizer).complete, keys=keys)
    finish(run(rows[:1]))
    tracemalloc.start()
    try:
        finish(run(rows))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= counted < 256 << 20


def test_rows_are_the_same_in_however_many_pieces_they_are_worked_on(monkeypatch):
    synthesizer = decided(300)
    rows = rows_of_derived(synthesizer, 60)
    keys = RowKeys(KEY, 0, 5, 5)
    scores = finish(synthesizer.scorer(lambda: False).score(rows))
    done = finish(completer_of(synthesizer).complete(rows, keys))
    monkeypatch.setattr(circuit_rows, "_ALTERNATIVES", 1000)
    reader = CircuitRows(RowTables(synthesizer.circuit), tuple(synthesizer.heads.values()))
    pieces = list(reader.pieces(rows))
    assert len(pieces) > 2
    assert [place for piece in pieces for place in range(piece.start, piece.stop)] == list(range(60))
    again = finish(synthesizer.scorer(lambda: False).score(rows))
    assert again.log_probability.tobytes() == scores.log_probability.tobytes()
    assert finish(completer_of(synthesizer).complete(rows, keys)) == done


def test_memory_is_counted_by_what_is_held_of_each_column():
    long, short = (wide((-1, *range(size - 1)))._rows for size in (16, 8))
    kinds = {15: 1}
    kept = long._memory.of_row(kinds, kept=True)
    # A and S of eight columns more: of every bin and state.
    assert kept - short._memory.of_row({7: 1}, kept=True) == 8 * 2 * (48 * 16) * 8
    assert long._memory.of_row(kinds, kept=False) == short._memory.of_row({7: 1}, kept=False) < kept / 2
    assert long.most_bytes([], kept=True) == long.most_bytes(["elsewhere"], kept=True) == 0


def test_scores_are_made_in_steps_and_kept_nowhere():
    synthesizer = wide(BINARY)
    rows = rows_that_know(synthesizer, leaves(BINARY), 20)
    steps = synthesizer.scorer(lambda: False).score(rows)
    taken = sum(1 for _ in steps)
    assert taken >= len(BINARY)  # at least one a column: others take turns between
    known = synthesizer._rows.read(rows)
    evidence = synthesizer._rows.evidence(known, known.known)
    (part,) = synthesizer._rows.parts(evidence, np.arange(20), kept=False)
    for kept in (False, True):
        ((_, beliefs),) = finish(synthesizer._rows.believed(part, kept=kept))
        assert any(beliefs.at.values()) is kept


@pytest.mark.parametrize("columns", [leaves(BINARY), range(15)], ids=["leaves", "all"])
def test_work_that_is_stopped_ends_before_its_next_step(columns):
    synthesizer, keys = wide(BINARY), RowKeys(KEY, 0, 0, 0)
    rows = rows_that_know(synthesizer, columns, 6)
    for calls in (0, 1, 5):
        answers = iter(range(calls))
        steps = completer_of(synthesizer, lambda answers=answers: next(answers, None) is None).complete(rows, keys)
        assert sum(1 for _ in steps) == calls
        answers = iter(range(calls))
        scorer = synthesizer.scorer(lambda answers=answers: next(answers, None) is None)
        with pytest.raises(CancelledError):
            finish(scorer.score(rows))


@pytest.mark.parametrize("seed", range(6))
def test_of_cells_that_contradict_those_have_no_say_that_cannot_be_beside_earlier_ones(seed):
    """Many contradictions a row: the cells that count are found by going through the columns one by one."""
    maker = CircuitMaker(seed, (CHAIN, STAR, MIXED)[seed % 3], zeros=0.6, kinds=("category", "rare", "nullable"))
    synthesizer = CircuitSynthesizer.load(maker.make().parts())
    rng = np.random.default_rng(seed)
    rows = rows_that_know(synthesizer, range(len(maker.parents)), 40, seed)
    rows = [{name: cell for name, cell in row.items() if rng.random() < 0.8} for row in rows]
    rows[0] = dict.fromkeys(synthesizer.heads)  # missing everywhere, though some columns never are
    scorer, completer = synthesizer.scorer(lambda: False), completer_of(synthesizer)
    counted = [{} for _ in rows]
    for name in synthesizer.heads:
        tried = [{**own, name: row[name]} if name in row else own for own, row in zip(counted, rows, strict=True)]
        never = finish(scorer.score(tried)).impossible
        counted = [before if no else after for before, after, no in zip(counted, tried, never, strict=True)]
    assert max(len(row) - len(own) for row, own in zip(rows, counted, strict=True)) > 1
    done = finish(completer.complete(rows, RowKeys(KEY, 0, 0, 0)))
    alike = finish(completer.complete(counted, RowKeys(KEY, 0, 0, 0)))
    for row, own, one, other in zip(rows, counted, done, alike, strict=True):
        assert row.items() <= one.cells.items()
        assert (one.support is CompletionSupport.UNSUPPORTED) == (row != own)
        unknown = set(synthesizer.heads) - set(row)
        assert {name: one.cells[name] for name in unknown} == {name: other.cells[name] for name in unknown}
