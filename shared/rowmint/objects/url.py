"""Opening of object stores by URL."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rowmint.errors import InvalidFieldError
from rowmint.objects.files import PRIVATE, FileAccess
from rowmint.objects.interface import ObjectStore
from rowmint.objects.local import LocalDirectoryStore
from rowmint.objects.memory import MemoryStore
from rowmint.objects.remote import RemoteStore


def open_store(url: str, options: Mapping[str, Any] | None = None, access: FileAccess = PRIVATE) -> ObjectStore:
    """Open the store at `url`.

    Args:
        url: ``file:///dir``, ``memory://name`` (a new, empty store; the name is only a label), or
            ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://account/container/prefix``.
        options: For remote stores only: ``client_options`` and ``retry_config`` (mappings), named as in obstore, with
            durations in seconds; all other entries configure the service (``endpoint``, ``region``, keys).
        access: For directories only: who may read what is written.

    Raises:
        InvalidFieldError: The URL or an option is invalid.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidFieldError("store_url", f"{url!r} must be of the form file:///absolute/directory")
        return LocalDirectoryStore(Path(unquote(parts.path)), access)
    if parts.scheme == "memory":
        return MemoryStore()
    if parts.scheme in ("s3", "gs", "az"):
        return RemoteStore.open(url, dict(options or {}))
    raise InvalidFieldError("store_url", f"the scheme {parts.scheme!r} is not one of file, memory, s3, gs, az")
