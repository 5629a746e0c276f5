"""Where a scenario takes place: a registry and two stores, embedded or remote, and what the registry names in them."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, select

from rowmint.objects import ObjectStore, open_store
from rowmint.registry import Part, Registry, open_registry
from rowmint.registry.engine import reading
from rowmint.registry.tables import datasets, model_versions, segments
from rowmint.store_marks import RESERVED
from tests.waiting import wait_until

# A killed worker's job is taken up after two seconds; a busy machine may well delay a running one's heartbeat for
# one. Everything else happens as soon as it can.
HASTE = {
    "ROWMINT_LEASE_SECONDS": "2",
    "ROWMINT_HEARTBEAT_SECONDS": "0.3",
    "ROWMINT_CHECKPOINT_SECONDS": "0",
    "ROWMINT_SEGMENT_BYTES": "16384",
    "ROWMINT_SWEEP_SECONDS": "0.5",
    # What an ended attempt left is moved aside by one sweep, and deleted by the next.
    "ROWMINT_ORPHAN_SECONDS": "0",
    "ROWMINT_KEEP_ORPHANS_SECONDS": "0.1",
    "ROWMINT_KEEP_DELETED_SECONDS": "0",
}

Stored = dict[str, tuple[int, str]]
"""Objects of a store: size in bytes and SHA-256 in hex, by key."""


def objects(store: ObjectStore) -> Iterator[str]:
    """Yield the keys of a store's objects, those kept aside too, but not of its marks, which are there for good."""
    marks = tuple(f"{RESERVED}{part}/" for part in Part)
    yield from (key for key in store.list("") if not key.startswith(marks))


@dataclass(frozen=True)
class Storage:
    """A registry and two stores.

    Attributes:
        home: Folder of logs and scratch, and of everything where all is embedded.
        registry: URL of the registry; empty: embedded.
        store: URL of a store that both are folders of; empty: embedded.
        options: Options of the stores.
    """

    home: Path
    registry: str = ""
    store: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def trainer(self, **more: str) -> dict[str, str]:
        """Return the environment of a trainer."""
        found = {"ROWMINT_HOME": str(self.home), **HASTE, **more}
        if self.registry:
            found["ROWMINT_REGISTRY"] = self.registry
        if self.store:
            found["ROWMINT_DATA_STORE"] = f"{self.store}/data"
            found |= self._models()
        return found

    def sampler(self) -> dict[str, str]:
        """Return the environment of a sampler."""
        found = {"ROWMINT_HOME": str(self.home)}
        if self.registry:
            found["ROWMINT_MODELS_REGISTRY"] = self.registry
        return found | (self._models() if self.store else {})

    def _models(self) -> dict[str, str]:
        return {
            "ROWMINT_MODEL_STORE": f"{self.store}/models",
            "ROWMINT_STORE_OPTIONS": json.dumps(dict(self.options)),
        }

    @contextmanager
    def open(self) -> Iterator["Inside"]:
        """Open registry and stores, to look at what they hold."""
        registry = open_registry(self.registry or f"sqlite:///{self.home}/registry")
        try:
            stores = [
                open_store(f"{self.store}/{name}" if self.store else f"file://{self.home}/{name}", dict(self.options))
                for name in ("data", "models")
            ]
            yield Inside(self.home, registry, *stores, embedded=not self.store)
        finally:
            registry.close()


@dataclass(frozen=True)
class Inside:
    """A registry and two stores, opened to look at."""

    home: Path
    registry: Registry
    data: ObjectStore
    models: ObjectStore
    embedded: bool

    def settle(self) -> None:
        """Wait until nothing is left to purge and sweep, then read every object back.

        To be called while no job is at work. Afterwards no object is there but those of datasets and versions that can
        be seen, and each of those is whole.
        """
        with contextlib.suppress(pytest.fail.Exception):  # what is not as it is to be, the next line says
            wait_until(self._is_clean, "the end of sweeping")
        garbage, data, models = self._swept()
        named = self._named()
        wrong = {"garbage": garbage, "data": data ^ set(named[0]), "models": models ^ set(named[1])}
        assert not any(wrong.values()), wrong
        assert self._stored() == named
        assert self._strays() == []

    def rest(self) -> None:
        """Wait until no temporary files are left."""
        scratch = self.home / "scratch"
        wait_until(
            lambda: [found.name for found in scratch.iterdir()] == [".lock"],
            "the removal of ended processes' temporary files",
        )

    def _swept(self) -> tuple[set[str], set[str], set[str]]:
        """Return the keys that are to be deleted, and those that are stored."""
        # The lists of garbage last: an object is gone before it is struck off.
        data, models = set(objects(self.data)), set(objects(self.models))
        return set(self.registry.datasets.garbage()) | set(self.registry.models.garbage()), data, models

    def _stored(self) -> tuple[Stored, Stored]:
        def read(store: ObjectStore) -> Stored:
            found = {key: store.get(key) for key in objects(store)}
            return {key: (len(data), hashlib.sha256(data).hexdigest()) for key, data in found.items()}

        return read(self.data), read(self.models)

    def _named(self) -> tuple[Stored, Stored]:
        """Return what belongs to datasets and versions that can be seen: an ended job needs no object."""
        data = self._rows(segments.c.object_key, segments.c.size, segments.c.sha256)
        data |= self._rows(datasets.c.canonical_key, datasets.c.canonical_size, datasets.c.canonical_sha256)
        at = model_versions.c
        models = self._rows(at.manifest_key, at.manifest_size, at.manifest_sha256)
        models |= self._rows(at.weights_key, at.weights_size, at.weights_sha256)
        return data, models

    def _rows(self, key: Column[Any], size: Column[Any], digest: Column[Any]) -> Stored:
        with reading(self.registry.engine) as connection:
            rows = connection.execute(select(key, size, digest).where(key.is_not(None))).all()
        return {row[0]: (row[1], row[2].hex()) for row in rows}

    def _is_clean(self) -> bool:
        return self._swept() == (set(), *map(set, self._named())) and self._strays() == []

    def _strays(self) -> list[str]:
        """Return files of embedded stores that are not objects: half-written ones."""
        if not self.embedded:
            return []
        files = [file for name in ("data", "models") for file in (self.home / name).rglob("*") if file.is_file()]
        return sorted(str(file.relative_to(self.home)) for file in files if file.name.startswith("."))
