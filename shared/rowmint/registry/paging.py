"""Paging of lists: limits of the page size, opaque tokens, and times of records."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from rowmint.errors import InvalidFieldError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

FEW_ROWS = {"yield_per": 20}
"""Execution options of lists: so many rows are in memory beside those kept, as one may have megabytes of schema."""

T = TypeVar("T")
Key = tuple[str | int, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def every(_: object) -> bool:
    """Return true: a page ends where its size is reached."""
    return True


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

    def page(self, rows: Iterable[tuple[Key, T]], fits: Callable[[T], bool] = every) -> Page[T]:
        """Return a page; of `rows` no more are read than are needed to know whether it is the last.

        Args:
            rows: Up to ``size + 1`` pairs of key and record.
            fits: Called with each record in order; the page ends before the first one, other than the very first, for
                which it returns false.
        """
        kept: list[T] = []
        last: Key = ()
        for key, record in rows:
            if len(kept) == self.size or (not fits(record) and kept):
                body = json.dumps([self.scope, *last])
                return Page(tuple(kept), base64.urlsafe_b64encode(body.encode()).decode())
            kept.append(record)
            last = key
        return Page(tuple(kept), "")


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
