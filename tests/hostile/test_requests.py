"""Hostile requests to a real trainer and a real sampler: each gets a right answer or a typed refusal.

Every field of every request changed, several at once, requests at random, and bytes that are not a request: a sample of
them in `make test-system`, every way of every field in `make test-full`. After each test both services answer as ever,
have not grown, and have logged no fault.
"""

import contextlib
import hashlib
import json
import random
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from rowmint.client import Client
from rowmint.errors import Reason
from rowmint.names import DatasetName
from rowmint.objects import open_store
from rowmint.registry import open_registry
from rowmint.rpc.status import CODES
from rowmint.security.signing import generate_signing_key
from rowmint.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    sampling_pb2,
    training_service_pb2,
)
from tests.acceptance.processes import Services, customers_csv
from tests.acceptance.refusals import refused
from tests.faults.golden_home import publish_golden, stage_golden
from tests.faults.process_figures import anonymous_bytes
from tests.golden.streams import PROJECT
from tests.hostile.answers import ANSWERS, tried
from tests.hostile.messages import LONG, TEXTS, Case, at_random, cut, noise, one_changed, some_changed
from tests.hostile.proper_requests import (
    AT,
    BASES,
    CONFIG,
    DATASET,
    DEADLINE,
    ENDED,
    LIVE,
    METHODS,
    NAMES,
    OPEN,
    PARENT,
    ROWS,
    SLOW,
    TABLE,
    UPLOAD,
    VERSION,
    VICTIM,
    WORDS,
    Complete,
    Method,
    Sample,
    Value,
    Write,
    crc,
)
from tests.hostile.world import STREAMS, World, stopped_worker
from tests.waiting import wait_until
from trainer_service.datasets.segments import SegmentReader

pytestmark = pytest.mark.system

