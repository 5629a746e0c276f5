"""Signatures of versions, as rows. They are stored unverified: samplers verify those of versions they serve."""

from collections.abc import Iterable

from sqlalchemy import Connection, and_, delete, inspect, select

from rowmint.errors import UnavailableError
from rowmint.names import ModelName
from rowmint.registry.engine import DatabaseNow, insert_if_absent
from rowmint.registry.tables import models, version_signatures
from rowmint.security.signing import Signature

_RETRY_SECONDS = 1.0


def write_signature(connection: Connection, model_uid: str, version: int, signature: Signature) -> None:
    """Store a signature, in place of another one by the same key. Idempotent."""
    other = and_(
        version_signatures.c.model_uid == model_uid,
        version_signatures.c.version == version,
        version_signatures.c.key_id == signature.key_id,
        version_signatures.c.bundle != signature.bundle_json,
    )
    connection.execute(delete(version_signatures).where(other))
    insert_if_absent(
        connection,
        version_signatures,
        {
            "model_uid": model_uid,
            "version": version,
            "key_id": signature.key_id,
            "bundle": signature.bundle_json,
            "create_time": DatabaseNow(),
        },
    )


def read_signatures(
    connection: Connection, model: ModelName, versions: Iterable[int], *, needed: bool = False
) -> dict[int, tuple[Signature, ...]]:
    """Return the signatures of versions of a model by number, those deleted but not purged included; oldest first.

    Args:
        connection: The transaction.
        model: The model.
        versions: The numbers.
        needed: Whether it is an error that the registry is older than signatures; otherwise there are none then.

    Raises:
        UnavailableError: It is, and they are needed.
    """
    wanted = sorted(set(versions))
    found: dict[int, tuple[Signature, ...]] = dict.fromkeys(wanted, ())
    # A sampler may be newer than the registry.
    if not inspect(connection).has_table(version_signatures.name, schema=version_signatures.schema):
        if needed:
            raise UnavailableError(
                "the registry is older than this code and has no signatures; start the trainer, which brings it up"
                " to date",
                retry_after=_RETRY_SECONDS,
            )
        return found
    query = (
        select(version_signatures)
        .join(models, models.c.uid == version_signatures.c.model_uid)
        .where(
            models.c.project == model.project,
            models.c.model_id == model.model,
            version_signatures.c.version.in_(wanted),
        )
        .order_by(version_signatures.c.create_time, version_signatures.c.key_id)
    )
    for row in connection.execute(query):
        found[row.version] += (Signature(row.key_id, row.bundle),)
    return found
