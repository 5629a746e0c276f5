"""Identities of callers, and the roles granted to them by project."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from rowmint.errors import InvalidFieldError
from rowmint.names import validate_id

EVERY_PROJECT = "*"
"""Stands for every project in a grant, including projects created later."""


class Role(IntEnum):
    """What a caller may do in a project; each role includes those before it. Numbered as `rowmint.v1.Role`."""

    READER = 1
    TRAINER = 2
    ADMIN = 3


Grants = Mapping[str, Role]
"""Role by project id, or by `EVERY_PROJECT`."""


def parse_grants(given: object, field: str) -> Grants:
    """Parse the grants of a JSON object, such as ``{"flights": "trainer", "*": "reader"}``.

    Args:
        given: The object.
        field: Its path, for the error.

    Raises:
        InvalidFieldError: It is not an object of roles by project.
    """
    if not isinstance(given, Mapping):
        raise InvalidFieldError(field, 'must be an object of roles by project, such as {"flights": "trainer"}')
    grants = {}
    for project, role in given.items():
        if project != EVERY_PROJECT:
            validate_id(str(project), field)
        if not isinstance(role, str) or role.upper() not in Role.__members__:
            raise InvalidFieldError(field, f"the role in project {project!r} must be reader, trainer or admin")
        grants[str(project)] = Role[role.upper()]
    return MappingProxyType(grants)


@dataclass(frozen=True)
class Identity:
    """An authenticated caller.

    Attributes:
        name: Name, such as ``key:ci``, ``certificate:ada`` or ``token:ada``; recorded in the audit log.
        grants: Roles by project.
    """

    name: str
    grants: Grants

    def has_role(self, role: Role, project: str) -> bool:
        """Return whether the caller has a role, or a higher one, in a project."""
        held = max(self.grants.get(project, 0), self.grants.get(EVERY_PROJECT, 0))
        return held >= role


ANONYMOUS = Identity("anonymous", MappingProxyType({EVERY_PROJECT: Role.ADMIN}))
"""Every caller of a service that requires no credentials."""
