"""Tasks of a reader: streams of rows, whole, in parts, and resumed; rows that are completed."""

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import IO, Any

from rowmint.client import Client, SampleStream
from rowmint.client.sampling import FORMATS
from rowmint.v1 import sampling_pb2
from tests.soak.place import BASE, FAMILIES
from tests.soak.references import Reference, body_of, completed_digest
from tests.soak.task import Task
from tests.soak.task_log import Tally

WHERES: tuple[dict[str, object], ...] = (
    {},
    {"city": "Lisbon"},
    {"city": ["Oslo", "Quito"], "age": (25, 70)},
    {"active": True, "income": (None, 90_000.0)},
    {"plan": ["basic", "plus"], "rich": "no"},
)
_COLUMNS: tuple[tuple[str, ...], ...] = ((), (), ("income", "city", "joined"), ("age", "plan", "bonus", "note"))
_POOL = 16
_SLOW_SECONDS = 0.01
"""What one who reads slowly does with a message."""


def read(task: Task) -> None:
    """Read a stream to a file; where another process was killed at that, resume behind what it has received."""
    request, expected = _drawn(task)
    part = Part(task.file)
    if part.rows:
        task.tally.add("streams that another process resumed")
    slowly = task.draw.random() < 0.5

    def note(stream: SampleStream, body: bytes, rows: int) -> None:
        part.note(stream, body, rows)
        if slowly:
            time.sleep(_SLOW_SECONDS)

    with task.client.sample_stream(part.rest(request)) as stream:
        received = receive(task.tally, stream, note)
    check(task, request, Reference(part.rows + received.rows, part.digest.hexdigest()), expected)
    part.remove()


def read_in_parts(task: Task) -> None:
    """Have a stream cut into parts, read those side by side, and join them."""
    request, expected = _drawn(task)
    parts = list(task.client.plan_sample(request, task.draw.randint(2, 5)).parts)

    def one(part: sampling_pb2.SampleRequest) -> tuple[Tally, Received]:
        tally = Tally()
        with task.client.sample_stream(part) as stream:
            return tally, receive(tally, stream)

    with ThreadPoolExecutor(len(parts)) as threads:
        found = list(threads.map(one, parts))
    for tally, _ in found:
        task.tally.take(tally)
    bodies = (body for _, one in found for body in one.bodies)
    check(task, request, Reference.over(bodies, sum(one.rows for _, one in found)), expected)
    task.tally.add("streams in parts")
    task.tally.add("parts", len(parts))


def complete(task: Task) -> None:
    """Complete rows of which two cells are known."""
    version = f"{task.client.project}/models/{BASE}-{task.draw.choice(FAMILIES)}/versions/1"
    seed = task.draw.randrange(4)
    draw = Random(seed)
    known = [{"city": draw.choice(["Lisbon", "Oslo", "Lima"]), "age": draw.randint(20, 60)} for _ in range(400)]
    expected = task.references.completed(version, known, seed)
    with task.client.complete_rows(version, known, seed=seed) as stream:
        found = completed_digest(stream)
        task.tally.add("resumed completions", int(stream.resumes > 0))
    task.tally.add("rows completed", len(known))
    task.tally.expect(found == expected, f"completed rows of {version}, seed {seed}, are not those of one call")


def _drawn(task: Task) -> tuple[sampling_pb2.SampleRequest, Reference]:
    """Draw a stream out of some that all readers share; later tasks draw out of others."""
    first = task.number // 4
    index = task.draw.randrange(first, first + _POOL)
    request = drawn_request(
        task.client, list(FORMATS)[index % len(FORMATS)], Random(f"{task.place.seed} stream {index}")
    )
    return request, task.references.of(request)


