"""Where the soak takes place: what every process of it reads from a file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from rowmint.client import Client, RetryPolicy
from tests.crash.scenario import CHANNEL
from tests.crash.storage import Storage

BASE = "base"
"""The dataset and, with a family's name behind it, the models that are there from the start and stay."""
FAMILIES = ("ctgan", "tvae", "independent")
PATIENCE = RetryPolicy(attempts=300, unary_attempts=300, first_delay=0.05, longest_delay=0.5)
"""Longer than any service takes to be there again."""

HASTE = {
    # Far longer than a busy machine delays a worker's heartbeat.
    "ROWMINT_LEASE_SECONDS": "10",
    "ROWMINT_HEARTBEAT_SECONDS": "0.5",
    "ROWMINT_CHECKPOINT_SECONDS": "0.2",
    "ROWMINT_SEGMENT_BYTES": "16384",
    "ROWMINT_SWEEP_SECONDS": "2",
    "ROWMINT_ORPHAN_SECONDS": "0",
    "ROWMINT_KEEP_ORPHANS_SECONDS": "2",
    # Longer than a stream of a deleted version lasts; what is purged in the end is waited for.
    "ROWMINT_KEEP_DELETED_SECONDS": "60",
    "ROWMINT_GRACE_SECONDS": "5",
}


@dataclass(frozen=True)
class Place:
    """A registry, two stores, and who serves them.

    Attributes:
        home: Folder of everything.
        seed: Seed of load and kills.
        trainers: Addresses of the trainers.
        samplers: Addresses of the replicas that are killed.
        undisturbed: Address of the replica that is not.
        registry: URL of the registry; empty: embedded.
        store: URL of a store that both are folders of; empty: embedded.
        options: Options of the stores, as JSON.
    """

    home: str
    seed: int
    trainers: tuple[str, ...]
    samplers: tuple[str, ...]
    undisturbed: str
    registry: str = ""
    store: str = ""
    options: str = "{}"

    @property
    def folder(self) -> Path:
        """Folder of everything."""
        return Path(self.home)

    @property
    def storage(self) -> Storage:
        """Registry and stores."""
        return Storage(self.folder, self.registry, self.store, json.loads(self.options))

    @property
    def over(self) -> Path:
        """File that is there once clients are to begin nothing new."""
        return self.folder / "over"

    @property
    def file(self) -> Path:
        """File from which other processes read it."""
        return self.folder / "place.json"

    def write(self) -> None:
        """Write the file."""
        self.file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return what `write` wrote."""
        body = json.loads(file.read_text())
        return cls(**{**body, "trainers": tuple(body["trainers"]), "samplers": tuple(body["samplers"])})

    @contextmanager
    def client(self, number: int = 0) -> Iterator[Client]:
        """Open a client of one of the trainers and all samplers that are killed."""
        trainer = self.trainers[number % len(self.trainers)]
        with Client(trainer, self.samplers, retry=PATIENCE, channel_options=CHANNEL) as client:
            yield client
