"""Options of a dataset that concern its whole table, kept in the JSON of its format under "table"."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class InfinitePolicy(StrEnum):
    """What is done with infinite numbers."""

    REFUSE = "refuse"
    MISSING = "missing"
    """They become missing cells."""
    CLIP = "clip"
    """They become the declared minimum or maximum of their column."""


@dataclass(frozen=True)
class TableOptions:
    """Options of a table.

    Attributes:
        no_primary_key: Whether it has no primary key, and none is to be proposed.
        infinite: What is done with infinite numbers.
    """

    no_primary_key: bool = False
    infinite: InfinitePolicy = InfinitePolicy.REFUSE

    def to_json(self) -> dict[str, Any]:
        """Return the options that are not the default, as JSON values."""
        body: dict[str, Any] = {}
        if self.no_primary_key:
            body["no_primary_key"] = True
        if self.infinite is not InfinitePolicy.REFUSE:
            body["infinite"] = str(self.infinite)
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the options that `to_json` wrote."""
        return cls(bool(body.get("no_primary_key", False)), InfinitePolicy(body.get("infinite", "refuse")))
