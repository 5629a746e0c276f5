"""Public keys that tokens are verified by: of a file, or fetched from whoever issues the tokens."""

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
from rowmint.security.watched import Watched

_log = structlog.get_logger(__name__)

SETTING = "ROWMINT_JWT_KEYS"
FETCH_SECONDS = 5.0
"""Time that a fetch may take."""
FRESH_SECONDS = 300.0
"""Time for which fetched keys are good."""
PAUSE_SECONDS = 10.0
"""Time from the start of one fetch to that of the next, at least: who sends unknown keys' tokens causes no more."""
MAX_BYTES = 1 << 20
MAX_KEYS = 64
"""Keys of a set; a token that names none of them may be tried with all."""
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
        id: What tokens call it (`kid`), or None where it has no name.
        public: The key.
        algorithms: What it may verify: never anything that another type of key is for.
    """

    id: str | None
    public: PublicKey
    algorithms: frozenset[str]


class KeySource(Protocol):
    """Where the keys come from."""

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[TokenKey]:
        """Return the keys that may have signed a token.

        Args:
            key_id: What the token says of its key, or None.
            algorithm: What it says it is signed by.

        Raises:
            UnavailableError: No keys can be had now.
        """


def open_keys(keys: str, clock: Callable[[], float] = time.monotonic) -> KeySource:
    """Return where keys come from.

    Args:
        keys: Path of a PEM file with one public key or of a JWKS, or URL of a JWKS: https, or http on this machine.
        clock: Monotonic seconds.

    Raises:
        UnavailableError: A file cannot be read.
        InvalidFieldError: A file holds no keys, or the URL is none that keys may come from.
    """
    return FetchedKeys(_checked_url(keys), clock) if "://" in keys else KeyFile(Path(keys))


def _fitting(keys: Sequence[TokenKey], key_id: str | None, algorithm: str) -> list[TokenKey]:
    return [
        key for key in keys if algorithm in key.algorithms and (key_id is None or key.id is None or key.id == key_id)
    ]


class KeyFile:
    """Keys of a file, read anew when it changes.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._watched = Watched([path], lambda contents: parse_keys(contents[0], str(path)), SETTING)

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[TokenKey]:
        """See `KeySource.find`."""
        return _fitting(self._watched.value, key_id, algorithm)


class FetchedKeys:
    """Keys of a URL: fetched when first needed, when five minutes old, and when one that is asked for is not there.

    There is one fetch at a time, however many wait for it. Once one failed, the last keys are used without waiting for
    the next. Used by one event loop.

    Args:
        url: The URL.
        clock: Monotonic seconds.
    """

    def __init__(self, url: SplitResult, clock: Callable[[], float]) -> None:
        self._url = url
        self._clock = clock
        self._keys: Sequence[TokenKey] | None = None
        self._fetched = 0.0
        self._begun: float | None = None
        self._away = False
        self._flight: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[TokenKey]:
        """See `KeySource.find`."""
        if self._keys is None:
            await self._fetch()
        elif self._clock() - self._fetched >= FRESH_SECONDS:
            if self._away:
                self._take_off()
            else:
                await self._fetch()
        if self._keys is not None and (found := _fitting(self._keys, key_id, algorithm)):
            return found
        await self._fetch()
        if self._keys is None:
            raise UnavailableError(
                "the keys that tokens are verified by cannot be had now; try again", retry_after=PAUSE_SECONDS
            )
        return _fitting(self._keys, key_id, algorithm)

    async def _fetch(self) -> None:
        """Wait for a fetch, where one may be made now or is on its way."""
        self._take_off()
        if self._flight is not None:
            # Whoever goes away takes nobody else's fetch with them.
            await asyncio.shield(self._flight)

    def _take_off(self) -> None:
        if self._flight is not None:
            if not self._flight.done():
                return
            self._flight = None
        now = self._clock()
        if self._begun is None or now - self._begun >= PAUSE_SECONDS:
            self._begun = now
            self._flight = asyncio.get_running_loop().create_task(self._fly())

    async def _fly(self) -> None:
        try:
            content = await asyncio.to_thread(fetch, self._url)
            self._keys = parse_keys(content, _place(self._url))
        except (OSError, ValueError, http.client.HTTPException, RowmintError) as error:
            if not self._away:
                why = error.message if isinstance(error, RowmintError) else f"{type(error).__name__}: {error}"
                _log.warning("keys of tokens cannot be fetched; the last ones stay in force", why=why)
            self._away = True
        else:
            self._fetched = self._clock()
            self._away = False


