"""Rows are what the model says they are: conditional like rejected ones, marginals true, completions informed.

All seeds are fixed, the training's included, so a result repeats on every run of the same code. `make test-full` adds
two more sets of seeds.
"""

import collections
import io
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

from rowmint.client import Client
from tests.acceptance.distances import Bins, duplicates, ranking_quality, table_distances
from tests.acceptance.processes import Services, customers_csv
from tests.seeds import seeded

FAMILIES = {
    "ctgan": {
        "epochs": 15,
        "batch_size": 200,
        "pac": 1,
        "generator_dim": [64, 64],
        "discriminator_dim": [64, 64],
        "generator_lr": 1e-3,
        "discriminator_lr": 1e-3,
    },
    "tvae": {"epochs": 12, "batch_size": 200},
    "independent": {},
}
LEARNED = ["ctgan", "tvae"]
WHERE = {
    "a category": {"city": "Hanoi"},
    "two categories": {"city": "Quito", "plan": "pro"},
    "a range and a category": {"plan": "plus", "age": (40, 55)},
}
ROWS = 20_000
TRAINED = 8_000
# Nearly three standard deviations of the distance between two samples of one column with two equally frequent values,
# sqrt(2 * 0.25 / ROWS) = 0.005: the fewer the cells, the more often two plain runs happen to lie close together.
FLOOR = 2 / ROWS**0.5
MANY = 100_000


@dataclass(frozen=True)
class Seeds:
    """Seeds of one run of all tests of this module.

    Attributes:
        training: Of the fits.
        many: Of the rows whose marginals are compared with the data's.
        plain: Of two unconditional streams.
        conditional: Of the conditional streams.
    """

    training: int
    many: int
    plain: tuple[int, int]
    conditional: int


SEEDS = seeded(
    Seeds(training=11, many=3, plain=(101, 102), conditional=7),
    Seeds(training=12, many=4, plain=(103, 104), conditional=8),
    Seeds(training=13, many=5, plain=(105, 106), conditional=9),
)


@pytest.fixture(scope="module", params=SEEDS)
def seeds(request: pytest.FixtureRequest) -> Seeds:
    return request.param


@pytest.fixture(scope="module")
def client(shared_services: Services):
    with Client(shared_services.started[0].address, shared_services.started[1].address) as found:
        yield found


@pytest.fixture(scope="module")
def real() -> pa.Table:
    return pyarrow.csv.read_csv(io.BytesIO(customers_csv(TRAINED)))


@pytest.fixture(scope="module")
def dataset(client: Client) -> str:
    return client.upload(customers_csv(TRAINED), "quality", format="csv", primary_key="customer")


@pytest.fixture(scope="module")
def versions(client: Client, dataset: str, seeds: Seeds) -> dict[str, str]:
    jobs = {
        family: client.train(dataset, f"quality-{family}", family=family, seed=seeds.training, threads=1, **settings)
        for family, settings in FAMILIES.items()
    }
    return {family: client.wait_job(job).model_version for family, job in jobs.items()}


@pytest.fixture(scope="module")
def many(client: Client, versions: dict[str, str], seeds: Seeds) -> dict[str, pa.Table]:
    return {family: client.sample(version, MANY, seed=seeds.many).to_table() for family, version in versions.items()}


@dataclass(frozen=True)
class PlainRun:
    """An unconditional stream.

    Attributes:
        first: Its first rows.
        satisfying: The first `ROWS` rows that satisfy each condition, by its name.
    """

    first: pa.Table
    satisfying: dict[str, pa.Table]


def satisfies(table: pa.Table | pa.RecordBatch, where: dict[str, object]) -> pa.Array | pa.ChunkedArray:
    passed = []
    for name, test in where.items():
        if isinstance(test, tuple):
            passed += [pc.greater_equal(table[name], test[0]), pc.less_equal(table[name], test[1])]
        else:
            passed.append(pc.equal(table[name].cast(pa.string()), test))
    kept = passed[0]
    for one in passed[1:]:
        kept = pc.and_(kept, one)
    return pc.fill_null(kept, False)


def plain_run(client: Client, version: str, seed: int) -> PlainRun:
    first: list[pa.RecordBatch] = []
    kept: dict[str, list[pa.RecordBatch]] = {name: [] for name in WHERE}
    counts = dict.fromkeys(WHERE, 0)
    with client.sample(version, 10**8, seed=seed) as stream:
        for batch in stream:
            if sum(map(len, first)) < ROWS:
                first.append(batch)
            for name, where in WHERE.items():
                if counts[name] < ROWS:
                    kept[name].append(batch.filter(satisfies(batch, where)))
                    counts[name] += len(kept[name][-1])
            if min(counts.values()) >= ROWS:
                break
    satisfying = {name: pa.Table.from_batches(pieces).slice(0, ROWS) for name, pieces in kept.items()}
    return PlainRun(pa.Table.from_batches(first).slice(0, ROWS), satisfying)


