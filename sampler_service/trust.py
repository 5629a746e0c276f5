"""Which versions may be served: those that a trusted key has signed."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from rowmint.errors import UntrustedModelError
from rowmint.names import ModelName, ModelVersionName
from rowmint.registry import ModelVersionRecord
from rowmint.security.reloaded_file import ReloadedFile
from rowmint.security.signing import Signature, Statement, TrustedKeys

K = TypeVar("K")
V = TypeVar("V")

_KEPT = 4096  # verdicts, and versions whose signatures are remembered for when the registry is away


class SignatureReader(Protocol):
    """Reads signatures, as `rowmint.registry.ModelLedger` does. Thread-safe."""

    def signatures(
        self, model: ModelName, versions: Iterable[int], *, needed: bool = False
    ) -> Mapping[int, tuple[Signature, ...]]:
        """Return the signatures of versions of a model by number, not verified.

        Raises:
            UnavailableError: The registry cannot be reached; or it is of a time without any, and they are needed.
        """
        ...


def open_trusted_keys(path: str) -> ReloadedFile[TrustedKeys]:
    """Return the keys in a file, which is reloaded when it changes.

    Args:
        path: `ROWMINT_TRUSTED_KEYS`.

    Raises:
        UnavailableError: The file cannot be read.
        InvalidFieldError: It does not contain public keys.
    """
    return ReloadedFile([Path(path)], lambda contents: TrustedKeys.parse(contents[0]), "ROWMINT_TRUSTED_KEYS")


class Trust:
    """Judges versions by the keys that are trusted now. Safe to use from any thread.

    That a version may be served is remembered for as long as the keys stay as they are; that it may not is checked
    again each time, as it may have been signed meanwhile.

    Args:
        keys: The keys.
        reader: Where signatures are.
    """

    def __init__(self, keys: ReloadedFile[TrustedKeys], reader: SignatureReader) -> None:
        self._keys = keys
        self._reader = reader
        self._lock = threading.Lock()
        self._trusted: OrderedDict[Statement, int] = OrderedDict()
        self._signatures: OrderedDict[ModelVersionName, tuple[Signature, ...]] = OrderedDict()

    def is_known(self, model: ModelName, record: ModelVersionRecord) -> bool:
        """Return whether a version is known to be trusted by the keys as they are now; never waits for the registry.

        Args:
            model: The model requested.
            record: The version that was found.
        """
        generation, _ = self._keys.read()
        with self._lock:
            return self._trusted.get(_statement(model, record)) == generation

    def require(self, model: ModelName, record: ModelVersionRecord) -> None:
        """Return if a version may be served.

        Args:
            model: The model requested; the registry does not decide which it is.
            record: The version that was found.

        Raises:
            UntrustedModelError: No trusted key has signed these files as a version of this model.
            UnavailableError: The registry cannot be reached.
        """
        generation, keys = self._keys.read()
        statement = _statement(model, record)
        with self._lock:
            remembered = self._signatures.get(record.name, ())
        try:
            keys.require(statement, remembered, record.name)
        except UntrustedModelError:
            number = record.name.version
            found = self._reader.signatures(record.name.parent, [number], needed=True)[number]
            keys.require(statement, found, record.name)
            self._keep(self._signatures, record.name, found)
        self._keep(self._trusted, statement, generation)

    def _keep(self, kept: OrderedDict[K, V], key: K, value: V) -> None:
        with self._lock:
            kept[key] = value
            kept.move_to_end(key)
            if len(kept) > _KEPT:
                kept.popitem(last=False)


def _statement(model: ModelName, record: ModelVersionRecord) -> Statement:
    """Return what must be signed. The files are verified against the same two digests when they are loaded."""
    return Statement(model, record.manifest_sha256, record.weights_sha256)
