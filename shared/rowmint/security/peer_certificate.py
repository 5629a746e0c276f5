"""The certificate that a client presented when it connected, which may expire while the connection lives."""

from dataclasses import dataclass
from datetime import datetime

from rowmint.errors import UnauthenticatedError


@dataclass(frozen=True)
class PeerCertificate:
    """A certificate that was verified at the handshake of its connection.

    Attributes:
        names: Its subject alternative names, then its common name.
        not_before: Start of its validity, UTC.
        not_after: End of its validity, UTC; valid at that second.
    """

    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    def check_validity(self, now: datetime) -> None:
        """Check that it is valid now.

        Args:
            now: The current time, with its zone.

        Raises:
            UnauthenticatedError: It is not.
        """
        if now > self.not_after:
            raise UnauthenticatedError(
                f"the client certificate expired at {_text(self.not_after)}; connect again with a new one"
            )
        if now < self.not_before:
            raise UnauthenticatedError(
                f"the client certificate is not valid before {_text(self.not_before)}; connect again then, or with"
                " another one"
            )


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
