"""Tasks of a manager of models: versions published, aliases moved, versions deleted and brought back."""

from rowmint.client import RowmintCallError
from rowmint.errors import Reason
from rowmint.v1 import training_job_pb2
from tests.soak.fits import sampled, watched
from tests.soak.references import Reference
from tests.soak.streams import check, receive
from tests.soak.task import Task

_ALIAS = "best"


def move_aliases(task: Task) -> None:
    """Publish two versions, and move an alias from the one to the other."""
    first, second = _published(task, 1), _published(task, 2)
    for version in (first, second):
        moved = task.client.set_alias(task.name, _ALIAS, _number(version))
        task.tally.expect(
            dict(moved.aliases) == {_ALIAS: _number(version), "latest": 2}, f"{task.name} has {dict(moved.aliases)}"
        )
        found = task.client.get_version(f"{task.name}@{_ALIAS}").name
        task.tally.expect(found == version, f"{task.name}@{_ALIAS} is {found}, not {version}")
        task.tally.add("aliases moved")
    sampled(task, second, 2_000)


def delete_and_bring_back(task: Task) -> None:
    """Delete a version while a stream of it goes on, and perhaps bring it back."""
    first = _published(task, 1)
    _published(task, 2)
    if task.again and not _is_there(task, first):
        return  # the killed process has deleted it: it may be purged at any moment
    request = task.client.sample_request(first, 60_000, seed=task.draw.randrange(1 << 64), start_row=0, end_row=60_000)
    expected = task.references.of(request)
    with task.client.sample_stream(request) as stream:
        task.client.delete_version(first)
        task.tally.add("versions deleted")
        task.tally.expect(not _is_there(task, first), f"{first} is there after it was deleted")
        task.tally.add(f"expected error: {Reason.RESOURCE_NOT_FOUND}")
        if task.draw.random() < 0.6:
            task.tally.expect(task.client.undelete_version(first).name == first, f"another came back for {first}")
            task.tally.expect(_is_there(task, first), f"{first} is not there after it was brought back")
            task.tally.add("versions undeleted")
        found = receive(task.tally, stream)
    check(task, request, Reference.over(found.bodies, found.rows), expected)


def _published(task: Task, number: int) -> str:
    """Publish a version of the task's model, unless another process has; return its name."""
    ended = watched(task, "independent", task.name, f"{task.name}-{number}", epochs=1)
    task.tally.expect(
        ended.state == training_job_pb2.JOB_STATE_SUCCEEDED, f"{ended.name} did not succeed: {ended.error.message}"
    )
    return str(ended.model_version)


def _is_there(task: Task, version: str) -> bool:
    try:
        task.client.get_version(version)
    except RowmintCallError as error:
        if error.reason != Reason.RESOURCE_NOT_FOUND:
            raise
        return False
    return True


def _number(version: str) -> int:
    return int(version.rpartition("/")[2])
