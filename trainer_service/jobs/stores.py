"""The two stores a job reads and writes."""

from dataclasses import dataclass

from rowmint.objects import ObjectStore


@dataclass(frozen=True)
class Stores:
    """Where a trainer keeps bytes.

    Attributes:
        data: Uploads and tables; samplers have no access.
        models: Published models.
    """

    data: ObjectStore
    models: ObjectStore
