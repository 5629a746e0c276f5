"""What is decided about calls, as it is kept."""

from dataclasses import dataclass

ALLOWED = "allowed"
DENIED = "denied"
UNAUTHENTICATED = "unauthenticated"
DECISIONS = (ALLOWED, DENIED, UNAUTHENTICATED)


@dataclass(frozen=True)
class AuditEntry:
    """One decision.

    Attributes:
        who: Who called: the name of an identity.
        method: ``package.Service/Method``.
        resource: Full name of what the call is about; empty where that is not known. Only its digest is kept.
        decision: `ALLOWED`, `DENIED` or `UNAUTHENTICATED`.
        reason: Why not: a name of `rowmint.errors.Reason`; empty where it was allowed.
        request_id: Id of the call, as the log tells it.
    """

    who: str
    method: str
    resource: str
    decision: str
    reason: str = ""
    request_id: str = ""

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise ValueError(f"decision {self.decision!r} must be one of {', '.join(DECISIONS)}")
