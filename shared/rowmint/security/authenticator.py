"""Authentication of callers by API key, token or client certificate."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rowmint.errors import UnauthenticatedError
from rowmint.security.access_file import KEY_PREFIX, AccessFile
from rowmint.security.identity import Identity
from rowmint.security.peer_certificate import PeerCertificate

if TYPE_CHECKING:  # slow to import, and needed only where tokens are accepted
    from rowmint.security.tokens import TokenVerifier


class Authenticator:
    """Authenticates callers. Safe to use from any task of one event loop.

    Args:
        access: API keys and certificates, or None if neither is accepted.
        tokens: Verifies tokens, or None if tokens are not accepted.
        now: Returns the current time.
    """

    def __init__(self, access: AccessFile | None, tokens: "TokenVerifier | None", now: Callable[[], datetime]) -> None:
        self._access = access
        self._tokens = tokens
        self._now = now

    async def identify(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Identity:
        """Return the identity of the caller.

        If a bearer credential is sent, it alone decides: an invalid one is rejected even with a valid certificate. A
        certificate is verified when a client connects, and connections may live longer than certificates: an expired
        one is rejected even with a valid bearer credential, as a new connection with it would be.

        Args:
            authorization: Values of the call's `authorization` metadata.
            certificate: The client's certificate, verified when it connected; None if it has none.

        Raises:
            UnauthenticatedError: The credentials are missing or invalid; the error says which kinds are accepted, and
                does not reveal which exist.
            UnavailableError: The keys that verify tokens cannot be fetched now.
        """
        if certificate is not None:
            certificate.check_validity(self._now())
        if len(authorization) > 1:
            raise UnauthenticatedError(f"the call has {len(authorization)} authorization headers; send one")
        if authorization:
            return await self._identify_bearer(authorization[0])
        if certificate is None:
            raise UnauthenticatedError(f"the call has no credentials; {self._accepted()}")
        found = None if self._access is None else self._access.identify_certificate(certificate.names)
        if found is None:
            raise UnauthenticatedError(f"no roles are granted to the client certificate; {self._accepted()}")
        return found

    async def _identify_bearer(self, authorization: str) -> Identity:
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip(" ")
        if scheme.lower() != "bearer" or not credential:  # RFC 9110, section 11.1: in any case
            raise UnauthenticatedError(
                f"the authorization header is not of the form 'Bearer <credential>'; {self._accepted()}"
            )
        if credential.startswith(KEY_PREFIX):
            if self._access is None:
                raise UnauthenticatedError(f"API keys are not accepted here; {self._accepted()}")
            found = self._access.identify_key(credential, self._now())
            if found is None:
                raise UnauthenticatedError(
                    "the API key is unknown, revoked or expired; request a new one from the administrator"
                )
            return found
        if self._tokens is None:
            raise UnauthenticatedError(f"the bearer credential is not an API key; {self._accepted()}")
        return await self._tokens.identify(credential, self._now())

    def _accepted(self) -> str:
        kinds = []
        if self._access is not None:
            kinds.append("an API key")
        if self._tokens is not None:
            kinds.append("a token (JWT)")
        accepted = f"send {' or '.join(kinds)} as metadata 'authorization: Bearer ...'"
        if self._access is not None:
            accepted += ", or connect with a client certificate that has been granted a role"
        return accepted
