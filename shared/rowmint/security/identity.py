"""Who calls, and what they may do in which project."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from rowmint.errors import InvalidFieldError
from rowmint.names import validate_id

EVERY_PROJECT = "*"
"""Stands for every project in a grant, those yet to come included."""


class Role(IntEnum):
    """What a caller may do in a project; each role may do what those before it may. As `rowmint.v1.Role`."""

    READER = 1
    TRAINER = 2
    ADMIN = 3


Grants = Mapping[str, Role]
"""Role by project id, or by `EVERY_PROJECT`."""


def parse_grants(given: object, field: str) -> Grants:
    """Return the grants that a JSON object tells, such as ``{"flights": "trainer", "*": "reader"}``.

    Args:
        given: The object.
        field: Where it stands, for the error.

    Raises:
        InvalidFieldError: It is no such object.
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
    """Somebody who calls.

    Attributes:
        name: Who, such as ``key:ci``, ``certificate:ada`` or ``token:ada``; told in the audit log.
        grants: What they may do.
    """

    name: str
    grants: Grants

    def may(self, role: Role, project: str) -> bool:
        """Return whether they have a role, or a higher one, in a project."""
        held = max(self.grants.get(project, 0), self.grants.get(EVERY_PROJECT, 0))
        return held >= role


ANYBODY = Identity("anybody", MappingProxyType({EVERY_PROJECT: Role.ADMIN}))
"""Whoever can reach a service that asks for no credentials."""
