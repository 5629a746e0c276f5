"""The two stores a job reads and writes."""

from dataclasses import dataclass

from rowmint.objects import ObjectStore, open_store
from rowmint.registry import Part
from trainer_service.home import models_access
from trainer_service.settings import TrainerSettings


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


def open_stores(settings: TrainerSettings) -> Stores:
    """Open the stores that the settings name.

    Raises:
        InvalidFieldError: A URL, an option or the models' group is invalid.
    """
    return Stores(
        open_store(settings.data_store_url, settings.store_options),
        open_store(settings.model_store_url, settings.store_options, models_access(settings)),
    )
