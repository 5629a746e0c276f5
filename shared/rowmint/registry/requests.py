"""Requests that may be repeated: a request_id and the digest of its body, kept with the row the request made."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, select

from rowmint.errors import RequestIdReusedError


def earlier_row(
    connection: Connection, table: Table, scope: ColumnElement[bool], request_id: str, request_digest: bytes
) -> Row[Any] | None:
    """Return the row that the same request made before, or None.

    Args:
        connection: The caller's transaction.
        table: A table with the columns `request_id` and `request_digest`.
        scope: Rows among which a request_id is unique.
        request_id: What makes a repeated call harmless, or empty for a call that is never the same.
        request_digest: SHA-256 of the request's body; equal exactly for equal bodies.

    Raises:
        RequestIdReusedError: The request_id was used with another body.
    """
    if not request_id:
        return None
    row = connection.execute(select(table).where(scope, table.c.request_id == request_id)).one_or_none()
    if row is not None and row.request_digest != request_digest:
        raise RequestIdReusedError(f"request_id {request_id!r} was used before with another body")
    return row
