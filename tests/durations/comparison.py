"""A run of a tier beside the committed table: shares of the tier's total, so that a slow machine changes nothing."""

from collections.abc import Mapping, Sequence

from tests.durations.report import Row

FACTOR = 2.0
"""A file may take so many times its committed share of the tier's total, and a floor on top."""
FLOOR = 0.03
"""Share of the tier's total that is noise: ten seconds of an eight-minute run on two cores are 0.01."""


def slower_files(tier: str, measured: Mapping[str, float], table: Sequence[Row]) -> list[str]:
    """Return a line for each file that takes a far larger share of its tier than the table says.

    Args:
        tier: Name of the tier that was run.
        measured: Seconds of each file.
        table: The committed rows, of all tiers.
    """
    committed = {row.file: row.seconds for row in table if row.tier == tier}
    before, now = sum(committed.values()), sum(measured.values())
    if not before or not now:
        return [f"the table of durations has nothing to compare tier {tier!r} with: run `make durations`"]
    found = []
    for file, seconds in sorted(measured.items(), key=lambda item: -item[1]):
        share, expected = seconds / now, committed.get(file, 0.0) / before
        if share > FACTOR * expected + FLOOR:
            found.append(
                f"{file} took {seconds:.0f} s, {share:.1%} of tier {tier!r}; the table of durations gives it"
                f" {expected:.1%}: make it quicker, or record it with `make durations` and say why in the commit"
            )
    return found
