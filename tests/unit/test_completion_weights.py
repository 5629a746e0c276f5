"""Weights of candidates for known cells: worked cases, a slow oracle, and rows of the model that match by chance."""

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rowmint.artifact import Model, read_model, write_model
from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.rng import StreamKey
from rowmint.schema import ColumnKind, DataType, TableSchema
from rowmint.schema.arrays import column_cells
from rowmint.steps import finish
from rowmint.synthesizer import CompletionOptions, CompletionSupport, RowKeys, choose_kernel, propose
from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.known_facts import KnownChoice
from rowmint.synthesizer.latent.evidence import ColumnEvidence
from tests.golden.make import column, generator, weights_of
from tests.seeds import seeded
from tests.unit.completion_oracle import Says, number_likelihood

NEVER = tables.UNREACHABLE


def codec_of(centers, widths, points=(), *, on_grid, bounds=(-1e6, 1e6)):
    return NumericCodec(
        on_grid=on_grid, origin=0, step=1, decimals=0, integral=on_grid, nullable=False, lower=bounds[0],
        upper=bounds[1], **{
            name: np.array(values, np.float64)
            for name, values in (("centers", centers), ("widths", widths), ("points", points))
        },
    )  # fmt: skip


def evidence_of(codec, says, noise=0.0):
    """Return the evidence of some candidates, each given by its distances and its scalar."""
    distances = np.array([one.distances for one in says], np.uint16).T
    masses = np.empty(distances.shape, np.int32)
    tables.falling_exponentials(distances, masses)
    return ColumnEvidence(
        codec, distances, masses.sum(axis=0, dtype=np.int32), np.array([one.alpha for one in says]), noise
    )


def likelihoods(codec, says, value, tolerance=0.1, noise=0.0, *, beyond=False):
    evidence = evidence_of(codec, says, noise)
    fact = codec.preimage(Fraction(value))
    return evidence.likelihood(fact, tolerance, np.arange(len(says)), beyond=beyond)


def spread_evenly(count, choices=2):
    """Return candidates whose scalars are spread evenly, and whose choices are equally probable."""
    return [Says((0,) * choices, (2 * index + 1) / count - 1) for index in range(count)]


@pytest.mark.parametrize("tolerance", [0.02, 0.1, 1.0])
def test_a_mode_counts_by_its_width(tolerance):
    """Modes at 0 of half-width 1 and 100: a known 0 is a hundred times as probable in the narrow one."""
    codec, says = codec_of([0, 0], [1, 100], on_grid=False), spread_evenly(4096)
    only = {mode: [Says((0, NEVER)[:: 1 - 2 * mode], one.alpha) for one in says] for mode in (0, 1)}
    narrow, wide = (likelihoods(codec, only[mode], 0, tolerance).sum() for mode in (0, 1))
    assert narrow / (narrow + wide) == pytest.approx(1 / (1 + 1 / 100), rel=1e-6)


def test_a_number_on_the_grid_counts_by_what_is_rounded_to_it():
    codec = codec_of([2.2], [0.3], on_grid=True)
    found = likelihoods(codec, [Says((0,), 0.9)], 2)
    # 2.47 becomes 2, as would anything from 1.5 to 2.5: 4 standard deviations of .0075 above the scalar's 2.47.
    assert found[0] == pytest.approx(0.99997, abs=5e-6)


def test_a_bound_counts_by_all_that_is_kept_within_it():
    codec = codec_of([0], [10], on_grid=False, bounds=(-2, 3))
    sigma = 0.025
    says = [Says((0,), 0.3), Says((0,), 0.32), Says((0,), -0.2), Says((0,), 0.0)]
    upper = [0.5, math.erfc(-0.02 / sigma / math.sqrt(2)) / 2, 0, 0]
    np.testing.assert_allclose(likelihoods(codec, says, 3), upper, rtol=1e-9)
    np.testing.assert_allclose(likelihoods(codec, says, -2), [0, 0, 0.5, 0], rtol=1e-9)
    # Beyond a bound nothing is decoded: the bound stands in.
    np.testing.assert_allclose(likelihoods(codec, says, 5), upper, rtol=1e-9)


