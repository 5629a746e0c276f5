"""Marks: objects that say which registry a store belongs to, and how far that registry had come.

A mark is a fact, so its key is one too: keys are immutable, and any number of processes may write marks at once. The
registry comes first, then its store: in a store of its own registry no mark is ahead of the registry. One that is ahead
shows that the registry was restored from a backup; one of another registry, that settings are wrong, or a file is lost.
"""

import json
import re
from dataclasses import dataclass

from rowmint.failpoints import reach
from rowmint.objects import ObjectStore
from rowmint.registry import Identity, Part

RESERVED = "_rowmint/"
"""What the keys of a store's own objects start with; no project's do, as its id starts with a letter."""
ASIDE = f"{RESERVED}aside/"
"""What the keys of objects start with that are kept aside before they are deleted."""
_FORM = re.compile(rf"{RESERVED}(data|models)/([0-9a-f]{{32}})/([0-9]{{12,}})")


@dataclass(frozen=True)
class Mark:
    """A mark in a store.

    Attributes:
        part: What the store holds the objects of.
        identity: The registry, at the generation when it was written.
    """

    part: Part
    identity: Identity

    @property
    def key(self) -> str:
        """Key of its object."""
        return f"{RESERVED}{self.part}/{self.identity.uid}/{self.identity.generation:012d}"


def read_marks(store: ObjectStore) -> tuple[Mark, ...]:
    """Return all marks of a store, for whichever part they were written.

    Raises:
        UnavailableError: The store cannot be read.
    """
    # By part, as what is kept aside may be much.
    found = (_FORM.fullmatch(key) for part in Part for key in store.list(f"{RESERVED}{part}/"))
    return tuple(Mark(Part(one[1]), Identity(one[2], int(one[3]))) for one in found if one)


def write_mark(store: ObjectStore, mark: Mark) -> None:
    """Write a mark, and delete the older ones of the same registry and part.

    Raises:
        UnavailableError: The store cannot be written.
    """
    identity = mark.identity
    store.put(mark.key, json.dumps({"registry": identity.uid, "generation": identity.generation}).encode())
    reach("mark.written")
    for other in read_marks(store):
        older = other.identity.generation < identity.generation
        if (other.part, other.identity.uid) == (mark.part, identity.uid) and older:
            store.delete(other.key)
