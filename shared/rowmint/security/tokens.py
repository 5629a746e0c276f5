"""Bearer tokens: JSON Web Tokens (RFC 7519) that somebody else issues, and what they let their bearer do."""

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jwt

from rowmint.errors import InvalidFieldError, UnauthenticatedError
from rowmint.security.identity import Identity, parse_grants
from rowmint.security.token_keys import open_keys

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""All are of a key pair: what verifies a token cannot sign one."""
GRANTS_CLAIM = "rowmint"
"""Claim that holds the grants, such as ``{"flights": "trainer"}``."""
LEEWAY_SECONDS = 30.0
"""How far the issuer's clock and ours may be apart."""
MAX_TOKEN_BYTES = 8192

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_LAST_SECOND = 253_402_300_799
"""The last second of the year 9999."""
_MAX_SUBJECT = 256
# Only the signature is PyJWT's to verify: its claims are held against a clock that it reads itself.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


class TokenVerifier:
    """Tells who bears a token. Used by one event loop.

    Args:
        keys: Public keys of the issuer: path of a PEM file or JWKS, or URL of a JWKS; see `open_keys`.
        issuer: What the `iss` claim must be.
        audience: What the `aud` claim must be, or have among others.
        clock: Monotonic seconds, by which keys of a URL grow old.

    Raises:
        UnavailableError: A file cannot be read.
        InvalidFieldError: It holds no keys, or the URL is none that keys may come from.
    """

    def __init__(self, keys: str, issuer: str, audience: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = open_keys(keys, clock)
        self._issuer = issuer
        self._audience = audience

    async def identify(self, token: str, now: datetime) -> Identity:
        """Return who bears a token.

        Args:
            token: The token.
            now: The time now.

        Raises:
            UnauthenticatedError: It is not valid; the error says why, and nothing of the keys.
            UnavailableError: The keys cannot be had now.
        """
        algorithm, key_id = _header(token)
        for key in await self._keys.find(key_id, algorithm):
            try:
                # What the key is for, not what the token says.
                claims = jwt.decode(token, key.public, algorithms=sorted(key.algorithms), options=_SIGNATURE_ONLY)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
                raise _malformed() from error
            return self._identity(claims, now.timestamp())
        # The same whether there is no such key or it signed something else.
        raise UnauthenticatedError("the token's signature is not valid here")

    def _identity(self, claims: Mapping[str, Any], now: float) -> Identity:
        """Return who bears a token with these claims, whose signature is valid."""
        if _required(claims, "iss") != self._issuer:
            raise UnauthenticatedError("the token is of an issuer whose tokens are not taken here")
        audience = _required(claims, "aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise UnauthenticatedError(
                "the token is for another audience; ask its issuer for one that is for this service"
            )
        _required(claims, "exp")
        if now >= _seconds(claims, "exp") + LEEWAY_SECONDS:
            raise UnauthenticatedError("the token has expired; ask its issuer for a new one")
        for claim in ("nbf", "iat"):
            if claim in claims and _seconds(claims, claim) > now + LEEWAY_SECONDS:
                raise UnauthenticatedError(f"the token is not valid yet: its claim {claim!r} is in the future")
        subject = _required(claims, "sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
            raise UnauthenticatedError(f"the token's claim 'sub' must be 1 to {_MAX_SUBJECT} printable characters")
        try:
            grants = parse_grants(_required(claims, GRANTS_CLAIM), f"claim {GRANTS_CLAIM!r}")
        except InvalidFieldError as error:
            raise UnauthenticatedError(f"the token's {error.message}") from error
        return Identity(f"token:{subject}", grants)


def _header(token: str) -> tuple[str, str | None]:
    """Return what a token says it is signed by: the algorithm, and the key's id or None."""
    if len(token) > MAX_TOKEN_BYTES:
        raise UnauthenticatedError(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    if not _FORM.fullmatch(token):
        raise _malformed()
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise _malformed() from error
    # RFC 7515, section 4.1.11: what is critical and not understood makes a token invalid. Nothing is understood here.
    if "crit" in header:
        raise UnauthenticatedError("the token has critical header fields that are not understood here")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise UnauthenticatedError(f"the token is not signed by an algorithm that is taken: {', '.join(ALGORITHMS)}")
    if not isinstance(key_id, str | None):
        raise _malformed()
    return algorithm, key_id


def _malformed() -> UnauthenticatedError:
    return UnauthenticatedError("the bearer credential is malformed; it must be a signed JWT or an API key, whole")


def _required(claims: Mapping[str, Any], name: str) -> Any:
    if name not in claims:
        raise UnauthenticatedError(f"the token has no claim {name!r}")
    return claims[name]


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    # Every comparison with "not a number" is false, also that of whether it has expired.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LAST_SECOND:
        raise UnauthenticatedError(f"the token's claim {name!r} must be a number of seconds since 1970")
    return float(value)
