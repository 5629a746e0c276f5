"""The page on operations lists the metrics that there are, as they are."""

import re
from pathlib import Path

import pytest

import sampler_service.metrics
import trainer_service.metrics
from rowmint.observability.metrics import CallMetrics
from rowmint.registry import JobKind, JobState
from trainer_service.jobs.runners import PHASES

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


class OneJob:
    """A ledger with one job, running here."""

    def census(self):
        return {(JobKind.TRAIN, JobState.RUNNING): 1}

    def lease_ages(self):
        return {"projects/p/trainingJobs/j": 0.5}


def listed(heading: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of each metric in the table that follows `heading`."""
    table = PAGE.partition(heading)[2].partition("\n\n")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        name, kind, labels, meaning = (cell.strip() for cell in line.strip("|").split("|"))
        assert meaning, name
        found[name.strip("`")] = (kind, tuple(re.findall(r"`(\w+)`", labels)))
    return found


def registered(registry) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of each metric of a registry, without those of the process."""
    found = {}
    for collector in registry._collector_to_names:
        families = list(collector.collect())
        for family in families:
            if family.name.startswith("process_"):
                continue
            labels = getattr(collector, "_labelnames", None)
            if labels is None:
                labels = {name: None for sample in family.samples for name in sample.labels}
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, tuple(labels))
    return found


@pytest.mark.parametrize(
    ("heading", "module"), [("The sampler's:", sampler_service.metrics), ("The trainer's:", trainer_service.metrics)]
)
def test_the_tables_are_what_is_registered(heading, module):
    found = registered(module.REGISTRY)
    if module is trainer_service.metrics:
        from prometheus_client import CollectorRegistry

        jobs = CollectorRegistry()
        collector = trainer_service.metrics.JobCollector(OneJob())
        collector.refresh()
        jobs.register(collector)
        found |= registered(jobs)
    assert {**listed("Of both services:"), **listed(heading)} == found


def test_calls_are_counted_by_both():
    for module in (sampler_service.metrics, trainer_service.metrics):
        assert isinstance(module.CALLS, CallMetrics)


def test_outcomes_and_reasons_are_listed():
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", PAGE, re.MULTILINE))
    for name, values in {
        "rowmint_shed_total": sampler_service.metrics.SHED_REASONS,
        "rowmint_trainer_shed_total": trainer_service.metrics.SHED_REASONS,
        "rowmint_streams_ended_total": sampler_service.metrics.OUTCOMES,
        "rowmint_job_phase_seconds": trainer_service.metrics.PHASE_OUTCOMES,
    }.items():
        assert set(values) <= set(re.findall(r"`(\w+)`", rows[name])), name


@pytest.mark.parametrize("kind", list(PHASES))
def test_phases_are_listed_in_order(kind):
    (phases,) = re.findall(rf"`{kind}`: ([\w, ]+)", PAGE)
    assert re.findall(r"\w+", phases)[: len(PHASES[kind])] == [str(phase) for phase in PHASES[kind]]
    assert ", ".join(f"`{phase}`" for phase in PHASES[kind]) in PAGE
