"""Requests that may be repeated: a request_id and the digest of its body, kept with the row the request made."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, select

from rowmint.errors import RequestIdReusedError


def earlier_row(
    connection: Connection, table: Table, scope: ColumnElement[bool], request_id: str, digests: Collection[bytes]
) -> Row[Any] | None:
    """Return the row that the same request made before, or None.

    Args:
        connection: The caller's transaction.
        table: A table with the columns `request_id` and `request_digest`.
        scope: Rows among which a request_id is unique.
        request_id: What makes a repeated call harmless, or empty for a call that is never the same.
        digests: Any of them stands in `request_digest` exactly if the body is the same.

    Raises:
        RequestIdReusedError: The request_id was used with another body.
    """
    if not request_id:
        return None
    row = connection.execute(select(table).where(scope, table.c.request_id == request_id)).one_or_none()
    if row is not None and row.request_digest not in digests:
        raise RequestIdReusedError(f"request_id {request_id!r} was used before with another body")
    return row
