"""What the soak reports: a line a minute, and a table at the end, with what was wrong and what was never tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from rowmint.client.sampling import FORMATS as STREAM_FORMATS
from tests.soak.kills import KINDS, SIGNALS, Killer
from tests.soak.place import FAMILIES
from tests.soak.task_log import Tally
from tests.soak.uploads import FORMATS as UPLOAD_FORMATS

_IN_TASKS = (
    "rows delivered",
    "resumed streams",
    "streams another process went on with",
    "streams with conditions",
    "streams in parts",
    "rows completed",
    "datasets deleted",
    "aliases moved",
    "versions deleted",
    "versions undeleted",
    "tasks that another process went on with",
    *(f"streams: {form}" for form in STREAM_FORMATS),
    *(f"uploads: {form}" for form in UPLOAD_FORMATS),
    *(f"fits: {family}" for family in FAMILIES),
)
"""What is to have happened at least once: a soak in which it did not has shown less than it says."""
_IN_THE_END = (
    "jobs taken up more than once",
    "fits that ended CANCELLED",
    "fits that ended SUCCEEDED",
    "ingests that ended SUCCEEDED",
)
_ZERO = ("rows lost", "rows duplicated")
_SHOWN_FIRST = ("streams", "rows requested", "rows delivered", *_ZERO, "resumed streams", "resumptions")


@dataclass
class Report:
    """What came of a soak.

    Attributes:
        seed: Its seed.
        minutes: How long load and kills went on.
        tally: What was counted, and what was wrong.
        killer: What was killed.
        starts: How often each process was started.
        memory: Anonymous resident bytes of each service, each time they were taken.
    """

    seed: int
    minutes: float
    tally: Tally
    killer: Killer
    starts: Mapping[str, int]
    memory: Sequence[Mapping[str, int]] = field(default_factory=list)

    @property
    def never(self) -> list[str]:
        """What never happened, though it was to be tried."""
        return [*untried(self.tally, self.killer), *(what for what in _IN_THE_END if not self.tally.counts[what])]

    @property
    def good(self) -> bool:
        """Whether nothing was lost, duplicated, wrong or left out."""
        return not (self.tally.wrong or self.never or any(self.tally.counts[what] for what in _ZERO))

    def show(self, console: Console) -> None:
        """Print it."""
        console.print(_two_columns(f"Soak of {self.minutes:.1f} minutes, seed {self.seed}", self._counts()))
        console.print(self._kills())
        console.print(self._memory())
        for what in self.tally.wrong:
            console.print(f"WRONG: {what}", markup=False, highlight=False)
        for what in self.never:
            console.print(f"NEVER HAPPENED: {what}", markup=False, highlight=False)
        console.print("good" if self.good else "NOT GOOD")

    def _counts(self) -> dict[str, int]:
        counts = self.tally.counts
        rest = sorted(what for what in counts if what not in _SHOWN_FIRST)
        return {what: counts[what] for what in (*_SHOWN_FIRST, *rest)}

    def _kills(self) -> Table:
        table = Table("killed", *(number.name for number in SIGNALS))
        for kind in KINDS:
            table.add_row(kind, *(str(self.killer.kills[kind, number]) for number in SIGNALS))
        return table

    def _memory(self) -> Table:
        table = Table("service", "started", "MiB at the begin", "most", "at the end")
        for name in self.memory[0]:
            taken = [one[name] >> 20 for one in self.memory if name in one]
            table.add_row(name, str(self.starts[name]), str(taken[0]), str(max(taken)), str(taken[-1]))
        return table


def untried(tally: Tally, killer: Killer) -> list[str]:
    """Return what has not been tried yet of what tasks and kills are to try."""
    kills = [(kind, number) for kind in KINDS for number in SIGNALS if not killer.kills[kind, number]]
    return [
        *(what for what in _IN_TASKS if not tally.counts[what]),
        *(f"kill of a {kind} by {number.name}" for kind, number in kills),
    ]


def progress(seconds: float, tally: Tally, killer: Killer) -> str:
    """Return a line that says how far a soak is."""
    counts = tally.counts
    uploads, fits = (sum(counts[f"{what}: {one}"] for one in of) for what, of in _PROGRESS.items())
    return (
        f"{seconds / 60:5.1f} min: {counts['rows delivered']:,} rows in {counts['streams']} streams,"
        f" {counts['resumed streams']} resumed; {uploads} uploads, {fits} fits; {killer.kills.total()} kills;"
        f" {len(tally.wrong)} wrong"
    )


_PROGRESS = {"uploads": UPLOAD_FORMATS, "fits": FAMILIES}


def _two_columns(title: str, rows: Mapping[str, int]) -> Table:
    table = Table("counted", "number", title=title)
    table.columns[1].justify = "right"
    for what, number in rows.items():
        table.add_row(what, f"{number:,}")
    return table