def test_a_point_outweighs_the_density_around_it_and_adds_to_the_probability_on_a_grid():
    says = [Says((0, 0), 0.0), Says((0, 256), 0.0)]
    shares = [0.5, math.exp(-1) / (1 + math.exp(-1))]
    apart = codec_of([5], [10], [5], on_grid=False)
    np.testing.assert_allclose(likelihoods(apart, says, 5), shares, rtol=1e-5)
    grid = codec_of([5], [10], [5], on_grid=True)
    around = math.erf(0.5 / (10 * 0.025) / math.sqrt(2))
    expected = [share + (1 - share) * around for share in shares]
    np.testing.assert_allclose(likelihoods(grid, says, 5), expected, rtol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_noise_widens_the_kernel_and_keeps_its_mass(noise):
    codec = codec_of([0], [100], on_grid=True)
    total = sum(likelihoods(codec, [Says((0,), 0.25)], value, noise=noise)[0] for value in range(-1000, 1000))
    assert total == pytest.approx(1, abs=1e-8)


def test_choices_that_the_masses_cut_off_count_beyond():
    category = CategoryCodec(2, 2, nullable=False, rare_weights=np.zeros(0, np.uint64))
    evidence = evidence_of(category, [Says((0, 5000), 0), Says((0, 6000), 0), Says((0, NEVER), 0)])
    known, at = KnownChoice(1, 1.0), np.arange(3)
    assert evidence.likelihood(known, 0.1, at, beyond=False).tolist() == [0, 0, 0]
    np.testing.assert_allclose(
        evidence.likelihood(known, 0.1, at, beyond=True), [math.exp(-5000 / 256), math.exp(-6000 / 256), 0], rtol=1e-12
    )
    assert evidence.remoteness(known, 0.1).tolist() == [5000 / 256, 6000 / 256, math.inf]


reals = st.floats(-1e4, 1e4).filter(lambda number: number == 0 or abs(number) > 1e-6)
distance = st.sampled_from([0, 1, 100, 700, 3000, 5000, NEVER])


@st.composite
def known_numbers(draw):
    """Return a codec, candidates, a value that it decodes, a tolerance and a noise."""
    on_grid = draw(st.booleans())
    modes = draw(st.lists(st.tuples(reals, st.floats(0.01, 3e3)), min_size=1, max_size=3))
    points = draw(st.lists(st.integers(-20, 20), max_size=2, unique=True))
    low = draw(st.one_of(st.just(-2_000), st.integers(-20, 0)))
    high = draw(st.one_of(st.just(2_000), st.integers(0, 20)))
    codec = codec_of(*zip(*modes, strict=True), points, on_grid=on_grid, bounds=(low, high))
    says = []
    for _ in range(4):
        distances = [0, *(draw(distance) for _ in range(len(modes) + len(points) - 1))]
        says.append(Says(tuple(draw(st.permutations(distances))), draw(st.integers(-(2**23), 2**23)) / 2**23))
    near = round(modes[0][0] + modes[0][1] * says[0].alpha)
    value = draw(st.one_of(st.integers(-25, 25), st.just(near), *([] if on_grid else [reals])))
    value = min(max(value, low), high)
    tolerance = draw(st.sampled_from([0.02, 0.1, 1.0, 10.0]))
    return codec, says, Fraction(value), tolerance, draw(st.sampled_from([0.0, 0.05, 0.5]))


@given(known_numbers(), st.booleans())
def test_likelihoods_are_those_of_the_oracle(case, beyond):
    codec, says, value, tolerance, noise = case
    expected = [number_likelihood(codec, one, value, tolerance, noise, beyond=beyond) for one in says]
    found = likelihoods(codec, says, value, tolerance, noise, beyond=beyond)
    # Whether something lies within reach depends on the last bit where it lies at the edge.
    assume(((found == 0) == (np.array(expected) == 0)).all() or not at_the_edge(case))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def at_the_edge(case):
    """Say whether an end of the positions is at the edge of a scalar's reach."""
    codec, says, value, tolerance, noise = case
    sigma = math.sqrt((tolerance / 4) ** 2 + noise**2)
    half = 0.5 if codec.on_grid else 0.0
    deviates = [
        abs((float(value) + side - center) / width - one.alpha) / sigma
        for one in says
        for center, width in zip(codec.centers, codec.widths, strict=True)
        for side in (-half, half)
    ]
    return any(abs(deviate - 6) < 1e-9 for deviate in deviates)


NAMES = ("city", "age", "height")
SCHEMA = TableSchema(
    (
        column("city", ColumnKind.CATEGORICAL, DataType.STRING, categories=("a", "b", "c", "d"), nullable=True),
        column("age", ColumnKind.NUMERICAL, DataType.INT64, minimum=0, maximum=47),
        column("height", ColumnKind.NUMERICAL, DataType.DOUBLE, minimum=-9.0, maximum=9.0),
    )
)
CODECS = (
    CategoryCodec(4, 2, True, weights_of(np.array([3.0, 1.0]))),
    NumericCodec(True, 0, 1, 0, True, False, 0, 47, np.array([15.0, 40.0]), np.array([12.0, 15.0]), np.array([0.0])),
    NumericCodec(False, 0, 1, 0, False, False, -9, 9, np.array([-1.0, 3.0]), np.array([3.0, 2.0]), np.array([2.0])),
)
"""A lattice with an atom at its bound, and real numbers with a point within a mode."""


@cache
def model_of(family, kernel="numpy"):
    made = write_model(generator(family, SCHEMA, CODECS), {})
    return read_model(made.manifest, made.weights, choose_kernel(kernel))


@pytest.fixture(scope="module", params=["ctgan", "tvae"])
def model(request):
    return model_of(request.param)


def completer_of(model: Model, tile=0, seed=1, candidates=1024, tolerance=0.1):
    key = StreamKey(model.digest, bytes(32), seed).tile(tile, 0)
    return model.synthesizer.completer(key, CompletionOptions(candidates, tolerance))


def every_column(completer):
    """Return what each candidate says of each column, made for all columns together."""
    latent, group = completer._model, completer._model.every_column
    outputs = group.outputs(completer._activations).astype(int)
    said = {}
    for name, head in latent.heads.items():
        places = group.layout.outputs.tolist()
        logits = np.array([outputs[places.index(place)] for place in range(head.start + head.codec.scalar, head.stop)])
        distances = logits.max(axis=0) - logits
        own, choice = latent.clamped(completer._condition, head)
        distances[:, own] = NEVER
        distances[choice, own] = 0
        alpha = np.zeros(logits.shape[1])
        if head.codec.scalar:
            alpha = tables.tanh(outputs[places.index(head.start)].astype(np.int16)) / 2**23
        said[name] = [Says(tuple(one), real) for one, real in zip(distances.T.tolist(), alpha.tolist(), strict=True)]
    return said


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"city": "b"},
        {"city": None, "age": 31},
        {"city": "d", "age": 0, "height": 2.0},
        {"age": 47},
        {"height": -1.25, "age": 17},
    ],
    ids=str,
)
def test_weights_are_products_of_the_oracle(model, known):
    completer = completer_of(model)
    said = every_column(completer)
    scales = completer._model.noise_scale
    expected = np.ones(1024)
    for name, cell in known.items():
        codec = completer._model.heads[name].codec
        if name == "city":
            choice, share = {"b": (1, 1.0), "d": (2, 0.25), None: (3, 1.0)}[cell]
            expected *= [one.share(choice, beyond=False) * share for one in said[name]]
        else:
            noise = scales.get(name, 0) / 2**23
            expected *= [number_likelihood(codec, one, Fraction(cell), 0.1, noise) for one in said[name]]
    assert expected.any()
    found = completer.weights(known)
    assert (found.support, found.tolerance) == (CompletionSupport.MATCHED, 0.1)
    np.testing.assert_allclose(found.values, expected / expected.max(), rtol=1e-7, atol=1e-300)
    total, squares = expected.sum(), (expected**2).sum()
    assert found.effective_sample_size == pytest.approx(total**2 / squares, rel=1e-7)


