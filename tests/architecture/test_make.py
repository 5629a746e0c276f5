"""What `make test` and CI are made of: linters beside the tests, and each tier in one of them."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.tiers import Tier

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def recipe(target: str) -> str:
    found = re.search(rf"^{re.escape(target)}:(?! export)[^\n]*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None, target
    return found[1]


@pytest.mark.parametrize(
    ("target", "tier"),
    [("test", Tier.TEST), ("test-system", Tier.SYSTEM), ("test-full", Tier.FULL), ("bench", Tier.BENCHMARK)],
)
def test_each_tier_has_its_target(target: str, tier: Tier) -> None:
    assert f"--tier {tier}" in recipe(target)


def test_ci_runs_both_tiers_and_their_checks() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    made = [line.split()[1] for line in lines if line.startswith("make ")]
    assert made == ["test", "test-system", "audit", "soak-quick", "durations-check"]


@pytest.mark.parametrize(
    ("lint", "tests", "status", "said"),
    [
        ("echo clean", "true", 0, []),
        ("cat /no-such-file", "true", 1, ["== cat /no-such-file FAILED; what it said stands above"]),
        ("echo clean", "false", 1, ["== the tests FAILED"]),
        ("false", "false", 1, ["== false FAILED; what it said stands above", "== the tests FAILED"]),
    ],
)
def test_linters_and_tests_fail_each_for_itself(lint: str, tests: str, status: int, said: list[str]) -> None:
    command = ["tests/lint_beside.sh", lint, "--", tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (status, said)
    assert ("No such file" in done.stdout) == lint.startswith("cat")
    assert "clean" not in done.stdout
