"""The registry as a whole: one engine and its ledgers."""

from collections.abc import Callable
from uuid import uuid4

from sqlalchemy import Engine

from rowmint.registry.adoption import AdoptionLedger
from rowmint.registry.datasets import DatasetLedger
from rowmint.registry.engine import connect
from rowmint.registry.identity import Identity, IdentityLedger, read_models_identity
from rowmint.registry.jobs import JobLedger
from rowmint.registry.models import ModelLedger
from rowmint.registry.orphans import OrphanLedger
from rowmint.registry.tables import MODELS, SCHEMAS


def _random_uid() -> str:
    return uuid4().hex


class Registry:
    """The registry with both schemas, for the trainer. Thread-safe; each process opens its own.

    Attributes:
        engine: The engine, for `migrate`.
        datasets: Datasets and segments.
        jobs: Jobs and their events.
        models: Models and versions.
        orphans: Objects that no row refers to.
        identity: Which registry it is.
        adoption: What a registry that was restored needs.
    """

    def __init__(self, engine: Engine, new_uid: Callable[[], str] = _random_uid) -> None:
        self.engine = engine
        self.datasets = DatasetLedger(engine, new_uid)
        self.jobs = JobLedger(engine, new_uid)
        self.models = ModelLedger(engine, new_uid)
        self.orphans = OrphanLedger(engine)
        self.identity = IdentityLedger(engine)
        self.adoption = AdoptionLedger(engine)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_registry(url: str, *, models_url: str = "", read_only: bool = False) -> Registry:
    """Open the registry at `url`; connections are opened on first use, and `migrate` creates the schemas.

    Args:
        url: ``sqlite:///directory`` (four slashes if absolute) with the files ``data.db`` and ``models.db``, or
            ``postgresql+psycopg://...``.
        models_url: URL of the schema `rowmint_models`, if different: another directory or ``.db`` file; on PostgreSQL
            it must be the same database.
        read_only: Whether writes are refused.

    Raises:
        InvalidFieldError: A URL is invalid.
    """
    return Registry(connect(url, "data_registry_url", schemas=SCHEMAS, models_url=models_url, read_only=read_only))


class ModelsRegistry:
    """The registry with the schema `rowmint_models` only, read-only, for samplers; `rowmint_data` is never opened.

    Attributes:
        models: Models and versions; writes raise `UnavailableError`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.models = ModelLedger(engine, _random_uid)

    def identity(self) -> Identity | None:
        """Return which registry it is; None where that is older than identities, or has claimed no store yet.

        Raises:
            UnavailableError: The registry cannot be reached.
        """
        return read_models_identity(self.engine)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_models_registry(url: str) -> ModelsRegistry:
    """Open the models at `url`, read-only. While the schema does not exist, calls raise `UnavailableError`.

    Args:
        url: ``sqlite:///file.db``, ``sqlite:///directory`` (with ``models.db``), or ``postgresql+psycopg://...``.

    Raises:
        InvalidFieldError: The URL is invalid.
    """
    return ModelsRegistry(connect(url, "models_registry_url", schemas=(MODELS,), read_only=True))
