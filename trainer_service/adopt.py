"""Gives a registry stores that another has marked, or a later state of itself: ``python -m trainer_service.adopt``.

For after a restore. Without ``--yes`` it only says what is lost. It reads the trainer's settings from the environment;
no service may be using the registry.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from uuid import uuid4

from rowmint.errors import WrongStateError
from rowmint.names import ModelName
from rowmint.objects import Entry
from rowmint.registry import AttemptSpan, Identity, Maker, NamedObject, Part, Registry, open_registry
from rowmint.rpc.process import one_line_errors
from rowmint.store_marks import Mark, read_marks, write_mark
from trainer_service.jobs.stores import Stores, open_stores
from trainer_service.object_keys import attempt_of, kept_aside
from trainer_service.settings import TrainerSettings
from trainer_service.store_claims import known_keys

_KINDS = {Maker.WRITER: "uploads", Maker.INGEST: "tables", Maker.JOB: "checkpoints"}


@dataclass(frozen=True)
class Unknown:
    """Objects that the registry does not know, of one kind.

    Attributes:
        what: The model that they are versions of, or ``uploads``, ``tables``, ``checkpoints``.
        objects: Their number.
        size: Bytes.
    """

    what: str
    objects: int
    size: int


@dataclass(frozen=True)
class Survey:
    """How registry and stores differ.

    Attributes:
        identities: The identity of each part of the registry that has one.
        marks: The marks of each store.
        lost: Datasets and versions that the registry knows and of which an object is missing.
        unknown: What the registry does not know; it stays.
        spans: The attempts that have left objects.
    """

    identities: Mapping[Part, Identity]
    marks: Mapping[Part, tuple[Mark, ...]]
    lost: tuple[str, ...]
    unknown: tuple[Unknown, ...]
    spans: tuple[AttemptSpan, ...]


def survey(registry: Registry, stores: Stores) -> Survey:
    """Compare a registry with its stores; nothing is changed.

    Raises:
        WrongStateError: A worker is at work.
        UnavailableError: Registry or store cannot be used.
    """
    leased = registry.adoption.leased()
    if leased:
        raise WrongStateError(f"workers hold {leased} jobs: stop every trainer, and wait for leases to end")
    entries = {part: {entry.key: entry for entry in stores.of(part).entries("")} for part in Part}
    identities = {part: found for part in Part if (found := registry.identity.read(part)) is not None}
    return Survey(
        identities,
        {part: read_marks(stores.of(part)) for part in Part},
        tuple(_lost(registry.adoption.named(), entries)),
        tuple(_unknown(registry, entries)),
        tuple(_spans(key for found in entries.values() for key in found)),
    )


def adopt(registry: Registry, stores: Stores, found: Survey) -> None:
    """Let stores belong to a registry from now on, and no attempt reuse a number that they know. Idempotent.

    Raises:
        UnavailableError: Registry or store cannot be used; to be repeated.
    """
    own = [found.identities[part].uid for part in Part if part in found.identities]
    uid = own[0] if own else uuid4().hex
    identities = {}
    for part in Part:
        known = [mark.identity.generation for mark in found.marks[part] if mark.part is part]
        known += [found.identities[part].generation] if part in found.identities else []
        identities[part] = Identity(uid, max(known, default=0) + 1)
    registry.adoption.adopt(found.spans, identities)
    for part, identity in identities.items():
        write_mark(stores.of(part), Mark(part, identity))
    for part in Part:
        for mark in read_marks(stores.of(part)):
            if mark.identity.uid != uid:
                stores.of(part).delete(mark.key)


def _lost(named: Iterable[NamedObject], entries: Mapping[Part, Mapping[str, Entry]]) -> Iterator[str]:
    """Yield each owner of an object that is not there, once; what is kept aside is put back by the next sweep."""
    there = {part: {(kept_aside(key) or (key,))[0] for key in found} for part, found in entries.items()}
    yield from dict.fromkeys(one.owner for one in named if one.key not in there[one.part])


def _unknown(registry: Registry, entries: Mapping[Part, Mapping[str, Entry]]) -> Iterator[Unknown]:
    sizes: dict[str, list[int]] = {}
    for found in entries.values():
        for made in known_keys(found):
            known = registry.orphans.sort(made)
            # As no worker is at work, what is in none of these was made after the backup.
            for key in sorted(made.keys() - {*known.named, *known.ended, *known.deleted}):
                maker = made[key].maker
                what = str(ModelName(*key.split("/")[:2])) if maker is Maker.VERSION else _KINDS[maker]
                sizes.setdefault(what, []).append(found[key].size)
    yield from (Unknown(what, len(of_kind), sum(of_kind)) for what, of_kind in sorted(sizes.items()))


def _spans(keys: Iterable[str]) -> Iterator[AttemptSpan]:
    last: dict[tuple[Maker, str], int] = {}
    for key in keys:
        attempt = attempt_of((kept_aside(key) or (key,))[0])
        if attempt is not None:
            made = Maker.VERSION if attempt.maker is Maker.JOB else attempt.maker, attempt.uid
            last[made] = max(last.get(made, 0), attempt.epoch)
    yield from (AttemptSpan(*made, epoch) for made, epoch in sorted(last.items()))


def _lines(found: Survey, *, adopted: bool) -> Iterator[str]:
    for part in Part:
        identity = found.identities.get(part)
        own = "no identity" if identity is None else f"{identity.uid}, generation {identity.generation}"
        marks = ", ".join(f"{mark.identity.uid}, generation {mark.identity.generation}" for mark in found.marks[part])
        yield f"{part}: registry {own}; store marked by {marks or 'none'}"
    yield f"in the registry, without its bytes in a store: {len(found.lost) or 'nothing'}"
    yield from (f"  {name}" for name in found.lost)
    yield f"in a store, not known to the registry, and left there: {'' if found.unknown else 'nothing'}".rstrip()
    yield from (f"  {one.what}: {one.objects} objects, {one.size} bytes" for one in found.unknown)
    yield "adopted; start the trainer" if adopted else "nothing was changed; add --yes to adopt the stores"


def _document(found: Survey, *, adopted: bool) -> str:
    parts = {
        part: {
            "registry": asdict(found.identities[part]) if part in found.identities else None,
            "marks": [asdict(mark.identity) for mark in found.marks[part]],
        }
        for part in Part
    }
    return json.dumps(
        {"parts": parts, "lost": found.lost, "unknown": [asdict(one) for one in found.unknown], "adopted": adopted}
    )


def main() -> None:
    """Say what is lost, and adopt the stores where that is confirmed."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer_service.adopt",
        description="Says what is lost between a registry and its stores, such as after a restore, and lets the stores"
        " belong to the registry. Settings are read from the environment, as by the trainer. Stop all trainers first.",
    )
    parser.add_argument("--yes", action="store_true", help="adopt the stores; without it, nothing is changed")
    parser.add_argument("--json", action="store_true", help="print an object instead of lines")
    arguments = parser.parse_args()
    with one_line_errors("adopt"):
        settings = TrainerSettings()
        stores = open_stores(settings)
        # Opened to be read first: what is looked at is not to be created.
        with contextlib.closing(open_registry(settings.registry_url, read_only=True)) as registry:
            found = survey(registry, stores)
        if arguments.yes:
            with contextlib.closing(open_registry(settings.registry_url)) as registry:
                adopt(registry, stores, found)
        show = _document if arguments.json else lambda found, adopted: "\n".join(_lines(found, adopted=adopted))
        sys.stdout.write(f"{show(found, adopted=arguments.yes)}\n")


if __name__ == "__main__":
    main()
