"""At each place where a process can die one does, and nothing is lost: what `make test-system` holds of the matrix."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rowmint.failpoints import FAILPOINTS
from tests.crash.scenario import CSV, Facts, Outcome, run_scenario
from tests.crash.storage import Storage
from tests.crash.supervisor import Kill

# Kills follow each other in the order of the scenario, those of one kind of process in turn where it can be had.
SCENARIOS = {
    "uploading": (
        Kill("upload.segment.stored", 2),
        Kill("upload.segment.committed", 3),
        Kill("upload.finished"),
        Kill("ingest.verified"),
        Kill("ingest.types.joined"),
        Kill("encode.began"),
        Kill("fit.step", 6),
        Kill("publish.weights.stored"),
        Kill("sweep.object.aside"),
        Kill("alias.moved"),
        Kill("delete.committed"),
    ),
    "fitting": (
        Kill("ingest.table.stored"),
        Kill("ingest.ready"),
        Kill("encode.ended"),
        Kill("checkpoint.stored", 3),
        Kill("checkpoint.committed", 4),
        Kill("fit.epoch"),
        Kill("publish.manifest.stored"),
        Kill("publish.committed"),
        Kill("mark.written", section="second"),
        Kill("sweep.object.deleted", section="delete"),
        Kill("sweep.forgotten", section="end"),
    ),
}
PLACES = {kill.place: scenario for scenario, kills in SCENARIOS.items() for kill in kills}


@pytest.fixture(scope="module")
def outcomes(
    scenarios: ThreadPoolExecutor, undisturbed: Future[Outcome], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[Outcome]]:
    return {
        name: scenarios.submit(run_scenario, Storage(tmp_path_factory.mktemp(name)), kills)
        for name, kills in SCENARIOS.items()
    }


def test_every_failpoint_has_a_kill() -> None:
    assert set(PLACES) == FAILPOINTS


def test_an_undisturbed_scenario_has_the_requested_results(undisturbed: Future[Outcome]) -> None:
    whole = hashlib.sha256(CSV).hexdigest()
    found = undisturbed.result()
    facts = found.facts
    assert (facts.committed, facts.finished, facts.table) == (len(CSV), (len(CSV), whole), whole)
    for number, version in enumerate((facts.first, facts.second), 1):
        assert version.name == f"projects/default/models/people/versions/{number}"
        assert (version.versions, version.dataset) == (1, whole)
        assert version.training["reproducible"] is True
        assert len(set(version.rows)) == 1
    assert [probe["epoch"] for probe in facts.first.training["probes"]] == [2, 4]
    assert [len(losses) for losses in facts.first.training["loss_history"].values()] == [4, 4]
    assert facts.first.digest != facts.second.digest
    assert facts.aliases == (
        {"best": 1, "latest": 1},
        {"best": 2, "latest": 2},
        {"best": 2, "latest": 2},
        {"best": 2, "latest": 2},
    )
    assert facts.gone == (
        "there is no projects/default/models/people/versions/1",
        "there is no projects/default/datasets/customers",
    )
    assert (found.starts, found.resumed) == (1, ())


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_kill_at_each_failpoint_changes_nothing(
    place: str, outcomes: dict[str, Future[Outcome]], undisturbed: Future[Outcome]
) -> None:
    found = outcomes[PLACES[place]].result()
    (death,) = (death for death in found.deaths if death.kill.place == place)
    expected: Facts = undisturbed.result().facts
    assert death.died != ""
    assert expected == found.facts
