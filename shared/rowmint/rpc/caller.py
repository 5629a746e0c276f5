"""Who makes the call that is being served, for methods that show more to some roles than to others."""

from contextvars import ContextVar

from rowmint.security.identity import ANYBODY, Identity, Role

# Where access control is off, every caller has every role.
_CALLER: ContextVar[Identity] = ContextVar("_CALLER", default=ANYBODY)


def set_caller(identity: Identity) -> None:
    """Let the call that is served in this task be one by `identity`."""
    _CALLER.set(identity)


def sees_unpublished(project: str) -> bool:
    """Return whether the caller may know of versions that are staged or rejected: role trainer or admin.

    To be called in the task that serves the call, not on a thread of a pool.

    Args:
        project: Id of the project that the versions are in.
    """
    return _CALLER.get().may(Role.TRAINER, project)
