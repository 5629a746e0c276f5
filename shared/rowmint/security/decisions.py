"""Authorization decisions, as the audit log records them."""

from dataclasses import dataclass

ALLOWED = "allowed"
DENIED = "denied"
UNAUTHENTICATED = "unauthenticated"
DECISIONS = (ALLOWED, DENIED, UNAUTHENTICATED)


@dataclass(frozen=True)
class AuditEntry:
    """The decision about one call.

    Attributes:
        caller: Name of the caller's identity.
        method: ``package.Service/Method``.
        resource: Full name of the resource called for; empty if it is unknown. Only its digest is recorded.
        decision: `ALLOWED`, `DENIED` or `UNAUTHENTICATED`.
        reason: Why the call was rejected: a name of `rowmint.errors.Reason`; empty if it was allowed.
        request_id: Id of the call, as in the service's log.
    """

    caller: str
    method: str
    resource: str
    decision: str
    reason: str = ""
    request_id: str = ""

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise ValueError(f"decision {self.decision!r} must be one of {', '.join(DECISIONS)}")
