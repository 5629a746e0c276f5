"""Public keys that verify tokens: read from a file, or fetched from the issuer of the tokens."""

import asyncio
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import InvalidKeyError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from rowmint.errors import InvalidFieldError, RowmintError, UnavailableError
from rowmint.security.loopback import is_loopback
from rowmint.security.reloaded_file import ReloadedFile

_log = structlog.get_logger(__name__)

SETTING = "ROWMINT_JWT_KEYS"
FETCH_SECONDS = 5.0
"""Timeout of a fetch."""
FRESH_SECONDS = 300.0
"""Time for which fetched keys are used without fetching again."""
PAUSE_SECONDS = 10.0
"""Minimum time between the starts of two fetches, so that tokens with unknown keys cannot cause more."""
MAX_BYTES = 1 << 20
MAX_KEYS = 64
"""Maximum number of keys of a set; a token without a key id may be tried with each of them."""
MIN_RSA_BITS = 2048

_MAKERS: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True)
class TokenKey:
    """One public key.

    Attributes:
        id: Its key id (`kid`), or None if it has none.
        public: The key.
        algorithms: Algorithms it may verify; only those of its key type.
    """

    id: str | None
    public: PublicKey
    algorithms: frozenset[str]


class KeySource(Protocol):
    """A source of keys that verify tokens."""

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[TokenKey]:
        """Return the keys that may have signed a token.

        Args:
            key_id: Key id in the token's header, or None.
            algorithm: Algorithm in the token's header.

        Raises:
            UnavailableError: The keys cannot be fetched now.
        """


def open_keys(keys: str, clock: Callable[[], float] = time.monotonic) -> KeySource:
    """Open a source of keys.

    Args:
        keys: Path of a PEM file with one public key or of a JWKS, or URL of a JWKS: https, or http on this machine.
        clock: Monotonic seconds.

    Raises:
        UnavailableError: A file cannot be read.
        InvalidFieldError: A file holds no keys, or keys may not be fetched from the URL.
    """
    return FetchedKeys(_checked_url(keys), clock) if "://" in keys else KeyFile(Path(keys))


def _matching(keys: Sequence[TokenKey], key_id: str | None, algorithm: str) -> list[TokenKey]:
    return [
        key for key in keys if algorithm in key.algorithms and (key_id is None or key.id is None or key.id == key_id)
    ]


