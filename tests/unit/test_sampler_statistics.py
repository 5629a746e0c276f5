"""What a sampler counts of its streams: their outcomes, and what it keeps."""

import asyncio
from collections import Counter

import pytest

from rowmint.errors import (
    AcceptanceTooLowError,
    DataLossError,
    InvalidFieldError,
    LimitError,
    ResourceNotFoundError,
    RowmintError,
    UnavailableError,
)
from rowmint.names import ModelName, ModelVersionName
from rowmint.sampling.stream import BlockDone
from sampler_service import metrics, statistics
from sampler_service.converters import statistics_to_proto
from sampler_service.statistics import Statistics, VersionStatistics
from tests.manual_clock import ManualClock
from tests.unit.inline_threads import inline_threads

VERSION = ModelVersionName("p", "m", 3)


class Models:
    """Knows one model."""

    def get(self, name):
        if name != ModelName("p", "m"):
            raise ResourceNotFoundError("there is none")

    def resolve(self, ref, *, deleted=False, unpublished=False):
        raise ResourceNotFoundError("there is none")

    def unpublished(self, name):
        return frozenset({9})


@pytest.fixture
def clock():
    return ManualClock(100.0)


@pytest.fixture
def counted(clock):
    return Statistics(
        Models(),
        lambda name: 7 if name == VERSION else 0,
        clock=clock,
        now=lambda: clock.now + 1e9,
        lookups=inline_threads(),
    )


def read(counted, name="projects/p/models/m"):
    return asyncio.run(counted.read(name))


def ended(outcome):
    return metrics.REGISTRY.get_sample_value("rowmint_streams_ended_total", {"outcome": outcome})


def test_a_stream_is_counted_by_what_it_does(counted, clock):
    before = ended("complete")
    with counted.stream(VERSION, "csv", 100.0) as tally:
        clock.now = 100.5
        tally.ready(0)
        tally.sent(0)
        clock.now = 102.0
        tally.ready(10)
        tally.sent(10)
        clock.now = 103.0
        tally.ready(5)
        tally.sent(5)
        tally.outcome = "complete"
    counted.count_block(VERSION, BlockDone(0.5, 0.25, 40, 15))
    (found,) = read(counted)
    assert (found.name, found.begun, found.ended, found.rows) == (VERSION, 1, {"complete": 1}, 15)
    assert (found.first_rows, found.first_row_seconds, found.slowest_first_row) == (1, 2.0, 2.0)
    assert (found.blocks, found.block_seconds, found.candidates, found.accepted) == (1, 0.25, 40, 15)
    assert (found.served_at, found.loaded_bytes, counted.started_at) == (1e9 + 100, 7, 1e9 + 100)
    assert ended("complete") == before + 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (ValueError("why"), "failed"),
        (RowmintError("why"), "failed"),
        (DataLossError("why"), "failed"),
        (UnavailableError("why"), "failed"),
        (AcceptanceTooLowError("why", found=0, candidates=1, row=0), "refused"),
        (InvalidFieldError("rows", "is none"), "refused"),
        (LimitError("why"), "refused"),
    ],
)
def test_a_stream_that_ends_early_is_counted_by_its_reason(counted, error, outcome):
    before = ended(outcome)
    with pytest.raises(type(error)), counted.stream(VERSION, "csv", 100.0):
        raise error
    (found,) = read(counted)
    assert (found.begun, found.ended) == (1, {outcome: 1})
    assert ended(outcome) == before + 1


@pytest.mark.parametrize("outcome", ["complete", "drained", "max_duration"])
def test_a_client_that_leaves_with_the_summary_has_not_cancelled(counted, outcome):
    def go():
        with counted.stream(VERSION, "csv", 100.0) as tally:
            tally.outcome = outcome
            raise GeneratorExit

    with pytest.raises(GeneratorExit):
        go()
    assert read(counted)[0].ended == {outcome: 1}


def test_every_outcome_has_its_field_in_the_message():
    found = VersionStatistics(VERSION, ended=Counter({name: 1 + at for at, name in enumerate(metrics.OUTCOMES)}))
    message = statistics_to_proto(found).streams_ended
    assert {field.name: value for field, value in message.ListFields()} == found.ended


def test_a_reading_is_a_snapshot(counted):
    counted.count_rows(VERSION, 5)
    (before,) = read(counted)
    counted.count_rows(VERSION, 5)
    with counted.stream(VERSION, "csv", 100.0) as tally:
        tally.outcome = "complete"
    assert (before.rows, before.ended) == (5, {})


def test_versions_come_in_order_and_those_of_other_models_not_at_all(counted):
    for name in (VERSION, ModelVersionName("p", "m", 1), ModelVersionName("p", "n", 2), ModelVersionName("q", "m", 2)):
        counted.count_rows(name, 1)
    assert [found.name.version for found in read(counted)] == [1, 3]
    with pytest.raises(ResourceNotFoundError):
        read(counted, "projects/p/models/n")
    with pytest.raises(ResourceNotFoundError):
        read(counted, "projects/p/models/m@latest")


def test_only_the_versions_served_last_are_kept(counted, monkeypatch):
    monkeypatch.setattr(statistics, "_VERSIONS", 2)
    for version in (1, 2, 1, 3):
        counted.count_rows(ModelVersionName("p", "m", version), 1)
    assert [(found.name.version, found.rows) for found in read(counted)] == [(1, 2), (3, 1)]


def test_only_a_caller_who_may_know_of_them_learns_of_versions_that_are_not_published(clock):
    requested = []

    def sees_unpublished(project):
        requested.append(project)
        return len(requested) > 1

    counted = Statistics(
        Models(), lambda _: 0, clock=clock, now=clock, lookups=inline_threads(), sees_unpublished=sees_unpublished
    )
    for number in (3, 9):
        counted.count_rows(ModelVersionName("p", "m", number), 5)
    assert [one.name.version for one in read(counted)] == [3]
    assert [one.name.version for one in read(counted)] == [3, 9]
    assert requested == ["p", "p"]
