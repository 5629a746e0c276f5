"""Rows of known cells under small circuits, scored and completed, against every configuration of choices."""

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest

from rowmint.codecs import NumericCodec
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.rng import StreamKey
from rowmint.schema.arrays import column_cells
from rowmint.steps import finish
from rowmint.synthesizer import CompletionOptions, CompletionSupport, RowKeys
from rowmint.synthesizer.circuit.row_messages import row_beliefs
from rowmint.synthesizer.circuit.row_sums import SlicedSums, WholeSums
from rowmint.synthesizer.circuit.row_tables import row_tables_bytes
from rowmint.synthesizer.circuit.rows import CircuitRows
from rowmint.synthesizer.circuit.sliced import Sliced
from rowmint.synthesizer.circuit.synthesizer import CircuitSynthesizer
from rowmint.synthesizer.circuit.tree import Circuit, Edge, TreeColumn
from tests.circuits import CHAIN, JOINT, MIXED, STAR, CircuitMaker
from tests.unit.circuit_oracle import chi_square_deviations
from tests.unit.row_oracle import RowOracle

TREES = {"chain": CHAIN, "star": STAR, "mixed": MIXED}
SHAPES = [(1, CHAIN, 0.2), (2, STAR, 0.2), (3, MIXED, 0.2), (4, MIXED, 0.5), (5, MIXED, 0.0)]
JOINED = CircuitMaker(6, JOINT, bins=3, states=2, joint=6)
MAKERS = [
    *(CircuitMaker(seed, parents, bins=3, states=2, zeros=zeros) for seed, parents, zeros in SHAPES),
    JOINED,
]


@cache
def oracle_of(maker):
    return RowOracle(maker.make())


@cache
def synthesizer_of(maker):
    return CircuitSynthesizer.load(oracle_of(maker).made.parts())


def cell_of(head, choice, rng):
    """Return a cell that a choice decodes to."""
    choices = np.array([choice])
    alpha = rng.integers(-ALPHA_ONE, ALPHA_ONE, 1) if head.codec.scalar else None
    words = rng.integers(1 << 32, size=1).astype(np.uint64)
    (cell,) = column_cells(head.decode(choices, alpha, words), head.column)
    return cell


def some_rows(maker, count, seed=0, most=None):
    """Return rows that the circuit may make, of each some cells: from none to all."""
    oracle, rng = oracle_of(maker), np.random.default_rng(seed)
    configurations = list(oracle.choices)
    rows = []
    for number in range(count):
        at = dict(zip(oracle.order, configurations[rng.integers(len(configurations))], strict=True))
        row = {
            name: cell_of(head, oracle.choice(at, position), rng)
            for position, (name, head) in enumerate(oracle.made.heads.items())
        }
        names = rng.permutation(oracle.names)[: number % (len(oracle.names) + 1)]
        rows.append({name: row[name] for name in oracle.names if name in set(names[:most])})
    return rows


@pytest.mark.parametrize("maker", MAKERS, ids=str)
def test_scores_are_those_of_every_configuration(maker):
    rows = some_rows(maker, 60)
    scores = finish(synthesizer_of(maker).scorer(lambda: False).score(rows))
    for row, score, impossible in zip(rows, scores.log_probability, scores.impossible, strict=True):
        total, _ = oracle_of(maker).posterior(row)
        assert not impossible
        assert score == pytest.approx(math.log(total), abs=1e-9), row