class KeyFile:
    """Keys of a file, reloaded when it changes.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = ReloadedFile([path], lambda contents: parse_keys(contents[0], str(path)), SETTING)

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[TokenKey]:
        """See `KeySource.find`."""
        return _matching(self._file.value, key_id, algorithm)


class FetchedKeys:
    """Keys of a URL: fetched when first needed, when five minutes old, and when a requested key is not among them.

    At most one fetch runs at a time, and concurrent callers share it. After a failed fetch, the previous keys are used
    without waiting for the next fetch. Used by one event loop.

    Args:
        url: The URL.
        clock: Monotonic seconds.
    """

    def __init__(self, url: SplitResult, clock: Callable[[], float]) -> None:
        self._url = url
        self._clock = clock
        self._keys: Sequence[TokenKey] | None = None
        self._fetch_time = 0.0
        self._last_start: float | None = None
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[TokenKey]:
        """See `KeySource.find`."""
        if self._keys is None:
            await self._fetch()
        elif self._clock() - self._fetch_time >= FRESH_SECONDS:
            if self._failing:
                self._start_fetch()
            else:
                await self._fetch()
        if self._keys is not None and (found := _matching(self._keys, key_id, algorithm)):
            return found
        await self._fetch()
        if self._keys is None:
            raise UnavailableError(
                "the keys that verify tokens cannot be fetched now; retry the call", retry_after=PAUSE_SECONDS
            )
        return _matching(self._keys, key_id, algorithm)

    async def _fetch(self) -> None:
        """Wait for the running fetch, or for a new one if one may start now."""
        self._start_fetch()
        if self._task is not None:
            # A cancelled call must not cancel the fetch that others share.
            await asyncio.shield(self._task)

    def _start_fetch(self) -> None:
        """Start a fetch, unless one is running or the last one started less than `PAUSE_SECONDS` ago."""
        if self._task is not None:
            if not self._task.done():
                return
            self._task = None
        now = self._clock()
        if self._last_start is None or now - self._last_start >= PAUSE_SECONDS:
            self._last_start = now
            self._task = asyncio.get_running_loop().create_task(self._fetch_keys())

    async def _fetch_keys(self) -> None:
        try:
            content = await asyncio.to_thread(fetch, self._url)
            self._keys = parse_keys(content, _without_query(self._url))
        except (OSError, ValueError, http.client.HTTPException, RowmintError) as error:
            if not self._failing:
                message = error.message if isinstance(error, RowmintError) else f"{type(error).__name__}: {error}"
                _log.warning("token keys cannot be fetched; the previous keys stay in use", error=message)
            self._failing = True
        else:
            self._fetch_time = self._clock()
            self._failing = False


def _checked_url(text: str) -> SplitResult:
    """Parse a URL, refusing those that keys may not be fetched from."""
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise InvalidFieldError(SETTING, "is not a URL that can be parsed") from error
    if url.username is not None or url.password is not None:
        raise InvalidFieldError(SETTING, "has a user name or password in its URL; remove it, public keys need none")
    if not host or url.scheme not in ("https", "http"):
        raise InvalidFieldError(SETTING, f"{text!r} must be the path of a file or an https:// URL")
    if url.scheme == "http" and not is_loopback(host):
        raise InvalidFieldError(SETTING, f"{text!r}: keys sent without TLS can be forged; use https://")
    return url


def _without_query(url: SplitResult) -> str:
    """Return a URL for errors and the log, without its query, which may contain a secret."""
    return url._replace(query="", fragment="").geturl()


def fetch(url: SplitResult) -> bytes:
    """Return the content of a URL. Redirects are not followed, as they may lead to any host.

    Raises:
        OSError, ValueError: It cannot be fetched within `FETCH_SECONDS`, or is larger than `MAX_BYTES`.
        http.client.HTTPException: The answer is not HTTP.
    """
    host = str(url.hostname)
    if url.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, url.port, timeout=FETCH_SECONDS, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, url.port, timeout=FETCH_SECONDS)
    timed_out = threading.Event()
    timer = None
    start = time.monotonic()
    try:
        connection.connect()
        # The connection's own timeout applies to each read: a server that sends single bytes would never exceed it.
        left = start + FETCH_SECONDS - time.monotonic()
        timer = threading.Timer(left, _shut_down, [connection.sock, timed_out])
        timer.daemon = True
        timer.start()
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("GET", target, headers={"Accept": "application/jwk-set+json, application/json"})
        with connection.getresponse() as response:
            if response.status != HTTPStatus.OK:
                raise OSError(f"{_without_query(url)}: HTTP status {response.status}")
            content = response.read(MAX_BYTES + 1)
    finally:
        if timer is not None:
            timer.cancel()
        connection.close()
    if timed_out.is_set():
        raise TimeoutError(f"{_without_query(url)}: took longer than {FETCH_SECONDS:g} s")
    if len(content) > MAX_BYTES:
        raise OSError(f"{_without_query(url)}: more than {MAX_BYTES} bytes")
    return content


def _shut_down(connected: socket.socket, timed_out: threading.Event) -> None:
    """Shut down a connection while another thread reads from it."""
    timed_out.set()
    with suppress(OSError):  # already closed
        # Not `SSLSocket.shutdown`, which discards state that the other thread uses.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def parse_keys(content: bytes, where: str) -> tuple[TokenKey, ...]:
    """Return the keys of a JWKS (RFC 7517) or of a PEM file with one public key.

    Members of a set that cannot verify tokens, such as keys for encryption, are ignored.

    Args:
        content: The set or file.
        where: Path or URL it was read from, for errors.

    Raises:
        InvalidFieldError: There is no key that can verify tokens.
    """
    keys = _parse_set(content, where) if content.lstrip()[:1] == b"{" else (_parse_pem(content, where),)
    if not keys:
        raise InvalidFieldError(
            SETTING, f"{where} has no key that can verify tokens: RSA of {MIN_RSA_BITS} bits or more, P-256 or Ed25519"
        )
    return keys


def _parse_pem(content: bytes, where: str) -> TokenKey:
    if content.count(b"-----BEGIN ") != 1:
        raise InvalidFieldError(SETTING, f"{where} must hold one public key (PEM), or a JSON Web Key Set")
    if b"PRIVATE KEY" in content:
        raise InvalidFieldError(
            SETTING, f"{where} holds a private key, which belongs to the issuer alone; use its public key"
        )
    try:
        public = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidFieldError(SETTING, f"{where} must hold a valid public key (PEM)") from error
    algorithms = _algorithms(public)
    if not algorithms or not isinstance(public, PublicKey):
        raise InvalidFieldError(
            SETTING, f"{where}: the key must be RSA of {MIN_RSA_BITS} bits or more, P-256 or Ed25519 to verify tokens"
        )
    return TokenKey(None, public, algorithms)


def _algorithms(key: object) -> frozenset[str]:
    """Return the algorithms that a key may verify; none if it is too short, of another type, or private."""
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return frozenset({"RS256", "PS256"})
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return frozenset({"ES256"})
    return frozenset({"EdDSA"}) if isinstance(key, Ed25519PublicKey) else frozenset()


def _parse_set(content: bytes, where: str) -> tuple[TokenKey, ...]:
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidFieldError(SETTING, f"{where} is not JSON that can be parsed") from error
    members = given.get("keys")
    if not isinstance(members, list):
        raise InvalidFieldError(SETTING, f"{where} is not a JSON Web Key Set: it has no list 'keys'")
    if len(members) > MAX_KEYS:
        raise InvalidFieldError(SETTING, f"{where} has {len(members)} keys; at most {MAX_KEYS} are allowed")
    return tuple(key for key in map(_parse_member, members) if key is not None)


def _parse_member(member: Any) -> TokenKey | None:
    """Return one key of a set, or None if it cannot verify tokens (RFC 7517, section 5: such keys are ignored)."""
    if not isinstance(member, dict) or member.get("use", "sig") != "sig":
        return None
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    key_id = member.get("kid")
    make = _MAKERS.get(str(member.get("kty")))
    if make is None or not isinstance(key_id, str | None):
        return None
    try:
        public = make(member)
    except (InvalidKeyError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    algorithms = _algorithms(public)
    if "alg" in member:
        algorithms = frozenset(one for one in algorithms if one == member["alg"])
    return TokenKey(key_id, public, algorithms) if algorithms and isinstance(public, PublicKey) else None
