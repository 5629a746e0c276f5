"""Bearer tokens: JSON Web Tokens (RFC 7519) of an external issuer, and the grants in them."""

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
"""Only asymmetric algorithms: a key that verifies tokens cannot sign them."""
GRANTS_CLAIM = "rowmint"
"""Claim that holds the grants, such as ``{"flights": "trainer"}``."""
LEEWAY_SECONDS = 30.0
"""Tolerated difference between the issuer's clock and ours."""
MAX_TOKEN_BYTES = 8192

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_LAST_SECOND = 253_402_300_799
"""The last second of the year 9999."""
_MAX_SUBJECT = 256
# PyJWT verifies only the signature: it would compare claims with a clock that it reads itself.
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
    """Verifies tokens and returns the identities of their bearers. Used by one event loop.

    Args:
        keys: Public keys of the issuer: path of a PEM file or JWKS, or URL of a JWKS; see `open_keys`.
        issuer: Required value of the `iss` claim.
        audience: Required value of the `aud` claim, or of one of its members.
        clock: Monotonic seconds, for the age of fetched keys.

    Raises:
        UnavailableError: A file cannot be read.
        InvalidFieldError: A file holds no keys, or keys may not be fetched from the URL.
    """

    def __init__(self, keys: str, issuer: str, audience: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = open_keys(keys, clock)
        self._issuer = issuer
        self._audience = audience

    async def identify(self, token: str, now: datetime) -> Identity:
        """Return the identity of a token's bearer.

        Args:
            token: The token.
            now: The current time.

        Raises:
            UnauthenticatedError: The token is invalid; the error says why, and reveals nothing about the keys.
            UnavailableError: The keys cannot be fetched now.
        """
        algorithm, key_id = _header(token)
        for key in await self._keys.find(key_id, algorithm):
            try:
                # Algorithms of the key, never the one that the token names.
                claims = jwt.decode(token, key.public, algorithms=sorted(key.algorithms), options=_SIGNATURE_ONLY)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
                raise _malformed() from error
            return self._identity(claims, now.timestamp())
        # One message, whether the key is unknown or the signature does not match.
        raise UnauthenticatedError(
            "the token's signature cannot be verified with the issuer's keys; request a new token from the issuer"
        )

    def _identity(self, claims: Mapping[str, Any], now: float) -> Identity:
        """Return the identity in the claims of a token whose signature is valid."""
        if _required(claims, "iss") != self._issuer:
            raise UnauthenticatedError("tokens of this issuer are not accepted here")
        audience = _required(claims, "aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise UnauthenticatedError(
                "the token is for another audience; request one for this service from its issuer"
            )
        _required(claims, "exp")
        if now >= _seconds(claims, "exp") + LEEWAY_SECONDS:
            raise UnauthenticatedError("the token has expired; request a new one from its issuer")
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
    """Return the algorithm and key id (or None) in a token's header."""
    if len(token) > MAX_TOKEN_BYTES:
        raise UnauthenticatedError(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    if not _FORM.fullmatch(token):
        raise _malformed()
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise _malformed() from error
    # RFC 7515, section 4.1.11: critical fields that are not supported make a token invalid. None are supported.
    if "crit" in header:
        raise UnauthenticatedError("the token has critical header fields, which are not supported here")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise UnauthenticatedError(
            f"the token's signing algorithm is not accepted; it must be one of {', '.join(ALGORITHMS)}"
        )
    if not isinstance(key_id, str | None):
        raise _malformed()
    return algorithm, key_id


def _malformed() -> UnauthenticatedError:
    return UnauthenticatedError("the bearer credential is malformed; send a complete signed JWT or API key")


def _required(claims: Mapping[str, Any], name: str) -> Any:
    if name not in claims:
        raise UnauthenticatedError(f"the token has no claim {name!r}")
    return claims[name]


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    # NaN is refused as well: every comparison with it is false, including the one that tests for expiry.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LAST_SECOND:
        raise UnauthenticatedError(f"the token's claim {name!r} must be a number of seconds since 1970")
    return float(value)
