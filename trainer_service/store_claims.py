"""Whether the stores belong to the registry: a trainer serves no others, and sweeps no others.

A registry that is empty, older than its stores or another one knows little of what is in them, and would be served as
if all was well. See `rowmint.store_marks` for what a store says about itself.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from uuid import uuid4

import structlog

from rowmint.errors import UnavailableError, WrongStateError
from rowmint.objects import ObjectStore
from rowmint.registry import AttemptRef, Identity, Part, Registry
from rowmint.store_marks import Mark, read_marks, write_mark
from trainer_service.jobs.stores import Stores
from trainer_service.object_keys import attempt_of

_log = structlog.get_logger(__name__)

_AT_ONCE = 1000
_NAMES = {Part.DATA: "the data store", Part.MODELS: "the models' store"}
_ADOPT = 'run "python -m trainer_service.adopt", which says what is lost; see "Backups" in docs/deployment.md'


def claim_stores(registry: Registry, stores: Stores) -> None:
    """Mark stores as the registry's own, unless they are another's, or hold what this one does not know. Idempotent.

    To be called before anything is served or swept. Of two registries that claim an empty store at once, at most one
    gets it.

    Raises:
        WrongStateError: A store belongs to another registry, or to a later state of this one; or the two parts of the
            registry are not of one.
        UnavailableError: Registry or store cannot be used.
    """
    # Marks first: each is written after the registry has come to where it says.
    marks = {part: read_marks(stores.of(part)) for part in Part}
    known = {part: registry.identity.read(part) for part in Part}
    if len({identity.uid for identity in known.values() if identity is not None}) > 1:
        raise WrongStateError(
            "the registry's two parts belong to different registries: a file or schema of it was restored alone or is"
            f" missing; put the right one back, or {_ADOPT}"
        )
    for part, identity in known.items():
        _require_own(part, identity, marks[part])
        if not any(mark.part is part for mark in marks[part]):
            _require_known(registry, part, stores.of(part))
    for part, identity in registry.identity.claim(uuid4().hex).items():
        mark = Mark(part, identity)
        write_mark(stores.of(part), mark)
        found = read_marks(stores.of(part))
        try:
            _require_own(part, registry.identity.read(part), found)
        except WrongStateError:
            stores.of(part).delete(mark.key)  # another registry has claimed it at the same moment
            raise


def renew_claims(registry: Registry, stores: Stores) -> None:
    """Bring the registry a generation further, and mark its stores with it.

    Raises:
        WrongStateError: A store belongs to another registry or to a later state of this one, as where the registry was
            restored under a running trainer; the stores are unchanged.
        UnavailableError: Registry or store cannot be used.
    """
    for part in Part:
        # Before it comes any further: one that was restored would catch up with the marks of its stores.
        marks = read_marks(stores.of(part))
        _require_own(part, registry.identity.read(part), marks)
    for part, identity in registry.identity.advance().items():
        if identity is None:
            raise WrongStateError(f"the registry has not claimed {_NAMES[part]}; start the trainer again")
        write_mark(stores.of(part), Mark(part, identity))


def mark_progress(registry: Registry, stores: Stores, *parts: Part) -> None:
    """Mark stores with where the registry is, after a commit that no backup from before it may hide.

    Where that fails, the next sweep does it.
    """
    try:
        for part in parts:
            identity = registry.identity.read(part)
            if identity is not None:
                write_mark(stores.of(part), Mark(part, identity))
    except UnavailableError as error:
        _log.warning("a store could not be marked", error=error.message)


def known_keys(keys: Iterable[str]) -> Iterator[Mapping[str, AttemptRef]]:
    """Yield the keys that are of our making, each with its attempt, in batches."""
    made = ((key, attempt) for key in keys if (attempt := attempt_of(key)) is not None)
    while batch := dict(itertools.islice(made, _AT_ONCE)):
        yield batch


def _require_own(part: Part, identity: Identity | None, marks: Iterable[Mark]) -> None:
    for mark in marks:
        if identity is None or mark.identity.uid != identity.uid:
            mine = "has never claimed a store" if identity is None else f"is {identity.uid}"
            raise WrongStateError(
                f"{_NAMES[part]} belongs to the registry {mark.identity.uid}, and this one {mine}: set ROWMINT_REGISTRY"
                f" to the one that belongs to it and put missing files back, or {_ADOPT}"
            )
        if mark.part is part and mark.identity.generation > identity.generation:
            raise WrongStateError(
                f"the registry is older than {_NAMES[part]} (generation {identity.generation} of"
                f" {mark.identity.generation}): it was restored from a backup; {_ADOPT}"
            )


def _require_known(registry: Registry, part: Part, store: ObjectStore) -> None:
    """Return if the registry knows any of the objects in a store without a mark, or there are none."""
    count = 0
    for batch in known_keys(store.list("")):
        if len(registry.orphans.sort(batch).unknown) < len(batch):
            return
        count += len(batch)
    if count:
        raise WrongStateError(
            f"the registry knows none of the {count} objects in {_NAMES[part]}: is ROWMINT_REGISTRY right, or is a file"
            f" of it missing? Put the right one back, or {_ADOPT}"
        )
