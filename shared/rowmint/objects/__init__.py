"""Object stores: bytes under immutable keys.

A store holds what is too large for the registry: uploaded segments, canonical tables, weights. The registry refers to
objects and records their size and SHA-256. Writing an object is therefore never a commit, and an object without a
registry row is garbage.
"""

from rowmint.objects.files import PRIVATE, FileAccess
from rowmint.objects.interface import Entry, ObjectStore, validate_key
from rowmint.objects.local import LocalDirectoryStore
from rowmint.objects.memory import MemoryStore
from rowmint.objects.remote import RemoteStore
from rowmint.objects.url import open_store

__all__ = [
    "PRIVATE",
    "Entry",
    "FileAccess",
    "LocalDirectoryStore",
    "MemoryStore",
    "ObjectStore",
    "RemoteStore",
    "open_store",
    "validate_key",
]
