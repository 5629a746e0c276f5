"""Object stores: bytes under immutable keys.

A store holds what is too large for the registry: raw segments, canonical tables, weights. The registry says which
objects count and what their size and SHA-256 are; a store only keeps bytes. Writing an object is therefore never a
commit, and an object that no registry row names is garbage, not data.
"""

from rowmint.objects.interface import ObjectStore, validate_key
from rowmint.objects.local import LocalDirectoryStore
from rowmint.objects.memory import MemoryStore
from rowmint.objects.remote import RemoteStore
from rowmint.objects.url import open_store

__all__ = ["LocalDirectoryStore", "MemoryStore", "ObjectStore", "RemoteStore", "open_store", "validate_key"]
