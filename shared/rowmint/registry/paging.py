"""Paging of lists: limits of the page size, opaque tokens, and times of records."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from rowmint.errors import InvalidFieldError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Page(Generic[T]):
    """Part of a list.

    Attributes:
        items: The records.
        next_page_token: Token that requests the next page; empty on the last page.
    """

    items: tuple[T, ...]
    next_page_token: str


@dataclass(frozen=True)
class PageRequest:
    """A validated request for a page.

    Attributes:
        scope: Identifies the list; tokens of other lists are refused.
        size: Maximum number of records, 1 to 1,000.
        after: Key of the last record of the previous page, or None for the first page.
    """

    scope: str
    size: int
    after: tuple[str | int, ...] | None

    @classmethod
    def parse(cls, scope: str, size: int | None, token: str, key: tuple[type, ...]) -> "PageRequest":
        """Validate the fields of a request; `key` gives the types of a record's key.

        Raises:
            InvalidFieldError: `page_size` is out of range, or `page_token` is not a token of this list.
        """
        size = DEFAULT_PAGE_SIZE if size is None else size
        if not 1 <= size <= MAX_PAGE_SIZE:
            raise InvalidFieldError("page_size", f"is {size}; must be 1 to {MAX_PAGE_SIZE}")
        return cls(scope, size, _decode(token, scope, key) if token else None)

    def page(self, rows: list[tuple[tuple[str | int, ...], T]]) -> Page[T]:
        """Return the page of up to ``size + 1`` pairs of key and record."""
        kept = rows[: self.size]
        token = ""
        if len(rows) > self.size:
            body = json.dumps([self.scope, *kept[-1][0]])
            token = base64.urlsafe_b64encode(body.encode()).decode()
        return Page(tuple(record for _, record in kept), token)


def _decode(token: str, scope: str, key: tuple[type, ...]) -> tuple[str | int, ...]:
    invalid = InvalidFieldError(
        "page_token", "is not a next_page_token of this list; leave it empty to start with the first page"
    )
    try:
        body = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeError, ValueError, RecursionError) as error:
        raise invalid from error
    if not isinstance(body, list) or body[:1] != [scope] or [type(part) for part in body[1:]] != list(key):
        raise invalid
    if any(isinstance(part, int) and not -(2**63) <= part < 2**63 for part in body[1:]):
        raise invalid
    return tuple(body[1:])


def instant(microseconds: int) -> datetime:
    """Return the aware instant, UTC, `microseconds` after 1970-01-01T00:00:00Z."""
    return _EPOCH + timedelta(microseconds=microseconds)


def optional_instant(microseconds: int | None) -> datetime | None:
    """Return the instant, or None for None."""
    return None if microseconds is None else instant(microseconds)
