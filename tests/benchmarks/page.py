"""The parts of `docs/benchmarks.md` that are written by benchmarks; each lies between two marks."""

import statistics
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def put(part: str, lines: Sequence[str]) -> None:
    """Put lines between the marks of a part of the page; the text around them is kept."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before, rest = PAGE.read_text().split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}")
    print(f"wrote {part} of {PAGE}")


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and where there are several values the least and the greatest."""
    mean = f"{statistics.mean(values):,.{digits}f}"
    return f"{mean} ({min(values):,.{digits}f} to {max(values):,.{digits}f})" if len(values) > 1 else mean