@pytest.mark.parametrize("maker", MAKERS, ids=str)
def test_scores_give_the_posterior_of_one_unknown_cell_and_of_two(maker):
    """P(cell | known) and P(two cells | known), as ratios, are those that Bayes' rule gives."""
    oracle = oracle_of(maker)
    scorer = synthesizer_of(maker).scorer(lambda: False)
    for row in some_rows(maker, 14, seed=1, most=3):
        _, posterior = oracle.posterior(row)
        at = dict(zip(oracle.order, max(posterior, key=posterior.get), strict=True))
        unknown = [name for name in oracle.names if name not in row]
        rng = np.random.default_rng(5)
        cells = {
            name: cell_of(oracle.made.heads[name], oracle.choice(at, oracle.names.index(name)), rng) for name in unknown
        }
        pairs = [(name, other) for name in unknown for other in unknown if name <= other]
        more = [{**row, name: cells[name], other: cells[other]} for name, other in pairs]
        scores = finish(scorer.score([row, *more])).log_probability
        for (name, other), score in zip(pairs, scores[1:], strict=True):
            laws = {oracle.names.index(each): oracle.law(each, cells[each]) for each in {name, other}}
            expected = 0.0
            for choices, chance in posterior.items():
                own = dict(zip(oracle.order, choices, strict=True))
                expected += chance * math.prod(law[oracle.choice(own, each)] for each, law in laws.items())
            assert math.exp(score - scores[0]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("maker", MAKERS, ids=str)
def test_completed_cells_follow_the_posterior(maker):
    """Chi-square of the joint choices of all unknown columns, for several patterns of known ones; fixed seeds."""
    oracle, synthesizer = oracle_of(maker), synthesizer_of(maker)
    deviations = []
    for number, row in enumerate(some_rows(maker, 8, seed=2, most=4)):
        _, posterior = oracle.posterior(row)
        unknown = [name for name in oracle.names if name not in row]
        laws = Counter()
        for choices, chance in posterior.items():
            at = dict(zip(oracle.order, choices, strict=True))
            for combination, share in cells_of(oracle, at, unknown):
                laws[combination] += chance * share
        completer = synthesizer.completer(StreamKey(bytes(32), bytes(32), number).tile(0, 0), CompletionOptions(256, 1))
        count = 4096
        done = finish(completer.complete([row] * count, RowKeys(StreamKey(bytes(32), bytes(32), number), 0, 0, 0)))
        assert {one.support for one in done} == {CompletionSupport.MATCHED}
        assert all(row.items() <= one.cells.items() for one in done)
        found = Counter(tuple(coarse(oracle, name, one.cells[name]) for name in unknown) for one in done)
        assert set(found) <= set(laws)
        square, freedom, rest, expected_rest = 0.0, -1, count, float(count)
        for outcome, chance in laws.items():
            expected = chance * count
            if expected >= 5:
                square += (found[outcome] - expected) ** 2 / expected
                freedom += 1
                rest, expected_rest = rest - found[outcome], expected_rest - expected
        if expected_rest >= 5:
            square, freedom = square + (rest - expected_rest) ** 2 / expected_rest, freedom + 1
        if freedom > 0:
            deviations.append(chi_square_deviations(square, freedom))
    assert max(deviations) < 4, deviations


def coarse(oracle, name, cell):
    """Return what is compared of a cell: a category itself, of a number whether it is below the middle."""
    codec = oracle.made.heads[name].codec
    if cell is None or not isinstance(codec, NumericCodec):
        return cell
    return cell < middle(oracle, name)


def middle(oracle, name):
    domain = oracle.made.heads[name].column.domain
    return (domain.minimum + domain.maximum) / 2


@cache
def coarse_law(oracle, name, choice):
    """Return the probability of what is compared of a cell, by its column's choice; about, of numbers in pieces."""
    head = oracle.made.heads[name]
    codec = head.codec
    if isinstance(codec, NumericCodec):
        alpha = np.arange(-ALPHA_ONE, ALPHA_ONE, 2**10) + 2**9
        cells = column_cells(
            head.decode(np.full(len(alpha), choice), alpha if codec.scalar else None, None), head.column
        )
        found = Counter(coarse(oracle, name, cell) for cell in cells)
        return [(outcome, number / len(alpha)) for outcome, number in found.items()]
    words = (np.arange(2**14, dtype=np.uint64) << np.uint64(18)) + np.uint64(2**17)
    cells = column_cells(head.decode(np.full(len(words), choice), None, words), head.column)
    return [(cell, number / len(words)) for cell, number in Counter(cells).items()]


def cells_of(oracle, at, names):
    """Yield what may be compared of some columns, where the choices of the tree's are given, and its probability."""
    outcomes = [((), 1.0)]
    for name in names:
        law = coarse_law(oracle, name, oracle.choice(at, oracle.names.index(name)))
        outcomes = [((*before, own), share * chance) for before, share in outcomes for own, chance in law]
    return outcomes


def complete(maker, rows, first=0, seed=9):
    completer = synthesizer_of(maker).completer(
        StreamKey(bytes(32), bytes(32), seed).tile(0, 0), CompletionOptions(256, 1)
    )
    return finish(completer.complete(rows, RowKeys(StreamKey(bytes(32), bytes(32), seed), 0, first, first)))


@pytest.mark.parametrize("maker", MAKERS, ids=str)
def test_a_row_alone_is_what_it_is_among_others(maker):
    rows = some_rows(maker, 40, seed=3)
    together = complete(maker, rows)
    scorer = synthesizer_of(maker).scorer(lambda: False)
    scores = finish(scorer.score(rows)).log_probability
    assert [complete(maker, [row], first)[0] for first, row in enumerate(rows)] == list(together)
    assert [finish(scorer.score([row])).log_probability[0] for row in rows] == scores.tolist()
    shuffled = [rows[index] for index in (5, 0, 7, 7, 5)]
    assert finish(scorer.score(shuffled)).log_probability.tolist() == scores[[5, 0, 7, 7, 5]].tolist()


@pytest.mark.parametrize("maker", MAKERS, ids=str)
def test_sums_that_cut_off_and_those_that_do_not_agree(maker):
    synthesizer = synthesizer_of(maker)
    reader = synthesizer._rows
    assert isinstance(reader, CircuitRows)
    rows = some_rows(maker, 40, seed=4)
    known = reader.read(rows)
    evidence = reader.evidence(known, known.known)
    for part in reader.parts(evidence, np.arange(len(rows)), kept=True):
        sliced, whole = (
            finish(row_beliefs(reader.tables, part.known, len(part.rows), sums, kept=True))
            for sums in (SlicedSums(), WholeSums())
        )
        exact = whole.probability * np.exp2(whole.exponent - sliced.exponent)
        assert np.all(np.abs(sliced.probability - exact) <= sliced.error * exact + 1e-15)
        for own, found in finish(reader.believed(part, kept=False)):
            at = np.searchsorted(part.rows, own.rows)
            probability = found.probability * np.exp2(found.exponent - sliced.exponent[at])
            np.testing.assert_allclose(probability, exact[at], rtol=1e-10)


def test_known_derived_cells_are_evidence_on_the_column_they_derive_from():
    """Rows that know the derived column, with and without the one it derives from."""
    maker = MAKERS[2]
    oracle = oracle_of(maker)
    derived, of = oracle.names[4], oracle.names[oracle.circuit.derived[4].of]
    seen = {}
    for row in some_rows(maker, 400, seed=6):
        for names in ((derived,), (derived, of)):
            if row.keys() >= set(names):
                own = {name: row[name] for name in names}
                seen[str(own)] = own
    rows = list(seen.values())
    assert {len(row) for row in rows} == {1, 2}
    scores = finish(synthesizer_of(maker).scorer(lambda: False).score(rows)).log_probability
    np.testing.assert_allclose(np.exp(scores), [oracle.posterior(row)[0] for row in rows], rtol=1e-9)


def test_known_cells_of_a_joint_column_decide_the_others_that_go_with_them():
    """Of the combinations that have a known choice each, by weight; all of a number's choices count."""
    oracle = oracle_of(JOINED)
    names = [oracle.names[position] for position in oracle.circuit.derived]
    rows = [{name: row[name] for name in names if name in row} for row in some_rows(JOINED, 120, seed=10)]
    assert {frozenset(row) for row in rows} >= {frozenset(own) for own in ({}, names, names[:1], names[1:])}
    scores = finish(synthesizer_of(JOINED).scorer(lambda: False).score(rows))
    np.testing.assert_allclose(np.exp(scores.log_probability), [oracle.posterior(row)[0] for row in rows], rtol=1e-9)
    for row, done in zip(rows, complete(JOINED, rows), strict=True):
        assert done.support == CompletionSupport.MATCHED, row
        assert oracle.posterior({name: done.cells[name] for name in names})[0] > 0


def contradiction(maker):
    """Return a row whose derived cell does not fit the one that it derives from, or that derives from the same."""
    oracle = oracle_of(maker)
    of = oracle.circuit.derived[4].of
    names = (oracle.names[4], oracle.names[of if of < len(oracle.names) else 2])
    rows = [row for row in some_rows(maker, 200, seed=7) if row.keys() & set(names)]
    for row in rows:
        for other in rows:
            both = {**row, **{name: other[name] for name in names if name in other}}
            if both.keys() >= set(names) and not oracle.posterior(both)[0]:
                return both
    raise AssertionError("there is none")


@pytest.mark.parametrize("maker", [MAKERS[2], JOINED], ids=str)
def test_cells_that_contradict_each_other_are_kept_and_the_later_one_has_no_say(maker):
    oracle = oracle_of(maker)
    row = contradiction(maker)
    scores = finish(synthesizer_of(maker).scorer(lambda: False).score([row, {}]))
    assert (scores.impossible.tolist(), scores.log_probability.tolist()) == ([True, False], [0.0, 0.0])
    counted = {}
    for name in oracle.names:
        if name in row and oracle.posterior({**counted, name: row[name]})[0]:
            counted[name] = row[name]
    assert counted != row
    rows = [row] * 30
    for done, like in zip(complete(maker, rows), complete(maker, [counted] * 30), strict=True):
        assert (done.support, done.effective_sample_size) == (CompletionSupport.UNSUPPORTED, 0.0)
        assert row.items() <= done.cells.items()
        unknown = set(oracle.names) - set(row)
        assert {name: done.cells[name] for name in unknown} == {name: like.cells[name] for name in unknown}


def test_a_number_that_never_occurs_counts_as_the_nearest():
    maker = MAKERS[2]
    name = oracle_of(maker).names[1]  # 10, 13, 16, ... 70
    done = complete(maker, [{name: 35}, {name: 34}] * 20)
    assert {one.support for one in done[::2]} == {CompletionSupport.WIDENED}
    assert {one.support for one in done[1::2]} == {CompletionSupport.MATCHED}
    assert {one.effective_sample_size for one in done} == {256.0}
    assert {one.cells[name] for one in done[::2]} == {35}
    moved, nearest = (complete(maker, [{name: number}] * 20) for number in (35, 34))
    others = [other for other in oracle_of(maker).names if other != name]
    assert [[one.cells[other] for other in others] for one in moved] == [
        [one.cells[other] for other in others] for one in nearest
    ]
    assert finish(synthesizer_of(maker).scorer(lambda: False).score([{name: 35}])).impossible.tolist() == [True]


def test_a_completion_that_is_stopped_gives_no_part_of_a_batch():
    synthesizer = synthesizer_of(MAKERS[2])
    key = StreamKey(bytes(32), bytes(32), 1)
    rows = some_rows(MAKERS[2], 20)
    for calls in range(2):
        answers = iter(range(calls))
        options = CompletionOptions(256, 1, lambda answers=answers: next(answers, None) is None)
        assert finish(synthesizer.completer(key.tile(0, 0), options).complete(rows, RowKeys(key, 0, 0, 0))) == ()


def test_a_conflict_of_what_is_known_is_computed_without_cuts(monkeypatch):
    """Where sums that cut off say that a row may be wrong, the row is computed again; and it is what it was."""
    maker = MAKERS[2]
    rows = some_rows(maker, 30, seed=8)
    scorer = synthesizer_of(maker).scorer(lambda: False)
    before = finish(scorer.score(rows)).log_probability
    monkeypatch.setattr("rowmint.synthesizer.circuit.rows._MOST_ERROR", -1.0)
    np.testing.assert_allclose(finish(scorer.score(rows)).log_probability, before, rtol=1e-12)


def test_the_order_of_summation_does_not_matter():
    """Whatever order a BLAS adds in: rows and columns of weights permuted together give the same bytes."""
    rng = np.random.default_rng(4)
    weights = rng.integers(0, 1 << 18, (9, 64)).astype(np.float64)
    values = rng.random((64, 33)) * np.exp2(rng.integers(-60, 0, (64, 33)))
    expected = Sliced.of(values, 3).products(weights)
    for _ in range(5):
        order = rng.permutation(64)
        assert Sliced.of(values[order], 3).products(weights[:, order]).tobytes() == expected.tobytes()
    np.testing.assert_allclose(expected, WholeSums().of_rows(weights, values.T).T, rtol=1e-14)
    assert np.ascontiguousarray(SlicedSums().of_rows(weights, values.T).T).tobytes() == expected.tobytes()
    for sums in (SlicedSums(), WholeSums()):
        one = np.ascontiguousarray(sums.of_rows(weights, values.T).T).tobytes()
        stack = np.stack([values] * 3)
        found = [*sums.products(weights, stack), *sums.products(np.stack([weights] * 3), stack)]
        assert [each.tobytes() for each in found] == [one] * 6


def test_rows_are_summed_alike_however_many_there_are():
    rng = np.random.default_rng(5)
    weights = rng.integers(0, 1 << 18, (64, 64)).astype(np.float64)
    values = rng.random((700, 64)) * np.exp2(rng.integers(-60, 0, (700, 64)))
    values[3] = 0.0
    found = SlicedSums().of_rows(weights, values)
    assert found[3].tobytes() == bytes(8 * 64)
    assert [SlicedSums().of_rows(weights, row[None])[0].tobytes() for row in values[::50]] == [
        row.tobytes() for row in found[::50]
    ]


def array_bytes(value, seen):
    """Return the bytes of the arrays that a value holds, each counted once, but for the circuit's own."""
    if id(value) in seen or isinstance(value, TreeColumn | Edge | Circuit):
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.nbytes if value.base is None else array_bytes(value.base, seen)
    members = value.values() if isinstance(value, dict) else getattr(value, "__dict__", {}).values()
    return sum(array_bytes(member, seen) for member in members)


@pytest.mark.parametrize("maker", MAKERS[:3], ids=str)
def test_tables_take_the_memory_that_is_counted(maker):
    synthesizer = synthesizer_of(maker)
    rows = some_rows(maker, 60)
    complete(maker, rows)
    finish(synthesizer.scorer(lambda: False).score(rows))
    size = array_bytes(synthesizer._rows.tables, set())
    assert size <= row_tables_bytes(synthesizer.circuit) <= 2 * size
    assert synthesizer.memory_bytes > row_tables_bytes(synthesizer.circuit)
