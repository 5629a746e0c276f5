"""The caller of the current call, for methods whose results depend on the caller's role."""

from contextvars import ContextVar

from rowmint.security.identity import ANONYMOUS, Identity, Role

# Where access control is off, every caller has every role.
_CALLER: ContextVar[Identity] = ContextVar("_CALLER", default=ANONYMOUS)


def set_caller(identity: Identity) -> None:
    """Set the caller of the call that this task serves."""
    _CALLER.set(identity)


def sees_unpublished(project: str) -> bool:
    """Return whether the caller may see staged and rejected versions: requires the role trainer or admin.

    Must be called in the task that serves the call, not in a thread of a pool.

    Args:
        project: Id of the project that the versions are in.
    """
    return _CALLER.get().has_role(Role.TRAINER, project)
