"""Completing rows: validation, determinism, and that what is known is kept and counts."""

import asyncio
import hashlib
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from rowmint.errors import (
    ColumnNotFoundError,
    InvalidConditionError,
    InvalidFieldError,
    RowRangeError,
    StreamMismatchError,
    ValueNotFoundError,
)
from rowmint.sampling.completion import GROUP_ROWS
from rowmint.schema import DataType
from rowmint.steps import finish
from rowmint.synthesizer import CompletionSupport, RowKeys, choose_kernel
from sampler_service.requests import CompletionRequest
from tests.golden.make import FAMILIES, REJECTING, SCHEMA
from tests.golden.streams import golden_catalog, golden_model, reference, sampler_of

KNOWN = [
    {},
    {"city": "Zürich"},
    {"city": None, "age": 42, "flag": True},
    {"price": Decimal("9.99"), "score": 3.5, "tier": Decimal("12.5"), "holiday": date(2030, 1, 1)},
    {"day": date(2020, 2, 29), "instant": datetime(2013, 5, 5, tzinfo=UTC), "price": None},
    {"id": 5, "badge": "mine", "grade": "2"},
]


@pytest.fixture(scope="module")
def sampler():
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as composed:
        yield composed


def completion(sampler, family="ctgan", stopped=lambda: False, **more):
    request = CompletionRequest(model=reference(family), **{"seed": 7, "candidates": 512, **more})
    return asyncio.run(sampler.complete(request, stopped))[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_known_cells_are_kept_and_the_others_made(sampler, family):
    rows = finish(completion(sampler, family).complete(KNOWN))
    assert [row.row for row in rows] == list(range(len(KNOWN)))
    for row, known in zip(rows, KNOWN, strict=True):
        assert list(row.cells) == list(SCHEMA.names)
        for name, cell in known.items():
            assert row.cells[name] == (2 if name == "grade" else cell)
        for spec in SCHEMA.columns:
            cell = row.cells[spec.name]
            assert cell is not None or spec.nullable
            if spec.domain.categories and cell is not None:
                assert cell in spec.domain.categories
        supported = row.support is not CompletionSupport.UNSUPPORTED
        assert (0 < row.effective_sample_size <= 512) if supported else row.effective_sample_size == 0
        assert row.tolerance >= 0.1 or family not in REJECTING


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_depends_on_its_index_and_its_cells_alone(sampler, family):
    count = GROUP_ROWS + 6
    rows = [KNOWN[index % len(KNOWN)] for index in range(count)]
    whole = completion(sampler, family)
    together = [row for start in (0, GROUP_ROWS) for row in finish(whole.complete(rows[start : start + GROUP_ROWS]))]
    # Another call, which begins elsewhere, is cut otherwise, and has other rows before and after.
    other = completion(sampler, family, start_row=GROUP_ROWS - 3)
    apart = [row for index in range(GROUP_ROWS - 3, count) for row in finish(other.complete([rows[index]]))]
    assert apart == together[GROUP_ROWS - 3 :]
    reordered = dict(reversed(list(KNOWN[3].items())))
    one, other = (finish(completion(sampler, family).complete([row])) for row in (reordered, KNOWN[3]))
    assert one == other


@pytest.mark.parametrize("family", ["ctgan", "tvae"])
@pytest.mark.parametrize("calls", [0, 1, 3, 5, 9, 14])
def test_a_completion_that_is_stopped_gives_the_rows_until_then(sampler, family, calls):
    """It may be stopped before each row, and within the work for one: 2,048 candidates are made in two pieces."""
    answers = iter(range(calls))
    rows = [{"age": 30, "city": "Oslo"}] * 6
    running = completion(sampler, family, lambda: next(answers, None) is None, candidates=2048)
    done = finish(running.complete(rows))
    assert len(done) < len(rows)
    assert running.next_row == len(done)
    whole = finish(completion(sampler, family, candidates=2048).complete(rows))
    assert done == whole[: len(done)]
    rest = finish(completion(sampler, family, candidates=2048, start_row=len(done)).complete(rows[len(done) :]))
    assert done + rest == whole


@pytest.mark.parametrize("family", REJECTING)
def test_the_memory_of_a_completion_is_that_of_the_columns_known_so_far(sampler, family):
    running = completion(sampler, family, candidates=4096)
    sizes = [running.memory_bytes([known]) for known in ({}, {"age": 1}, {"id": 5}, {"age": 2, "city": "Oslo"}, {})]
    finish(running.complete([{"age": 1}, {"age": 2, "city": "Oslo"}]))
    if family == "independent":
        assert sizes == [0] * 5
        return
    assert sizes[0] < sizes[1] == sizes[2] < sizes[3] == sizes[4]
    completer = running._completer
    held = completer._activations.nbytes + sum(
        array.nbytes
        for evidence in completer._evidence.values()
        for array in (evidence.distances, evidence.totals, evidence.alpha)
        if array is not None
    )
    assert set(completer._evidence) == {"age", "city"}
    assert held < sizes[-1]


def test_seed_candidates_and_index_count(sampler):
    def cells(**more):
        return [row.cells for row in finish(completion(sampler, "tvae", **more).complete([{}] * 3))]

    base = cells()
    assert cells() == base
    assert len({str(row) for row in base}) == 3
    assert cells(seed=8) != base
    assert cells(start_row=1)[:2] == base[1:]
    assert cells(candidates=256) != base


@pytest.mark.parametrize("family", REJECTING)
def test_the_rows_that_share_candidates_are_counted(sampler, family):
    running = completion(sampler, family, start_row=GROUP_ROWS - 20)
    header = running.header("name")
    assert (header.rows_per_candidate, header.distinct_candidates) == (GROUP_ROWS, 0)
    nothing = running.summary(complete=False)
    assert (nothing.distinct_candidates, nothing.rows_per_candidate) == (0, 0)
    # Nothing of a row without known cells says which of 512 candidates it was drawn from but its index.
    chosen = []
    for row in range(GROUP_ROWS - 20, GROUP_ROWS + 200):
        (done,) = finish(running.complete([{"holiday": date(2030, 1, 1)}]))
        completer = running._completer
        keys = RowKeys(running._key, *divmod(row, GROUP_ROWS), row)
        (again,) = finish(completer.complete([{"holiday": date(2030, 1, 1)}], keys))
        assert again.cells.items() <= done.cells.items()
        chosen.append((row // GROUP_ROWS, row if again.chosen is None else again.chosen))
    summary = running.summary(complete=True)
    assert summary.distinct_candidates == len(set(chosen))
    assert summary.rows_per_candidate == Counter(chosen).most_common(1)[0][1]
    assert family == "independent" or summary.rows_per_candidate > 1


def test_the_plan_digest_covers_model_candidates_and_tolerance(sampler):
    def digest(family="ctgan", **more):
        return completion(sampler, family, **more).header("name").plan_digest

    base = digest()
    assert digest(seed=8, start_row=5) == base
    assert len({base, digest("tvae"), digest(candidates=256), digest(tolerance=0.2)}) == 4
    body = f'{{"candidates":512,"model":"{golden_model("ctgan").digest.hex()}","tolerance":"0.1"}}'
    assert base == hashlib.sha256(b"rowmint/completion/2\0" + body.encode()).digest()


@pytest.mark.parametrize(
    ("change", "digest"),
    [
        ({"expected_model_digest": b"m" * 32}, "model"),
        ({"expected_plan_digest": b"p" * 32}, "plan"),
        ({"tolerance": 0.2}, "plan"),
        ({"candidates": 1024}, "plan"),
    ],
)
def test_a_completion_that_differs_from_the_one_to_be_resumed_is_refused(sampler, change, digest):
    header = completion(sampler).header("")
    digests = {"expected_model_digest": header.model_digest, "expected_plan_digest": header.plan_digest}
    assert completion(sampler, start_row=5, **digests).digest == header.plan_digest
    with pytest.raises(StreamMismatchError, match=f"the {digest} digest is"):
        completion(sampler, **{**digests, **change})


def test_ids_are_those_of_sampled_rows(sampler):
    rows = finish(completion(sampler, start_row=10**12).complete([{}] * 300))
    assert len({row.cells["id"] for row in rows}) == 300
    assert len({row.cells["badge"] for row in rows}) == 300


def test_what_is_known_counts(sampler):
    """A known category changes what is made beside it as the model's own rows say."""
    rows = finish(completion(sampler, "ctgan", candidates=4096).complete([{"holiday": date(2024, 2, 29)}] * 200))
    assert {row.cells["holiday"] for row in rows} == {date(2024, 2, 29)}
    assert all(row.effective_sample_size < 4096 for row in rows)


@pytest.mark.parametrize(
    ("known", "error", "text"),
    [
        ({"missing": 1}, ColumnNotFoundError, "row 101"),
        ({"city": "Pariss"}, ValueNotFoundError, "Paris"),
        ({"grade": None}, InvalidConditionError, "grade"),
        ({"age": "old"}, InvalidConditionError, "age"),
        ({"age": 1.5}, InvalidConditionError, "age"),
        ({"age": True}, InvalidConditionError, "age"),
        ({"age": Decimal(10) ** 400}, InvalidConditionError, "age"),
        ({"price": Decimal("1.234")}, InvalidConditionError, "price"),
        ({"ratio": Decimal(10) ** 400}, InvalidConditionError, "ratio"),
        ({"day": 5}, InvalidConditionError, "day"),
        ({"instant": datetime(2013, 5, 5)}, InvalidConditionError, "instant"),  # noqa: DTZ001 - that is the fault
        ({"seen": datetime(2013, 5, 5, tzinfo=UTC)}, InvalidConditionError, "seen"),
        ({"id": "5"}, InvalidConditionError, "id"),
        ({"id": None}, InvalidConditionError, "id"),
        ({"badge": 5}, InvalidConditionError, "badge"),
    ],
)
def test_a_wrong_cell_is_named(sampler, known, error, text):
    running = completion(sampler, start_row=100)
    with pytest.raises(error) as raised:
        finish(running.complete([{}, known]))
    assert text in raised.value.message
    assert raised.value.message.startswith("row 101")
    assert raised.value.metadata["row"] == "101"
    # Nothing of the refused rows counts.
    assert running.next_row == 100


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"start_row": -1}, RowRangeError),
        ({"tolerance": 0.0}, InvalidFieldError),
        ({"tolerance": -1.0}, InvalidFieldError),
        ({"tolerance": float("nan")}, InvalidFieldError),
        ({"tolerance": 10.5}, InvalidFieldError),
        ({"candidates": 0}, InvalidFieldError),
        ({"candidates": 128}, InvalidFieldError),
        ({"candidates": 1000}, InvalidFieldError),
        ({"candidates": 2**17}, InvalidFieldError),
    ],
)
def test_an_impossible_config(sampler, change, error):
    with pytest.raises(error):
        completion(sampler, **change)


def test_every_type_has_a_case():
    assert {spec.data_type for spec in SCHEMA.columns} == set(DataType)
