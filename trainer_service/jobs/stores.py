"""The two stores a job reads and writes."""

from dataclasses import dataclass

from rowmint.objects import ObjectStore
from rowmint.registry import Part


@dataclass(frozen=True)
class Stores:
    """Where a trainer keeps bytes.

    Attributes:
        data: Uploads and tables; samplers have no access.
        models: Published models.
    """

    data: ObjectStore
    models: ObjectStore

    def of(self, part: Part) -> ObjectStore:
        """Return the store of a part of the registry."""
        return self.data if part is Part.DATA else self.models