def _checked_url(text: str) -> SplitResult:
    """Return the parts of a URL that keys may be fetched from."""
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise InvalidFieldError(SETTING, "is no URL that can be read") from error
    if url.username is not None or url.password is not None:
        raise InvalidFieldError(SETTING, "has a name or password in its URL; public keys need none")
    if not host or url.scheme not in ("https", "http"):
        raise InvalidFieldError(SETTING, f"{text!r} must be the path of a file or an https:// URL")
    if url.scheme == "http" and not is_loopback(host):
        raise InvalidFieldError(SETTING, f"{text!r}: keys that come in plain text may be anybody's; use https://")
    return url


def _place(url: SplitResult) -> str:
    """Return a URL for errors and the log, without its query: that may be a secret."""
    return url._replace(query="", fragment="").geturl()


def fetch(url: SplitResult) -> bytes:
    """Return what is at a URL. No redirect is followed: it may lead anywhere.

    Raises:
        OSError, ValueError: It cannot be had within `FETCH_SECONDS`, or is larger than `MAX_BYTES`.
        http.client.HTTPException: It is no HTTP.
    """
    host = str(url.hostname)
    if url.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, url.port, timeout=FETCH_SECONDS, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, url.port, timeout=FETCH_SECONDS)
    late = threading.Event()
    end = None
    begun = time.monotonic()
    try:
        connection.connect()
        # The connection's own timeout is for each read: a server that sends a byte now and then would never meet it.
        left = begun + FETCH_SECONDS - time.monotonic()
        end = threading.Timer(left, _hang_up, [connection.sock, late])
        end.daemon = True
        end.start()
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("GET", target, headers={"Accept": "application/jwk-set+json, application/json"})
        with connection.getresponse() as response:
            if response.status != HTTPStatus.OK:
                raise OSError(f"{_place(url)}: HTTP status {response.status}")
            content = response.read(MAX_BYTES + 1)
    finally:
        if end is not None:
            end.cancel()
        connection.close()
    if late.is_set():
        raise TimeoutError(f"{_place(url)}: took longer than {FETCH_SECONDS:g} s")
    if len(content) > MAX_BYTES:
        raise OSError(f"{_place(url)}: more than {MAX_BYTES} bytes")
    return content


def _hang_up(connected: socket.socket, late: threading.Event) -> None:
    """End a connection under the thread that reads from it."""
    late.set()
    with suppress(OSError):  # it is closed by now
        # Not the method of a TLS socket: that takes apart what the other thread uses.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def parse_keys(content: bytes, where: str) -> tuple[TokenKey, ...]:
    """Return the keys of a JWKS (RFC 7517) or of a PEM file with one public key.

    Members of a set that cannot verify tokens, as those for encryption, are left out.

    Args:
        content: The set or file.
        where: Where it comes from, for errors.

    Raises:
        InvalidFieldError: There is no key that can verify tokens.
    """
    keys = _parse_set(content, where) if content.lstrip()[:1] == b"{" else (_parse_pem(content, where),)
    if not keys:
        raise InvalidFieldError(
            SETTING, f"{where} has no key to verify tokens by: RSA of {MIN_RSA_BITS} bits or more, P-256 or Ed25519"
        )
    return keys


def _parse_pem(content: bytes, where: str) -> TokenKey:
    if content.count(b"-----BEGIN ") != 1:
        raise InvalidFieldError(SETTING, f"{where} must hold one public key (PEM), or a JSON Web Key Set")
    if b"PRIVATE KEY" in content:
        raise InvalidFieldError(
            SETTING, f"{where} holds a private key; whoever issues tokens keeps it, give the public one"
        )
    try:
        public = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidFieldError(SETTING, f"{where} holds no public key (PEM) that can be read") from error
    algorithms = _algorithms(public)
    if not algorithms or not isinstance(public, PublicKey):
        raise InvalidFieldError(
            SETTING, f"{where}: the key must be RSA of {MIN_RSA_BITS} bits or more, P-256 or Ed25519 to verify tokens"
        )
    return TokenKey(None, public, algorithms)


def _algorithms(key: object) -> frozenset[str]:
    """Return what a key may verify; nothing where it is too weak, of another type, or private."""
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return frozenset({"RS256", "PS256"})
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return frozenset({"ES256"})
    return frozenset({"EdDSA"}) if isinstance(key, Ed25519PublicKey) else frozenset()


def _parse_set(content: bytes, where: str) -> tuple[TokenKey, ...]:
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidFieldError(SETTING, f"{where} is not JSON that can be read") from error
    members = given.get("keys")
    if not isinstance(members, list):
        raise InvalidFieldError(SETTING, f"{where} is no JSON Web Key Set: it has no list 'keys'")
    if len(members) > MAX_KEYS:
        raise InvalidFieldError(SETTING, f"{where} has {len(members)} keys; {MAX_KEYS} are the most")
    return tuple(key for key in map(_parse_member, members) if key is not None)


def _parse_member(member: Any) -> TokenKey | None:
    """Return one key of a set, or None where it cannot verify tokens (RFC 7517, section 5: such ones are ignored)."""
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
