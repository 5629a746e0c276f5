"""What a client has done, on disk: the process that replaces it continues from there, and the report adds it up."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Tally:
    """What is counted of one task, and what was wrong in it.

    Attributes:
        counts: Numbers by what they count.
        wrong: What was not as it is to be.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, what: str, number: int = 1) -> None:
        """Count something."""
        self.counts[what] += number

    def expect(self, holds: bool, what: str) -> None:
        """Note what is wrong where something does not hold."""
        if not holds:
            self.wrong.append(what)

    def take(self, other: "Tally") -> None:
        """Add what another has counted."""
        self.counts += other.counts
        self.wrong += other.wrong


class TaskLog:
    """A file of lines, each written at once. Its writer may be killed at any moment.

    Args:
        file: The file; made where it is not there.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def begin(self, number: int) -> None:
        """Note that a task begins."""
        self._append({"begun": number})

    def end(self, number: int, tally: Tally) -> None:
        """Note that a task is done, and what came of it."""
        self._append({"ended": number, "counts": dict(tally.counts), "wrong": tally.wrong})

    def next_task(self) -> tuple[int, bool]:
        """Return the number of the task to do next, and whether it was begun before."""
        begun = ended = -1
        for line in self._lines():
            begun, ended = line.get("begun", begun), line.get("ended", ended)
        return (begun, True) if begun > ended else (ended + 1, False)

    def total(self) -> Tally:
        """Return what all tasks that are done have counted."""
        found = Tally()
        for line in self._lines():
            found.take(Tally(Counter(line.get("counts", {})), line.get("wrong", [])))
        return found

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self._file.exists():
            return
        # What follows the last line's end is a line that is being written, or never will be.
        for line in self._file.read_bytes().split(b"\n")[:-1]:
            if line:
                yield json.loads(line)

    def _append(self, body: dict[str, Any]) -> None:
        file = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, json.dumps(body).encode() + b"\n")
        finally:
            os.close(file)
