"""Alerts and dashboards: they query metrics that are exported, each alert is evaluated, and each has its page."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import promql_parser
import pytest
import yaml

from rowmint.client import Client
from rowmint.registry import JobKind, JobState
from sampler_service.metrics import OUTCOMES, SHED_REASONS
from tests.acceptance.processes import ROOT, customers_csv
from tests.proxied.deployment import TRAINER, Deployment
from trainer_service.jobs.runners import PHASES
from trainer_service.metrics import PHASE_OUTCOMES
from trainer_service.metrics import SHED_REASONS as TRAINER_SHED_REASONS

DEPLOY = ROOT / "deploy"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
EVALUATED = yaml.safe_load((Path(__file__).parent / "rules.yml").read_text())["tests"]
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}
# What Prometheus says itself of what it scrapes.
OWN = {"up"}
# Written down with their job by Prometheus.
ADDED_LABELS = {"job", "instance", "exported_job"}
# Names that are not OpenTelemetry's.
FREE_LABELS = {"instance", "exported_job"}
SERVICES = {one["job_name"] for one in yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]}
# Of these not every value is shown by services that have worked for a minute and without a fault.
CLOSED = {
    ("grpc_server_call_duration_seconds", "grpc_status"): {code.name for code in grpc.StatusCode},
    ("rowmint_streams_ended_total", "outcome"): set(OUTCOMES),
    ("rowmint_shed_total", "reason"): set(SHED_REASONS),
    ("rowmint_trainer_shed_total", "reason"): set(TRAINER_SHED_REASONS),
    ("rowmint_jobs", "kind"): set(JobKind),
    ("rowmint_jobs", "state"): set(JobState),
    ("rowmint_jobs_ended_total", "kind"): set(JobKind),
    ("rowmint_jobs_ended_total", "state"): {state for state in JobState if state.ended},
    ("rowmint_job_phase_seconds", "kind"): set(JobKind),
    ("rowmint_job_phase_seconds", "phase"): {phase for phases in PHASES.values() for phase in phases},
    ("rowmint_job_phase_seconds", "outcome"): set(PHASE_OUTCOMES),
}

Shown = dict[str, dict[str, set[str]]]
"""Values by the names of samples and then of their labels."""


def selectors(expression: str) -> list[tuple[str, list[promql_parser.Matcher]]]:
    """Return the names of all figures of an expression, and by what each is chosen."""
    found = []

    def note(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, node.matchers.matchers))

    promql_parser.walk(promql_parser.parse(expression), note)
    return found


def unknown_matches(expression: str, shown: Shown) -> list[tuple[str, str, str]]:
    """Return what an expression chooses by and never finds: name, label, and the value or pattern."""
    return [
        (name, matcher.name, matcher.value)
        for name, matchers in selectors(expression)
        for matcher in matchers
        if matcher.name not in FREE_LABELS and not finds(matcher, values_of(name, matcher.name, shown))
    ]


def values_of(name: str, label: str, shown: Shown) -> set[str]:
    """Return the values that a label of a figure may have."""
    if label == "job":
        return SERVICES
    of = re.sub(r"_(?:bucket|count|sum)$", "", name)
    return CLOSED.get((of, label)) or shown.get(name, {}).get(label, set())


def finds(matcher: promql_parser.Matcher, values: set[str]) -> bool:
    """Say whether there are values of the kind that a matcher names, whether it selects those or all others."""
    if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual):
        return matcher.value in values
    parts = [matcher.value] if "(" in matcher.value else matcher.value.split("|")
    return all(any(re.fullmatch(part, value) for value in values) for part in parts)


def expressions() -> Iterator[tuple[str, str]]:
    for name, rule in RULES.items():
        yield name, rule["expr"]
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield f"{dashboard['title']}, {panel['title']}", target["expr"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """What trainer, sampler and Envoy show once they have worked."""
    found = Deployment(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("shown"))
    try:
        found.trainer(ROWMINT_METRICS_LISTEN=f"{TRAINER}:9464", ROWMINT_THREADS="1")
        found.sampler(ROWMINT_METRICS_LISTEN="127.0.0.2:9464")
        found.start_envoy()
        pages = [f"127.0.0.1:{found.publish(inside)}/metrics" for inside in (f"{TRAINER}:9464", "127.0.0.2:9464")]
        with Client(found.address, found.address) as client:
            dataset = client.upload(customers_csv(1_000), "people", format="csv")
            job = client.train(dataset, "people", family="independent", seed=1, threads=1)
            seen = read(*pages)
            version = client.wait_job(job).model_version
            client.sample(version, rows=100).to_table()
        for name, labels in read(*pages, f"{found.figures}/stats/prometheus").items():
            for label, values in labels.items():
                seen.setdefault(name, {}).setdefault(label, set()).update(values)
            seen.setdefault(name, {})
        return seen
    finally:
        found.close()


def read(*pages: str) -> Shown:
    """Return names as Prometheus reads them; a parser that is kind to clients would correct some."""
    seen: Shown = {}
    for page in pages:
        with urlopen(f"http://{page}", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        for line in lines:
            if head := re.fullmatch(r"# TYPE (\w+) (\w+)", line):
                # Figures whose labels have had no values yet are shown by their head alone.
                endings = ["_bucket", "_count", "_sum"] if head[2] == "histogram" else [""]
                for ending in endings:
                    seen.setdefault(head[1] + ending, {})
            elif figure := re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line):
                labels = seen.setdefault(figure[1], {})
                for label, value in re.findall(r'(\w+)="([^"]*)"', figure[2] or ""):
                    labels.setdefault(label, set()).add(value)
            else:
                assert line.startswith("#"), line
    return seen


def test_every_queried_metric_is_exported(shown: Shown) -> None:
    requested = {
        (name, label)
        for _, text in expressions()
        for name, matchers in selectors(text)
        for label in {matcher.name for matcher in matchers} or {""}
    }
    assert {name for name, _ in requested} - set(shown) - OWN == set()
    unknown = {
        (name, label)
        for name, label in requested
        if label and name not in OWN and shown[name] and label not in shown[name].keys() | ADDED_LABELS
    }
    assert unknown == set()
    assert len({name for name, _ in requested}) > 40


def test_every_matched_value_exists(shown: Shown) -> None:
    for where, text in expressions():
        assert unknown_matches(text, shown) == [], where
    evaluated = {series["series"] for test in EVALUATED for series in test["input_series"]}
    for series in evaluated:
        assert unknown_matches(series, shown) == [], series
    assert len(evaluated) > 40


def test_values_shown_are_those_of_the_closed_sets(shown: Shown) -> None:
    for (name, label), values in CLOSED.items():
        ending = "" if name in shown else "_count"
        assert shown[name + ending][label] <= values, name


@pytest.mark.parametrize(
    "expression",
    [
        'rowmint_jobs{kind="TRAIN"}',
        'sum(rate(rowmint_jobs_ended_total{state="PENDING"}[5m]))',
        'rowmint_shed_total{reason!="processes_rows"}',
        'rowmint_shed_total{reason=~"process_.*|tenant_.*"}',
        'increase(rowmint_job_phase_seconds_count{outcome="dead"}[1h:5m])',
        'up{job="samplers"}',
        'rowmint_rows_sent_total{row_format="parquet"} offset 10m',
    ],
)
def test_an_unknown_value_is_found(expression: str) -> None:
    assert len(unknown_matches(expression, {"rowmint_rows_sent_total": {"row_format": {"csv", "arrow"}}})) == 1


def test_every_alert_says_what_is_to_be_done() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert set(rule["annotations"]) == {"summary", "description"}, name
        assert re.fullmatch(r"\d+[mh]", rule["for"]), name
        (reported,) = re.findall(rf"^\| `{name}` \| {rule['labels']['severity']} \| (.+) \|$", page, re.MULTILINE)
        assert len(reported) > 20, name
    assert len(re.findall(r"^\| `\w+` \| (?:critical|warning|info) \|", page, re.MULTILINE)) == len(RULES)


def test_every_alert_is_raised_and_not_raised_by_figures() -> None:
    cases = [case for test in EVALUATED for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(RULES)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(RULES)


def test_dashboards_are_whole() -> None:
    assert set(DASHBOARDS) == {"overview", "sampler", "trainer"}
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/rowmint.yml").read_text())["datasources"]
    known = {source["uid"] for source in sources}
    for name, dashboard in DASHBOARDS.items():
        assert dashboard["uid"] == f"rowmint-{name}"
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids) > 10
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert max(x for x, _ in cells) < 24
            assert not cells & taken, panel["title"]
            taken |= cells
            assert {panel["datasource"]["uid"], *(one["datasource"]["uid"] for one in panel["targets"])} <= known
            for target in panel["targets"]:
                used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                grouped = re.search(r"by \(([\w, ]+)\)", target["expr"])
                assert used <= (set(re.split(", ", grouped[1])) if grouped else ADDED_LABELS), panel["title"]
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/rowmint.yml").read_text())["providers"]
    mounts = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in mounts


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool", path=str(ROOT / ".debian-tools" / "usr" / "bin")) or shutil.which("promtool")
    if found is None:
        pytest.fail("there is no promtool: `make test-system` brings Debian's package prometheus")
    return found


@pytest.mark.debian
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "deploy/prometheus.yml"],
        ["check", "rules", "deploy/alerts.yml"],
        ["test", "rules", "tests/alerts/rules.yml"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_prometheus_agrees(promtool: str, command: list[str]) -> None:
    result = subprocess.run([promtool, *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.debian
def test_an_alert_that_is_never_raised_is_found(promtool: str, tmp_path: Path) -> None:
    """An evaluation that nothing can fail would say nothing."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "tests" / "alerts").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "rules.yml", tmp_path / "tests" / "alerts")
    changed = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    for group in changed["groups"]:
        for rule in group["rules"]:
            rule["expr"] = "vector(0) > 1"
    (tmp_path / "deploy" / "alerts.yml").write_text(yaml.safe_dump(changed))
    command = [promtool, "test", "rules", "tests/alerts/rules.yml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode != 0
    missed = set(re.findall(r"alertname: (\w+),", result.stdout + result.stderr))
    assert missed == set(RULES)