def drawn_request(client: Client, form: str, draw: Random) -> sampling_pb2.SampleRequest:
    """Draw a stream of one of the models that stay, in a format."""
    columns = draw.choice(_COLUMNS)
    rows = draw.randint(20_000, 160_000)
    # Ids give out; whatever has none may begin far away.
    far = 10**12 if columns and draw.random() < 0.3 else 0
    start = far + draw.choice([0, 0, draw.randrange(rows // 2)])
    return client.sample_request(
        f"{client.project}/models/{BASE}-{draw.choice(FAMILIES)}/versions/1",
        far + rows,
        where=draw.choice(WHERES),
        columns=columns,
        seed=draw.randrange(1 << 64),
        start_row=start,
        end_row=far + draw.choice([rows, rows - rows // 5]),
        format=form,
        message_bytes=draw.choice([16 * 1024, 64 * 1024, 256 * 1024]),
    )


@dataclass
class Received:
    """What a stream gave.

    Attributes:
        rows: Rows, each counted that came.
        bodies: The rows as bytes, in the order they came; not where they are noted elsewhere.
    """

    rows: int
    bodies: list[bytes]


def receive(
    tally: Tally, stream: SampleStream, note: Callable[[SampleStream, bytes, int], None] | None = None
) -> Received:
    """Read a stream to its end, and count every row that comes.

    Args:
        tally: Where rows and resumptions are counted.
        stream: The stream.
        note: Given what came and its rows, message by message; None to keep it all.
    """
    found = Received(0, [])
    row = stream.header.start_row
    for message in stream.messages():
        tally.add("rows lost", max(0, message.first_row - row))
        tally.add("rows duplicated", max(0, row - message.first_row))
        row = message.first_row + message.row_count
        found.rows += message.row_count
        body = body_of(message)
        if note is None:
            found.bodies.append(body)
        else:
            note(stream, body, message.row_count)
    tally.add("rows lost", stream.header.end_row - row)
    tally.add("resumed streams", int(stream.resumes > 0))
    tally.add("resumptions", stream.resumes)
    return found


def check(task: Task, request: sampling_pb2.SampleRequest, found: Reference, expected: Reference) -> None:
    """Compare what a stream gave with what it is to give, and count it."""
    form = next(name for name, number in FORMATS.items() if number == request.format)
    task.tally.add("streams")
    task.tally.add(f"streams: {form}")
    if request.where.predicates:
        task.tally.add("streams with conditions")
    task.tally.add("rows requested", request.end_row - request.start_row)
    task.tally.add("rows delivered", found.rows)
    task.tally.expect(found == expected, f"{task.name}: {found} came where {expected} was to come, of {request}")


class Part:
    """The received part of a stream, in a file, and how far it is, in another: what a killed process leaves to resume.

    Attributes:
        file: What came, open to be added to.
        rows: Rows that another process had received.
        body: Bytes of them.
        digest: Over all that came.
    """

    def __init__(self, file: Path) -> None:
        self._known: dict[str, Any] = {}
        self._data = file.with_suffix(".part")
        self._progress = file.with_suffix(".progress")
        if self._progress.exists():
            lines = self._progress.read_bytes().split(b"\n")[:-1]
            self._known = json.loads(lines[-1]) if lines else {}
        self.rows = self._known.get("rows", 0)
        self.body = self._data.read_bytes()[: self._known["size"]] if self._known else b""
        self.digest = hashlib.sha256(self.body)
        self._size, self._came = len(self.body), self.rows
        self._data.write_bytes(self.body)
        self.file: IO[bytes] = self._data.open("ab", buffering=0)
        self._log = self._progress.open("ab", buffering=0)

    def rest(self, request: sampling_pb2.SampleRequest) -> sampling_pb2.SampleRequest:
        """Return the request for what has not been received yet."""
        found = sampling_pb2.SampleRequest()
        found.CopyFrom(request)
        if self._known:
            found.start_row = request.start_row + self.rows
            found.framing = sampling_pb2.FRAMING_RESUME
            found.received_bytes = len(self.body)
            found.expected_model_digest = bytes.fromhex(self._known["model_digest"])
            found.expected_plan_digest = bytes.fromhex(self._known["plan_digest"])
        return found

    def note(self, stream: SampleStream, body: bytes, rows: int) -> None:
        """Keep what came."""
        self.digest.update(body)
        self.file.write(body)
        self._size += len(body)
        self._came += rows
        if self._came == 0 or stream.next_row == stream.header.end_row:
            return  # neither before the first row nor behind the last is there anything to resume
        progress = {"rows": self._came, "size": self._size}
        progress |= {name: getattr(stream.header, name).hex() for name in ("model_digest", "plan_digest")}
        self._log.write(json.dumps(progress).encode() + b"\n")

    def remove(self) -> None:
        """Close and remove the files: all has come."""
        self.file.close()
        self._log.close()
        self._progress.unlink()
        self._data.unlink()