@pytest.fixture(scope="module")
def plain(client: Client, versions: dict[str, str], seeds: Seeds) -> dict[str, tuple[PlainRun, PlainRun]]:
    one, other = seeds.plain
    return {
        family: (plain_run(client, versions[family], one), plain_run(client, versions[family], other))
        for family in LEARNED
    }


def modelled(table: pa.Table) -> pa.Table:
    """Leave out the key, which is made, not modelled."""
    return table.drop_columns(["customer"])


def too_far(rows: pa.Table, one: pa.Table, other: pa.Table) -> dict[tuple[str, ...], tuple[float, float]]:
    """Return the tables in which `rows` is further from a plain run than allowed, each with both distances."""
    bins = Bins(one, modelled(one).column_names)
    ours, theirs = table_distances(bins, rows, one), table_distances(bins, one, other)
    return {name: (ours[name], theirs[name]) for name in ours if ours[name] > 1.5 * theirs[name] + FLOOR}


@pytest.mark.parametrize("condition", list(WHERE))
@pytest.mark.parametrize("family", LEARNED)
def test_conditional_rows_are_like_rejected_ones(
    *,
    client: Client,
    versions: dict[str, str],
    plain: dict[str, tuple[PlainRun, PlainRun]],
    seeds: Seeds,
    family: str,
    condition: str,
) -> None:
    rows = client.sample(versions[family], ROWS, seed=seeds.conditional, where=WHERE[condition]).to_table()
    one, other = (run.satisfying[condition] for run in plain[family])
    assert len(rows) == len(one) == len(other) == ROWS
    assert pc.all(satisfies(rows, WHERE[condition])).as_py()
    assert too_far(rows, one, other) == {}
    # Over all tables the noise averages out, and no floor is needed.
    bins = Bins(one, modelled(one).column_names)
    ours, theirs = table_distances(bins, rows, one), table_distances(bins, one, other)
    assert len(ours) == 9 + 9 * 8 // 2
    assert sum(ours.values()) <= 1.25 * sum(theirs.values())
    assert duplicates(modelled(rows)) <= max(duplicates(modelled(one)), duplicates(modelled(other)))


PAIRED = ("city", "plan", "rich", "active")
LAG = 2**15  # the longest pool: where candidates are reused, rows so far apart may share one


@pytest.mark.parametrize("family", LEARNED)
def test_conditional_rows_are_independent_of_each_other(
    client: Client, versions: dict[str, str], seeds: Seeds, family: str
) -> None:
    where = {"city": "Quito", "plan": ["pro", "plus"]}
    codes = []
    for start in (0, LAG):
        stream = client.sample(
            versions[family], 2 * LAG, seed=seeds.conditional, where=where, start_row=start, end_row=start + ROWS
        )
        table = stream.to_table()
        assert (stream.rows_per_candidate, stream.distinct_candidates) == (1, ROWS)
        codes.append(
            [np.unique(table[name].to_pylist(), return_inverse=True)[1] for name in ("plan", "rich", "active")]
        )
    for left, right in itertools.product(*codes):
        seen = np.zeros((left.max() + 1, right.max() + 1))
        np.add.at(seen, (left, right), 1)
        expected = np.outer(seen.sum(1), seen.sum(0)) / ROWS
        # Pearson's chi-square; 4.5 standard deviations above its mean is less than one in ten thousand.
        freedom = max(int(left.max() * right.max()), 1)
        assert ((seen - expected) ** 2 / expected).sum() < freedom + 4.5 * np.sqrt(2 * freedom) + 8


