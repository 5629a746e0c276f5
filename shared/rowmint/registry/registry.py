"""The registry as a whole: one engine and its ledgers."""

from collections.abc import Callable
from uuid import uuid4

from sqlalchemy import Engine

from rowmint.registry.datasets import DatasetLedger
from rowmint.registry.engine import connect
from rowmint.registry.jobs import JobLedger
from rowmint.registry.models import ModelLedger
from rowmint.registry.orphans import OrphanLedger
from rowmint.registry.tables import MODELS, SCHEMAS


def _random_uid() -> str:
    return uuid4().hex


class Registry:
    """Both schemas, as the trainer sees them. Safe for any number of threads; each process opens its own.

    Attributes:
        engine: The engine, for `migrate`.
        datasets: Datasets and segments.
        jobs: Jobs and their events.
        models: Models and versions.
        orphans: Objects that no row names.
    """

    def __init__(self, engine: Engine, new_uid: Callable[[], str] = _random_uid) -> None:
        self.engine = engine
        self.datasets = DatasetLedger(engine, new_uid)
        self.jobs = JobLedger(engine, new_uid)
        self.models = ModelLedger(engine, new_uid)
        self.orphans = OrphanLedger(engine)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_registry(url: str, *, models_url: str = "", read_only: bool = False) -> Registry:
    """Return the registry at `url`; nothing is opened before its first use, nothing made before `migrate`.

    Args:
        url: ``sqlite:///directory`` (four slashes where it is absolute), holding ``data.db`` and ``models.db``, or
            ``postgresql+psycopg://...``.
        models_url: Where the schema `rowmint_models` is, if elsewhere: another directory or ``.db`` file; on PostgreSQL
            it can only be the same database.
        read_only: Whether every write is refused.

    Raises:
        InvalidFieldError: A URL is none of these.
    """
    return Registry(connect(url, "data_registry_url", schemas=SCHEMAS, models_url=models_url, read_only=read_only))


class ModelsRegistry:
    """The schema `rowmint_models` alone, read only, as a sampler sees it; the data are never opened.

    Attributes:
        models: Models and versions; whatever would write raises `UnavailableError`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.models = ModelLedger(engine, _random_uid)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_models_registry(url: str) -> ModelsRegistry:
    """Return the models at `url`, to be read only. It need not be there yet: calls then raise `UnavailableError`.

    Args:
        url: ``sqlite:///file.db``, ``sqlite:///directory`` (holding ``models.db``), or ``postgresql+psycopg://...``.

    Raises:
        InvalidFieldError: The URL is none of these.
    """
    return ModelsRegistry(connect(url, "models_registry_url", schemas=(MODELS,), read_only=True))
