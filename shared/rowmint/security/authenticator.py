"""Who calls, by what they send."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rowmint.errors import UnauthenticatedError
from rowmint.security.access_file import KEY_PREFIX, AccessFile
from rowmint.security.identity import Identity

if TYPE_CHECKING:  # takes its time to load, and is there only where tokens are taken
    from rowmint.security.tokens import TokenVerifier


class Authenticator:
    """Tells who calls. Safe to use from any task of one event loop.

    Args:
        access: API keys and certificates, or None where neither is taken.
        tokens: What tokens are verified by, or None where they are not taken.
        now: Tells the time.
    """

    def __init__(self, access: AccessFile | None, tokens: "TokenVerifier | None", now: Callable[[], datetime]) -> None:
        self._access = access
        self._tokens = tokens
        self._now = now

    async def identify(self, authorization: Sequence[str], certificate_names: Collection[str]) -> Identity:
        """Return who calls.

        A bearer credential decides alone: who sends a wrong one is nobody, whatever certificate they have.

        Args:
            authorization: Values of the call's `authorization` metadata.
            certificate_names: Common name and subject alternative names of the client's certificate, which was
                verified; empty where it showed none.

        Raises:
            UnauthenticatedError: It cannot be told; the error says what may be sent, and nothing of what is known here.
            UnavailableError: What tokens are verified by cannot be had now.
        """
        if len(authorization) > 1:
            raise UnauthenticatedError(f"the call has {len(authorization)} authorization headers; send one")
        if authorization:
            return await self._identify_bearer(authorization[0])
        found = None if self._access is None else self._access.identify_certificate(certificate_names)
        if found is not None:
            return found
        shown = "the client certificate is granted nothing here" if certificate_names else "the call has no credentials"
        raise UnauthenticatedError(f"{shown}; {self._taken()}")

    async def _identify_bearer(self, authorization: str) -> Identity:
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip(" ")
        if scheme.lower() != "bearer" or not credential:  # RFC 9110, section 11.1: in any case
            raise UnauthenticatedError(
                f"the authorization header is not of the form 'Bearer <credential>'; {self._taken()}"
            )
        if credential.startswith(KEY_PREFIX):
            if self._access is None:
                raise UnauthenticatedError(f"API keys are not taken here; {self._taken()}")
            found = self._access.identify_key(credential, self._now())
            if found is None:
                raise UnauthenticatedError("the API key is not known here, or has expired; ask for another one")
            return found
        if self._tokens is None:
            raise UnauthenticatedError(f"the bearer credential is no API key; {self._taken()}")
        return await self._tokens.identify(credential, self._now())

    def _taken(self) -> str:
        kinds = []
        if self._access is not None:
            kinds.append("an API key")
        if self._tokens is not None:
            kinds.append("a token (JWT)")
        told = f"send {' or '.join(kinds)} as metadata 'authorization: Bearer ...'"
        if self._access is not None:
            told += ", or connect with a client certificate that something is granted to"
        return told
