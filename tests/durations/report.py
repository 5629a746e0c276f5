"""Seconds by file of a run of the tests, read from the report that pytest writes with `--junitxml`."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

TABLE = Path(__file__).with_name("durations.csv")
"""The committed table: one row a file and tier, the slowest first."""
_HEADER = ("tier", "seconds", "file")


@dataclass(frozen=True)
class Row:
    """What one file took in one tier.

    Attributes:
        tier: Name of the tier.
        seconds: Seconds of all its tests together, their fixtures included, each counted on its own worker.
        file: Path below the repository's root, with slashes.
    """

    tier: str
    seconds: float
    file: str


def seconds_by_file(report: Path, root: Path) -> dict[str, float]:
    """Return the seconds of each test file in a JUnit report.

    Args:
        report: File that `pytest --junitxml` wrote.
        root: The repository's root: a test's class name is resolved to a file below it.
    """
    found: dict[str, float] = {}
    for case in ET.parse(report).getroot().iter("testcase"):  # pytest wrote it
        classname = case.get("classname")
        if not classname:  # a file that could not be collected, or a run that was broken off
            continue
        file = _file(classname, root)
        found[file] = found.get(file, 0.0) + float(case.attrib["time"])
    return found


def _file(classname: str, root: Path) -> str:
    """Return the file of `tests.unit.test_x` or of a class in it."""
    parts = classname.split(".")
    for end in range(len(parts), 0, -1):
        path = PurePosixPath(*parts[:end]).with_suffix(".py")
        if (root / path).is_file():
            return str(path)
    raise FileNotFoundError(f"no file below {root} holds the tests of {classname}")


def read_table(path: Path = TABLE) -> list[Row]:
    """Read a table of durations; one that is not there has no rows."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [Row(row["tier"], float(row["seconds"]), row["file"]) for row in csv.DictReader(file)]


def write_table(rows: Iterable[Row], path: Path = TABLE) -> None:
    """Write a table of durations, by tier and then the slowest first."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        for row in sorted(rows, key=lambda row: (row.tier, -round(row.seconds, 1), row.file)):
            writer.writerow((row.tier, f"{row.seconds:.1f}", row.file))


def rows_of(tier: str, seconds: Mapping[str, float]) -> list[Row]:
    """Return the rows of a tier."""
    return [Row(tier, taken, file) for file, taken in seconds.items()]
