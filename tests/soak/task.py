"""One task of a client, and what it is done with."""

import random
from dataclasses import dataclass
from pathlib import Path

from rowmint.client import Client
from tests.crash.storage import Inside
from tests.soak.place import Place
from tests.soak.references import References
from tests.soak.task_log import Tally


@dataclass
class Task:
    """One task.

    Attributes:
        place: Where.
        owner: Name of the client.
        number: The task's number among the client's, from 0.
        again: Whether another process has begun it, and was killed.
        draw: Its random numbers: the same ones each time it is begun.
        client: Makes the calls.
        inside: Registry and stores, to look at what they hold.
        references: What streams are to give.
        tally: What is counted of it.
    """

    place: Place
    owner: str
    number: int
    again: bool
    draw: random.Random
    client: Client
    inside: Inside
    references: References
    tally: Tally

    @property
    def name(self) -> str:
        """Its name; what it makes is named so, too."""
        return f"{self.owner}-{self.number}"

    @property
    def file(self) -> Path:
        """File without suffix that it may keep something in."""
        folder = self.place.folder / "kept"
        folder.mkdir(exist_ok=True)
        return folder / self.name
