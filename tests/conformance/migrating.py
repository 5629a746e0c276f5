"""Migrates a registry in several processes at the same moment.

``python migrating.py URL COUNT`` prints the errors as a JSON list. The processes are forked from one that has imported
everything: they are as many, but cost one start.
"""

import json
import multiprocessing
import sys
from typing import Any

from rowmint.registry import migrate, open_registry


def _work(url: str, barrier: Any, results: Any) -> None:
    registry = open_registry(url)
    barrier.wait(60)
    try:
        migrate(registry.engine)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it.
        results.put(repr(error))
    else:
        results.put(None)
    registry.close()


def main(url: str, count: str) -> None:
    """Migrate in `count` processes."""
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(int(count)), context.Queue()
    workers = [context.Process(target=_work, args=(url, barrier, results)) for _ in range(int(count))]
    for worker in workers:
        worker.start()
    errors = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    json.dump([error for error in errors if error is not None], sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
