"""Where work is done that belongs to one call: on the event loop where it is little, else on its project's threads.

A hop to a thread waits for the project's other work; work on the loop is waited for by every project.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from rowmint.schema import TableSchema

T = TypeVar("T")

_SMALL_BYTES = 64 * 1024  # made or read on the loop, in some milliseconds at most
_CATEGORY_BYTES = 64  # what takes as long to make as one category's value


async def compute(executor: Executor, size: int, work: Callable[[], T]) -> T:
    """Return what `work` makes, of about `size` bytes; where these are many, on `executor`."""
    if size <= _SMALL_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(executor, work)


def schema_bytes(schema: TableSchema) -> int:
    """Return about how many bytes a message of a schema, or what writes its rows, is made of."""
    return _CATEGORY_BYTES * sum(1 + len(column.domain.categories) for column in schema.columns)
