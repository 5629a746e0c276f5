"""Scenarios, run two at a time, and the table of what was killed in them."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from rich.console import Console
from rich.table import Table

from rowmint.client import datasets
from tests.crash.scenario import Outcome, run_scenario
from tests.crash.storage import Storage

REPORT = pytest.StashKey[list[tuple[str, ...]]]()
_HEADER = ("scenario", "back end", "place", "hit", "killed", "seconds", "result")


@pytest.fixture(scope="module", autouse=True)
def _small_messages() -> Iterator[None]:
    """A segment is at least a message: a table of modest size is to have many. Tests elsewhere have none of this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "MESSAGE_BYTES", 16_384)
        yield


@pytest.fixture(scope="session")
def scenarios() -> Iterator[ThreadPoolExecutor]:
    """Runs scenarios, two at a time."""
    with ThreadPoolExecutor(2) as found:
        yield found
        found.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def undisturbed(scenarios: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> Future[Outcome]:
    """The scenario without a kill; under way."""
    return scenarios.submit(run_scenario, Storage(tmp_path_factory.mktemp("undisturbed")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what died in the matrix, where that was run."""
    rows = config.stash.get(REPORT, [])
    if not rows:
        return
    table = Table(*_HEADER)
    for row in sorted(rows):
        table.add_row(*row)
    console = Console(width=150)
    with console.capture() as captured:
        console.print(table)
    terminalreporter.write(captured.get())