@pytest.mark.parametrize("kernel", ["numpy", "onnxruntime"])
def test_the_kernel_does_not_matter(kernel):
    known = {"age": 31, "height": 1.5}
    one, two = (completer_of(model_of("tvae", name)) for name in ("numpy", kernel))
    assert one.weights(known).values.tobytes() == two.weights(known).values.tobytes()
    keys = RowKeys(StreamKey(bytes(32), bytes(32), 3), 0, 0, 0)
    assert finish(one.complete([known, {}], keys)) == finish(two.complete([known, {}], keys))


def test_an_unknown_column_is_made_as_for_all_candidates(model):
    """A column that is made for the chosen candidate alone is the one that all candidates would give it."""
    completer = completer_of(model)
    every = every_column(completer)
    keys = RowKeys(StreamKey(model.digest, bytes(32), 8), 0, 0, 0)
    for row, done in enumerate(finish(completer.complete([{}] * 200, keys))):
        key = keys.of(row)
        head = completer._model.heads["city"]
        says = every["city"][done.chosen]
        running = np.cumsum([0 if d == NEVER else round(2**18 * math.exp(-d / 256)) for d in says.distances])
        choice = int(np.searchsorted(running, int(head.choice_words(key, 1)[0]) * int(running[-1]) >> 32, "right"))
        assert done.cells["city"] in {0: {"a"}, 1: {"b"}, 2: {"c", "d"}, 3: {None}}[choice]


