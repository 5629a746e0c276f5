"""A client that does one task after another until it is killed or all is over: ``python -m tests.soak.load``.

Task n of a client follows from the soak's seed, its name and n. The process that replaces a killed client
takes up the task at which it was killed, and resumes what it left.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rowmint.client import RowmintCallError, datasets
from rowmint.errors import RowmintError
from tests.soak import fits, model_versions, streams, uploads
from tests.soak.place import Place
from tests.soak.references import References
from tests.soak.task import Task
from tests.soak.task_log import Tally, TaskLog

TRADES: Mapping[str, Sequence[Callable[[Task], None]]] = {
    "reader": (streams.read, streams.read_in_parts, streams.read, streams.complete, streams.read),
    "uploader": (uploads.upload, uploads.upload, uploads.upload_and_delete, uploads.upload, uploads.upload),
    "fitter": (fits.fit_and_cancel, fits.fit, fits.fit, fits.fit),
    "manager": (model_versions.delete_and_bring_back, model_versions.move_aliases),
}
"""What clients do, over and over, by the first part of their names."""


def run(place: Place, name: str, number: int) -> None:
    """Do tasks until all is over."""
    task_log = TaskLog(place.folder / "task_logs" / f"{name}.jsonl")
    references = References(place.undisturbed, place.folder / "references")
    tasks = TRADES[name.partition("-")[0]]
    with place.client(number) as client, place.storage.open() as inside:
        while True:
            index, again = task_log.next_task()
            if place.over.exists() and not again:
                return
            task_log.begin(index)
            draw = random.Random(f"{place.seed} {name} {index}")
            task = Task(place, name, index, again, draw, client, inside, references, Tally())
            _carry_out(tasks[index % len(tasks)], task)
            task_log.end(index, task.tally)


def _carry_out(do: Callable[[Task], None], task: Task) -> None:
    about = f"{do.__module__.rpartition('.')[2]}.{do.__name__} of {task.name}"
    try:
        do(task)
    except (RowmintCallError, RowmintError) as error:
        task.tally.add(f"unexpected error: {getattr(error, 'reason', '') or type(error).__name__}")
        task.tally.expect(False, f"{about}: {error}")
    except Exception as error:  # noqa: BLE001 - any error goes into the report
        task.tally.add(f"unexpected error: {type(error).__name__}")
        task.tally.expect(False, f"{about}: {type(error).__name__}: {error}")
    if task.again:
        task.tally.add("tasks that another process went on with")
    task.tally.add("tasks")


def main() -> None:
    """Read the options, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", type=Path)
    parser.add_argument("name")
    parser.add_argument("number", type=int)
    arguments = parser.parse_args()
    # A segment is at least a message: a table of modest size is to have many.
    datasets.MESSAGE_BYTES = 16_384
    run(Place.read(arguments.place), arguments.name, arguments.number)


if __name__ == "__main__":
    main()