@pytest.mark.parametrize("family", LEARNED)
def test_a_value_written_over_other_rows_is_detected(plain: dict[str, tuple[PlainRun, PlainRun]], family: str) -> None:
    one, other = plain[family]
    city = one.first.column_names.index("city")
    categories = one.first["city"].combine_chunks().dictionary
    written = pa.DictionaryArray.from_arrays(
        pa.array([categories.to_pylist().index("Hanoi")] * ROWS, "int32"), categories
    )
    forged = one.first.set_column(city, "city", written)
    seen = too_far(forged, one.satisfying["a category"], other.satisfying["a category"])
    assert {("age",), ("income",), ("rich",)} <= set(seen)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_category_marginals_are_those_of_the_data(many: dict[str, pa.Table], real: pa.Table, family: str) -> None:
    # 0.02 is twice the noise of the widest column: 700 notes in 8,000 rows, 100,000 made.
    for name in ("city", "plan", "rich", "active", "note"):
        wanted = collections.Counter(real[name].to_pylist())
        found = collections.Counter(many[family][name].to_pylist())
        assert set(found) <= set(wanted)
        distance = sum(abs(wanted[value] / TRAINED - found[value] / MANY) for value in wanted) / 2
        assert distance < 0.02, (name, distance)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_nulls_bounds_and_decimal_grids_are_those_of_the_data(
    many: dict[str, pa.Table], real: pa.Table, family: str
) -> None:
    made = many[family]
    assert len(made) == MANY
    missing = {name: made[name].null_count / MANY for name in made.column_names if made[name].null_count}
    assert set(missing) == {"bonus"}
    assert abs(missing["bonus"] - real["bonus"].null_count / TRAINED) < 0.01
    for name in ("age", "income", "bonus", "joined"):
        wanted, found = pc.min_max(real[name]).as_py(), pc.min_max(made[name]).as_py()
        assert wanted["min"] <= found["min"]
        assert found["max"] <= wanted["max"]
    assert pa.types.is_int64(made["age"].type)
    cents = np.asarray(made["income"]) * 100
    assert np.abs(cents - np.rint(cents)).max() < 1e-6
    assert set(np.asarray(made["bonus"].drop_null()).astype(np.int64) % 50) == {0}
    assert pc.unique(pc.second(made["joined"])).to_pylist() == [0]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_keys_are_unique(many: dict[str, pa.Table], family: str) -> None:
    keys = many[family]["customer"]
    assert keys.null_count == 0
    assert len(pc.unique(keys)) == MANY


@pytest.fixture(scope="module")
def completion_quality(client: Client, versions: dict[str, str], real: pa.Table) -> dict[str, float]:
    """How well the share of completions that say `yes` ranks rows the models have not seen, by family."""
    held_out = pyarrow.csv.read_csv(io.BytesIO(customers_csv(400, seed=8)))
    rich = np.array([value == "yes" for value in held_out["rich"].to_pylist()])
    notes = set(real["note"].to_pylist())
    # A value never seen in training is refused: such a cell is left unknown.
    rows = [
        {name: cell for name, cell in row.items() if name != "rich" and (name != "note" or cell in notes)}
        for row in held_out.to_pylist()
    ]
    found = {}
    for family, version in versions.items():
        said_yes = np.zeros(len(rows))
        for seed in range(8):
            completed = list(client.complete_rows(version, rows, seed=seed))
            assert all(row.items() <= done.items() for row, done in zip(rows, completed, strict=True))
            said_yes += [done["rich"] == "yes" for done in completed]
        found[family] = ranking_quality(said_yes, rich)
    return found


@pytest.mark.parametrize("family", LEARNED)
def test_completing_beats_independent_marginals(completion_quality: dict[str, float], family: str) -> None:
    assert completion_quality["independent"] < 0.6
    assert completion_quality[family] > 0.75


def distance_and_bound(one: collections.Counter, two: collections.Counter, effective: float) -> tuple[float, float]:
    """Return the total variation of two samples, and what it passes once in a thousand times where they are alike.

    Args:
        one: Counts of a sample of independent rows.
        two: Counts of another sample, which rests on `effective` candidates.
        effective: See `two`.
    """
    size = 1 / (1 / one.total() + 1 / two.total() + 1 / effective)
    distance = sum(abs(one[each] / one.total() - two[each] / two.total()) for each in one | two) / 2
    # The mean of the distance, and how far it is above that once in a thousand times (McDiarmid's inequality).
    return distance, 0.5 * math.sqrt(len(one | two) / size) + math.sqrt(math.log(1000) / (2 * size))


@pytest.mark.parametrize("known", [{"city": "Hanoi"}, {"plan": "pro", "age": 45}], ids=str)
@pytest.mark.parametrize("family", LEARNED)
def test_completed_rows_are_distributed_as_rows_that_satisfy_the_same(
    client: Client, versions: dict[str, str], seeds: Seeds, family: str, known: dict[str, str | int]
) -> None:
    names = [name for name in ("city", "plan", "rich", "active") if name not in known]
    version, rows = versions[family], 2_048
    completed = list(client.complete_rows(version, [known] * rows, seed=seeds.conditional, tolerance=0.02))
    assert {row.support for row in completed} == {"matched"}
    where = {name: (value, value) if isinstance(value, int) else value for name, value in known.items()}
    sampled = client.sample(version, rows, where=where, seed=seeds.conditional).to_table().to_pylist()
    counts = [collections.Counter(tuple(row[name] for name in names) for row in some) for some in (sampled, completed)]
    # Each group of 256 rows has candidates of its own.
    distance, bound = distance_and_bound(*counts, sum(row.effective_sample_size for row in completed[::256]))
    assert distance < bound
    # What is known counts: rows of which nothing is known are other ones.
    unknown = list(client.complete_rows(version, [{}] * rows, seed=seeds.conditional))
    counts[1] = collections.Counter(tuple(row[name] for name in names) for row in unknown)
    assert distance < distance_and_bound(*counts, rows)[0]