GROWTH = 150 << 20
ONE_OF = pytest.mark.parametrize("one_of", [6, pytest.param(1, marks=pytest.mark.full)])
"""How many requests of each kind are made: one of so many."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("requests")
    publish_golden(home)
    stage_golden(home, "independent")
    services = Services(home)
    try:
        (services.home / "signing-key.pem").write_bytes(generate_signing_key()[0])
        trainer = services.trainer(
            ROWMINT_LEASE_SECONDS="600",
            ROWMINT_HEARTBEAT_SECONDS="1",
            ROWMINT_SIGNING_KEY=str(services.home / "signing-key.pem"),
        )
        sampler = services.sampler(ROWMINT_MAX_STREAMS=str(STREAMS))
        with Client(trainer.address, sampler.address, PROJECT) as client:
            client.upload(customers_csv(60), "table", format="csv", primary_key="customer")
        channels = {
            "trainer": grpc.insecure_channel(trainer.address),
            "sampler": grpc.insecure_channel(sampler.address),
        }
        found = World(home, trainer, sampler, channels)
        found.create_dataset(VICTIM)
        found.create_dataset(OPEN)
        with stopped_worker(found):
            for place, name in AT:
                for base in BASES[name]:
                    assert tried(found, place, name, Case("base", base.SerializeToString())) == []
            found.sizes = {place: anonymous_bytes(getattr(found, place).pid) for place in channels}
            yield found
        for channel in channels.values():
            channel.close()
    finally:
        services.close()


@pytest.fixture(autouse=True)
def undisturbed(world: World) -> Iterator[None]:
    """After each test both services give right answers, have not grown, and have logged no fault."""
    yield
    digests = json.loads((Path(__file__).parents[1] / "golden" / "digests.json").read_text())
    inner = {"rows": 9000, "start_row": 2048, "end_row": 4096}
    request = Sample(model=VERSION, seed=2**64 - 1, format=sampling_pb2.ROW_FORMAT_CSV, **inner)
    data = b"".join(response.data.data for response in world.responses("SamplingService.Sample", request))
    assert hashlib.sha256(data).hexdigest() == digests["independent, all, inner, csv"]
    table = world.dataset(TABLE)
    assert (table.row_count, table.sha256) == (60, hashlib.sha256(customers_csv(60)).digest())
    for place, before in world.sizes.items():
        service = getattr(world, place)
        log = service.log.read_text()[world.read.get(place, 0) :]
        world.read[place] = world.read.get(place, 0) + len(log)
        assert not re.search("Traceback|call failed", log), log[-4000:]
        assert anonymous_bytes(service.pid) - before < GROWTH


def outcomes(world: World, place: str, name: str, cases: Iterable[Case]) -> list[str]:
    return [wrong for case in cases for wrong in tried(world, place, name, case)]


def sampled(cases: Iterable[Case], one_of: int) -> Iterator[Case]:
    """Yield the first case of each field, and of the others one of so many."""
    seen: set[str] = set()
    for number, case in enumerate(cases):
        field = case.label.partition(" ")[0]
        if number % one_of == 0 or field not in seen:
            yield case
        seen.add(field)


@pytest.mark.parametrize(("place", "name"), AT)
@ONE_OF
def test_a_request_with_one_field_changed_is_answered_or_refused(
    world: World, place: str, name: str, one_of: int
) -> None:
    for base in BASES[name]:
        spared = () if base is BASES[name][-1] else SLOW.get(name, ())
        assert outcomes(world, place, name, sampled(one_changed(base, spared), one_of)) == []


@pytest.mark.parametrize(("place", "name"), AT)
@ONE_OF
def test_requests_at_random_are_answered_or_refused(world: World, place: str, name: str, one_of: int) -> None:
    draw = random.Random(f"{place} {name}")
    words = {**WORDS, "name": NAMES.get(name, NAMES.get(name.partition(".")[0], WORDS["name"]))}
    several = (case for base in BASES[name] for case in some_changed(draw, base, 60 // one_of, SLOW.get(name, ())))
    assert outcomes(world, place, name, several) == []
    assert outcomes(world, place, name, at_random(draw, METHODS[name].request, words, 100 // one_of)) == []


@pytest.mark.parametrize(("place", "name"), AT)
@ONE_OF
def test_damaged_bytes_are_answered_or_refused(world: World, place: str, name: str, one_of: int) -> None:
    draw = random.Random(f"{place} {name}")
    for base in BASES[name]:
        assert outcomes(world, place, name, sampled(cut(base), one_of)) == []
        assert outcomes(world, place, name, noise(draw, base, 40 // one_of)) == []


def test_a_message_above_the_limit_is_not_even_read(world: World) -> None:
    codes = []
    for place, name in AT:
        with pytest.raises(grpc.RpcError) as raised:
            list(METHODS[name].call(world.channels[place], [bytes((4 << 20) + 1)]))
        codes.append(raised.value.code())
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * len(AT)


@pytest.mark.parametrize("key", ["\0", "customer\0", "x" * 257])
def test_a_primary_key_that_no_registry_can_keep_is_refused(world: World, key: str) -> None:
    request = dataset_service_pb2.CreateDatasetRequest(
        parent=PARENT, dataset=dataset_pb2.Dataset(format=DATASET.format, primary_key=key)
    )
    refusal = refused(world.send, "DatasetService.CreateDataset", request)
    assert (refusal.reason, refusal.fields) == (INVALID, ["dataset.primary_key"])


def test_every_method_is_tried() -> None:
    assert set(METHODS) == set(BASES) == set(ANSWERS)


PIECES = [UPLOAD[:3], UPLOAD[3:4], UPLOAD[4:9], UPLOAD[9:]]


def piece(number: int, **wrong: Any) -> Write:
    offset = sum(map(len, PIECES[:number]))
    own = {
        "name": "" if number else OPEN,
        "write_offset": offset,
        "data": PIECES[number],
        "crc32c": crc(PIECES[number]),
    }
    return Write(**{**own, **wrong})


def finish(size: int = len(UPLOAD), sha256: bytes = hashlib.sha256(UPLOAD).digest()) -> dict[str, Any]:
    return {"finish_write": dataset_service_pb2.FinishWrite(total_size=size, sha256=sha256)}


NONE = bytes(32)
INVALID = "INVALID_FIELD"
NO_DATA = {"data": b"", "crc32c": None}
BAD_UPLOADS: dict[str, tuple[list[Write], str, list[str], int]] = {
    "nothing at all": ([], "EMPTY_STREAM", [], 0),
    "no name": ([piece(0, name="")], INVALID, ["name"], 0),
    "swapped": ([piece(0), piece(2), piece(1)], "WRITE_OFFSET", [], 3),
    "twice": ([piece(0), piece(1), piece(1)], "WRITE_OFFSET", [], 4),
    "from the middle": ([piece(2, name=OPEN)], "WRITE_OFFSET", [], 0),
    "before the beginning": ([piece(0, write_offset=-1)], "WRITE_OFFSET", [], 0),
    "at the end of numbers": ([piece(0), piece(1, write_offset=2**63 - 1)], "WRITE_OFFSET", [], 3),
    "empty at a wrong place": ([piece(0), piece(1, write_offset=9, **NO_DATA)], "WRITE_OFFSET", [], 3),
    "another name": ([piece(0), piece(1, name=VICTIM)], INVALID, ["name"], 3),
    "no crc": ([piece(0), piece(1, crc32c=None)], INVALID, ["crc32c"], 3),
    "wrong crc": ([piece(0), piece(1, crc32c=1)], "CHECKSUM", [], 3),
    "wrong crc of nothing": ([piece(0), piece(1, data=b"", crc32c=1), piece(2)], "WRITE_OFFSET", [], 3),
    "too large": ([piece(0, data=bytes((2 << 20) + 1))], INVALID, ["data"], 0),
    "finish twice": ([piece(0), piece(1, **finish()), piece(2, **finish())], INVALID, ["finish_write"], 4),
    "more after finish": ([piece(0, **finish()), piece(1)], INVALID, ["finish_write"], 3),
    "finish too early": ([piece(0), piece(1, **finish())], "DIGEST_MISMATCH", [], 4),
    "finish before all": ([piece(0, **NO_DATA, **finish())], "DIGEST_MISMATCH", [], 0),
    "negative size": ([piece(0, **finish(size=-1))], INVALID, ["finish_write.total_size"], 3),
    "short digest": ([piece(0, **finish(sha256=b"x"))], INVALID, ["finish_write.sha256"], 3),
    "empty finish": ([piece(0, finish_write={})], INVALID, ["finish_write.sha256"], 3),
    "to a finished one": ([piece(0, name=TABLE)], "WRONG_STATE", [], 0),
    "to none": ([piece(0, name=f"{PARENT}/datasets/none")], "RESOURCE_NOT_FOUND", [], 0),
}
"""Streams of an upload, the reason of the refusal, the fields it names, and the bytes that are safe then."""


def stored(world: World) -> bytes:
    """Send what is missing of `UPLOAD` and return the digest of what is stored then; the dataset stays UPLOADING."""

    def sent() -> bool:
        committed = world.dataset(OPEN).committed_size
        rest = UPLOAD[committed:]
        # What was sent before a call was cancelled may still be on its way to the store: the next look sees it.
        with contextlib.suppress(grpc.RpcError):
            committed = world.write(
                Write(name=OPEN, write_offset=committed, data=rest, crc32c=crc(rest))
            ).committed_size
        return committed == len(UPLOAD)

    wait_until(sent, "the end of the upload")
    registry = open_registry(f"sqlite:///{world.home}/registry")
    try:
        segments = registry.datasets.segments(registry.datasets.get(DatasetName.parse(OPEN)).uid)
        return hashlib.sha256(SegmentReader(open_store(f"file://{world.home}/data"), segments).read()).digest()
    finally:
        registry.close()


@pytest.mark.parametrize("case", BAD_UPLOADS)
def test_an_upload_out_of_order_is_refused_and_can_be_resumed(world: World, case: str) -> None:
    messages, reason, fields, committed = BAD_UPLOADS[case]
    world.create_dataset(OPEN)
    refusal = refused(world.write, *messages)
    assert (refusal.reason, refusal.fields) == (reason, fields)
    assert refusal.code == CODES[Reason(reason)].name
    assert world.dataset(OPEN).committed_size == committed
    assert stored(world) == hashlib.sha256(UPLOAD).digest()


@pytest.mark.parametrize("count", range(len(PIECES) + 1))
def test_an_upload_closed_or_cancelled_anywhere_is_resumed(world: World, count: int) -> None:
    sent = [piece(number) for number in range(count)]
    world.create_dataset(OPEN)
    if sent:
        assert world.write(*sent).committed_size == sum(map(len, PIECES[:count]))
        assert stored(world) == hashlib.sha256(UPLOAD).digest()
    world.create_dataset(OPEN)
    with left_open(world, "DatasetService.WriteDataset", sent):
        # The last messages may still arrive or not, but no half of one does.
        places = {sum(map(len, PIECES[:number])) for number in range(count + 1)}
        assert world.dataset(OPEN).committed_size in places
    assert world.dataset(OPEN).committed_size in places
    assert stored(world) == hashlib.sha256(UPLOAD).digest()


def test_an_upload_that_ended_is_ended_again_but_not_otherwise(world: World) -> None:
    world.create_dataset(VICTIM)
    whole = Write(name=VICTIM, data=UPLOAD, crc32c=crc(UPLOAD), **finish())
    again = Write(name=VICTIM, write_offset=len(UPLOAD), **finish())
    sizes = [world.write(message).committed_size for message in (whole, again, again)]
    other = refused(world.write, Write(name=VICTIM, write_offset=len(UPLOAD), **finish(sha256=NONE)))
    more = refused(world.write, Write(name=VICTIM, write_offset=len(UPLOAD), data=b"5", crc32c=crc(b"5")))
    world.create_dataset(VICTIM)
    assert sizes == [len(UPLOAD)] * 3
    assert [other.reason, more.reason] == ["DIGEST_MISMATCH", "WRONG_STATE"]


@contextlib.contextmanager
def left_open(world: World, name: str, requests: Sequence[Message], read: int = 0) -> Iterator[list[Any]]:
    """Send some requests, leave the stream open, read so many responses, and cancel the call afterwards."""
    taken, done = threading.Event(), threading.Event()

    def bodies() -> Iterator[bytes]:
        yield from (request.SerializeToString() for request in requests)
        taken.set()
        done.wait(DEADLINE)

    place = "sampler" if name.startswith("Sampling") else "trainer"
    method = METHODS[name]
    arity = "stream_stream" if method.streams[1] else "stream_unary"
    make = getattr(world.channels[place], arity)(method.path, lambda body: body, method.response.FromString)
    call = make(bodies(), timeout=DEADLINE) if method.streams[1] else make.future(bodies(), timeout=DEADLINE)
    try:
        assert taken.wait(DEADLINE)
        yield list(islice(call, read)) if read else []
    finally:
        call.cancel()
        done.set()


def known_row(column: str, **value: Any) -> Complete:
    return Complete(rows={"rows": [{"known": {column: Value(**value)}}]})


@pytest.mark.parametrize(
    ("messages", "reason", "fields"),
    [
        ([], "EMPTY_STREAM", []),
        ([Complete()], INVALID, ["config"]),
        ([ROWS], INVALID, ["config"]),
        ([ROWS, CONFIG], INVALID, ["config"]),
        ([CONFIG, CONFIG], INVALID, ["rows"]),
        ([CONFIG, ROWS, CONFIG], INVALID, ["rows"]),
        ([CONFIG, ROWS, Complete()], INVALID, ["rows"]),
        ([CONFIG, ROWS, known_row("price", double_value=float("nan"))], INVALID, ["rows[7].known['price']"]),
        ([CONFIG, ROWS, known_row("no\0pe", int64_value=1)], "COLUMN_NOT_FOUND", []),
    ],
)  # fmt: skip
def test_a_completion_out_of_order_is_refused(
    world: World, messages: list[Complete], reason: str, fields: list
) -> None:
    refusal = refused(world.responses, "SamplingService.CompleteRows", *messages)
    assert (refusal.reason, refusal.fields) == (reason, fields)


def test_a_completion_closed_or_cancelled_at_each_place_leaves_no_stream_behind(world: World) -> None:
    name = "SamplingService.CompleteRows"
    whole = world.responses(name, CONFIG, *[ROWS] * 3)
    made = [row for response in whole for row in response.rows.rows]
    assert [row.row for row in made] == list(range(5, 11))
    for count in range(4):
        *parts, last = world.responses(name, CONFIG, *[ROWS] * count)
        assert [row for part in parts for row in part.rows.rows] == made[: 2 * count]
        assert (last.summary.complete, last.summary.rows_delivered) == (True, 2 * count)
    for count in range(5):
        for read in range(count + 1):
            with left_open(world, name, [CONFIG, *[ROWS] * 3][:count], read) as responses:
                assert responses == whole[:read]
    assert_all_streams_free(world)


def test_streams_of_rows_cancelled_at_each_place_leave_none_behind(world: World) -> None:
    request = Sample(model=VERSION, rows=10**6, seed=3, message_bytes=16384, format=sampling_pb2.ROW_FORMAT_CSV)
    method, body = METHODS["SamplingService.Sample"], request.SerializeToString()
    first: list[Any] = []
    for read in [*range(8), *[1] * STREAMS]:
        call = method.call(world.channels["sampler"], [body])
        responses = list(islice(call, read))
        call.cancel()
        first = max(first, responses, key=len)
        assert responses == first[:read]
    assert_all_streams_free(world)


def assert_all_streams_free(world: World) -> None:
    """Wait until the sampler serves as many streams at once as it is to: none that was cancelled is counted still."""
    request = Sample(model=VERSION, rows=10**6, message_bytes=16384).SerializeToString()

    def all_served() -> bool:
        calls = [METHODS["SamplingService.Sample"].call(world.channels["sampler"], [request]) for _ in range(STREAMS)]
        try:
            return [next(call).WhichOneof("message") for call in calls] == ["header"] * STREAMS
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - some streams are ending still
            return False
        finally:
            for call in calls:
                call.cancel()

    wait_until(all_served, "the end of all streams")


@pytest.mark.parametrize(
    ("after", "numbers"), [(None, [1, 2]), (0, [1, 2]), (1, [2]), (2, []), (3, []), (2**31, []), (2**63 - 1, [])]
)
def test_the_events_of_an_ended_job_after_odd_numbers(world: World, after: int | None, numbers: list[int]) -> None:
    request = training_service_pb2.WatchTrainingJobRequest(name=ENDED, after_sequence=after)
    events = world.responses("TrainingService.WatchTrainingJob", request)
    assert [event.sequence for event in events] == numbers


@pytest.mark.parametrize("after", [-1, -(2**63)])
def test_a_negative_event_number_is_refused(world: World, after: int) -> None:
    for name in (LIVE, ENDED, ""):
        request = training_service_pb2.WatchTrainingJobRequest(name=name, after_sequence=after)
        refusal = refused(world.responses, "TrainingService.WatchTrainingJob", request)
        assert (refusal.reason, refusal.fields) == (INVALID, ["after_sequence"])


def test_a_live_job_watched_by_many_that_leave_at_each_place(world: World) -> None:
    method = METHODS["TrainingService.WatchTrainingJob"]
    for after, read in [(0, 0), (0, 1), (0, 2), (1, 1), (2, 0), (2**63 - 1, 0)] * 4:
        request = training_service_pb2.WatchTrainingJobRequest(name=LIVE, after_sequence=after)
        call = method.call(world.channels["trainer"], [request.SerializeToString()])
        assert [event.sequence for event in islice(call, read)] == list(range(after + 1, after + 1 + read))
        call.cancel()


@pytest.mark.parametrize("place", ["trainer", "sampler"])
def test_health_is_served_without_credentials(world: World, place: str) -> None:
    path, kind = "/grpc.health.v1.Health/", health_pb2.HealthCheckRequest
    known = {"", "rowmint.v1.ModelService"}
    check = Method(f"{path}Check", kind, health_pb2.HealthCheckResponse, (False, False))
    watch = Method(f"{path}Watch", kind, health_pb2.HealthCheckResponse, (False, True))
    for text in (*known, *TEXTS[1:]):
        bodies = [kind(service=text).SerializeToString()]
        call = watch.call(world.channels[place], bodies)
        expected = "SERVING" if text in known else "SERVICE_UNKNOWN"
        assert health_pb2.HealthCheckResponse.ServingStatus.Name(next(call).status) == expected
        call.cancel()
        if text in known:
            assert next(check.call(world.channels[place], bodies)).status == health_pb2.HealthCheckResponse.SERVING
            continue
        with pytest.raises(grpc.RpcError) as raised:
            check.call(world.channels[place], bodies)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("place", ["trainer", "sampler"])
def test_reflection_is_served_by_every_service(world: World, place: str) -> None:
    kind = reflection_pb2.ServerReflectionRequest
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    method = Method(path, kind, reflection_pb2.ServerReflectionResponse, (True, True))
    proper = [
        kind(list_services=""),
        kind(file_by_filename="rowmint/v1/value.proto"),
        kind(file_containing_symbol="rowmint.v1.ModelService"),
        kind(all_extension_numbers_of_type="rowmint.v1.Value"),
        kind(
            file_containing_extension=reflection_pb2.ExtensionRequest(
                containing_type="rowmint.v1.Value", extension_number=1
            )
        ),
    ]
    requested = [case.body for base in proper for case in one_changed(base) if len(case.body) < LONG]
    answers = list(method.call(world.channels[place], requested))
    assert len(answers) == len(requested)
    assert all(answer.WhichOneof("message_response") for answer in answers)
    (listed,) = method.call(world.channels[place], [proper[0].SerializeToString()])
    assert "rowmint.v1.ModelService" in {service.name for service in listed.list_services_response.service}
