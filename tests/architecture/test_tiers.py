"""Every folder of tests has a tier, and the committed table of durations is of these tests and within the budgets."""

from pathlib import Path, PurePath

import pytest

from tests.durations.report import read_table
from tests.tiers import FOLDERS, Tier, tier_of

TESTS = Path(__file__).parents[1]
WORKERS = 2
BUDGETS = {Tier.TEST: 8 * 60, Tier.SYSTEM: 12 * 60}
"""Seconds of each tier on two cores."""


def test_every_folder_with_tests_has_a_tier() -> None:
    assert {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")} == set(FOLDERS)


@pytest.mark.parametrize(
    ("path", "markers", "fixtures", "parameters", "tier"),
    [
        ("unit/test_x.py", [], [], [], Tier.TEST),
        ("unit/test_x.py", ["system"], [], [], Tier.SYSTEM),
        ("crash/test_x.py", [], [], [], Tier.SYSTEM),
        ("crash/test_x.py", ["full"], ["postgres"], [], Tier.FULL),
        ("conformance/test_x.py", [], ["postgres"], [], Tier.SYSTEM),
        ("conformance/test_x.py", ["parametrize"], ["request"], ["postgresql", 3], Tier.SYSTEM),
        ("conformance/test_x.py", ["parametrize"], ["request"], ["sqlite", [3]], Tier.TEST),
        ("benchmarks/test_x.py", [], ["postgres"], [], Tier.BENCHMARK),
    ],
)
def test_a_tier_follows_from_folder_servers_and_marker(path, markers, fixtures, parameters, tier) -> None:
    assert tier_of(PurePath(path), markers, fixtures, parameters) == tier


def test_the_table_of_durations_is_of_files_that_are_there() -> None:
    table = read_table()
    assert [row.file for row in table if not (TESTS.parent / row.file).is_file()] == []
    assert {row.tier for row in table} == set(BUDGETS)
    assert len({(row.tier, row.file) for row in table}) == len(table)


@pytest.mark.parametrize("tier", BUDGETS)
def test_the_committed_durations_are_within_the_budget(tier: Tier) -> None:
    assert sum(row.seconds for row in read_table() if row.tier == tier) <= WORKERS * BUDGETS[tier]