ROWS = 1 << 18
TILE = 4096
GROUPS, GROUP_ROWS = 12, 100


@cache
def rows_of(family, seed):
    """Return many rows of the model itself, by column."""
    model = model_of(family)
    proposal = propose(model.synthesizer, [], NAMES)
    key = StreamKey(model.digest, bytes(32), seed)
    parts = {name: [] for name in NAMES}
    for tile in range(ROWS // TILE):
        made = proposal.finish(proposal.candidates(key.tile(0, tile), TILE), key.tile(1, tile)).columns
        for name in NAMES:
            parts[name] += column_cells(made[name], SCHEMA.column(name))
    return [dict(zip(NAMES, row, strict=True)) for row in zip(*parts.values(), strict=True)]


def matching(family, known, seed):
    """Return the model's own rows that have the known cells by chance."""
    return [row for row in rows_of(family, seed) if all(row[name] == cell for name, cell in known.items())]


def completions(family, known, seed, tolerance):
    """Return completed rows of many groups."""
    model = model_of(family)
    key = StreamKey(model.digest, bytes(32), seed)
    for group in range(GROUPS):
        completer = completer_of(model, group, seed, 4096, tolerance)
        yield from finish(completer.complete([known] * GROUP_ROWS, RowKeys(key, group, 0, group * GROUP_ROWS)))


def coarse(row, known):
    """Return the unknown cells of a row by coarse values, so that joint distributions can be compared."""
    binned = {"city": row["city"], "age": round(row["age"] / 8), "height": round(row["height"] / 1.5)}
    return tuple(cell for name, cell in binned.items() if name not in known)


@pytest.mark.parametrize("seed", seeded(11, 12, 13))
@pytest.mark.parametrize("known", [{"age": 12}, {"age": 47}, {"height": 2.0}, {"city": "c", "age": 36}], ids=str)
@pytest.mark.parametrize("family", ["ctgan", "tvae"])
def test_completed_rows_are_distributed_as_rows_that_match_by_chance(family, known, seed):
    by_chance = Counter(coarse(row, known) for row in matching(family, known, seed))
    done = list(completions(family, known, seed, tolerance=0.02))
    assert {row.support for row in done} == {CompletionSupport.MATCHED}
    completed = Counter(coarse(row.cells, known) for row in done)
    distance = sum(
        abs(by_chance[each] / by_chance.total() - completed[each] / len(done)) for each in by_chance | completed
    )
    # The mean of the distance of samples, and what it passes once in a thousand (McDiarmid's inequality).
    effective = sum(row.effective_sample_size for row in done[::GROUP_ROWS])
    size = 1 / (1 / by_chance.total() + 1 / len(done) + 1 / effective)
    assert by_chance.total() > 300
    bins = len(by_chance | completed)
    assert distance / 2 < 0.5 * math.sqrt(bins / size) + math.sqrt(math.log(1000) / (2 * size))


def correlation(rows):
    return np.corrcoef(np.array([(row["age"], row["height"]) for row in rows], float).T)[0, 1]


@pytest.mark.parametrize("seed", seeded(21, 22, 23))
@pytest.mark.parametrize("family", ["ctgan", "tvae"])
def test_unknown_columns_keep_their_correlation(family, seed):
    by_chance = matching(family, {"city": "b"}, seed)
    completed = [row.cells for row in completions(family, {"city": "b"}, seed, tolerance=0.1)]
    assert abs(correlation(completed) - correlation(by_chance)) < 4 / math.sqrt(len(completed))


def clamped_model(choice=0):
    """Return a model whose every candidate is clamped to one choice of the city, and whose ages may be far off."""
    wide = [CODECS[0], replace(CODECS[1], upper=1e9), CODECS[2]]
    fitted = generator("ctgan", SCHEMA, wide)
    weights = np.where(fitted.arrays["drivers.slot"] == choice, np.uint64(1 << 32), np.uint64(0))
    made = write_model(replace(fitted, arrays={**fitted.arrays, "drivers.weights": weights}), {})
    return read_model(made.manifest, made.weights, choose_kernel("numpy"))


@pytest.mark.parametrize("known", [{"city": "b"}, {"age": 10**7}, {"city": "b", "age": 10**7}], ids=str)
def test_what_no_candidate_can_have_is_said_to_have_no_support(known):
    completer = completer_of(clamped_model())
    found = completer.weights(known)
    assert (found.support, found.effective_sample_size) == (CompletionSupport.UNSUPPORTED, 0)
    assert found.tolerance == 0.1 * 256
    assert found.values.max() == 1


def test_those_that_come_nearest_are_used_where_none_agrees():
    completer = completer_of(clamped_model())
    alpha = np.array([one.alpha for one in every_column(completer)["age"]])
    # What the clamped city can never be is left out; the number, far above both modes, prefers what reaches highest.
    found = completer.weights({"city": "b", "age": 10**7})
    assert (found.values == completer.weights({"age": 10**7}).values).all()
    assert alpha[np.argmax(found.values)] == alpha.max()
    assert not np.array_equal(found.values, np.ones(1024))


def test_the_kernel_is_widened_until_a_candidate_agrees():
    completer = completer_of(clamped_model(), tolerance=0.02)
    known = {"age": 30 + round(15 * 1.9)}  # above all scalars of both modes
    found = completer.weights(known)
    assert found.support is CompletionSupport.WIDENED
    assert found.tolerance > 0.02
    halved = completer_of(clamped_model(), tolerance=found.tolerance / 2)
    assert halved.weights(known).tolerance == found.tolerance
    at_once = completer_of(clamped_model(), tolerance=found.tolerance).weights(known)
    assert at_once.effective_sample_size == pytest.approx(found.effective_sample_size)


def test_a_value_that_is_never_decoded_is_compared_by_the_nearest_one_and_said_to_be_widened():
    completer = completer_of(model_of("tvae"))
    beyond, bound = completer.weights({"age": 70}), completer.weights({"age": 47})
    assert (beyond.support, bound.support) == (CompletionSupport.WIDENED, CompletionSupport.MATCHED)
    assert (beyond.values == bound.values).all()
