"""The client that `docs/clients.md` shows, as it stands there, behind a relay that cuts its calls."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest

from rowmint.v1 import sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from tests.docs.pages import blocks
from tests.faults.golden_home import GRID, golden_version, publish_golden
from tests.integration.served_replica import replica
from tests.unit.fake_failures import status_trailer
from tests.unit.long_headers import lengthen

(TEXT,) = blocks("python-resume")
ROWS = 2 * GRID + 300
PIECE = 16 * 1024
STARTS = [0, 5, GRID]
FORMATS = ["CSV", "NDJSON", "ARROW_STREAM", "COLUMNS"]
LOST = grpc.StatusCode.UNAVAILABLE


class Relay(grpc.GenericRpcHandler):
    """Passes calls on to samplers in turn, and their messages back, of each call as many as `cuts` says.

    Attributes:
        cuts: For the calls that come next, after how many messages each ends and by which status; OK for a stream that
            just ends. Calls beyond them are passed on whole.
        trailers: Sent with a status that is not OK.
        calls: Requests that came.
    """

    def __init__(self, channels) -> None:
        self._channels = deque(channels)
        self.cuts: deque[tuple[int, grpc.StatusCode]] = deque()
        self.trailers = ()
        self.calls: list[sampling_pb2.SampleRequest] = []

    def service(self, details):
        return grpc.unary_stream_rpc_method_handler(lambda body, context: self._pass_on(details.method, body, context))

    def _pass_on(self, method, body, context):
        self.calls.append(sampling_pb2.SampleRequest.FromString(body))
        self._channels.rotate()
        most, status = self.cuts.popleft() if self.cuts else (None, None)
        responses = self._channels[0].unary_stream(method)(body)
        for sent, response in enumerate(responses):
            if sent == most:
                break
            yield response
        responses.cancel()
        if status not in (None, grpc.StatusCode.OK):
            context.set_trailing_metadata(self.trailers)
            context.abort(status, "cut by the relay")


@pytest.fixture(scope="module")
def channels(tmp_path_factory):
    """Two samplers, one on each kernel."""
    home = tmp_path_factory.mktemp("home")
    publish_golden(home)
    with ExitStack() as stack:
        found = []
        for kernel in ("numpy", "onnxruntime"):
            # Room for more calls than a sampler learns late that they were cut.
            address, _ = stack.enter_context(replica(home, kernel, streams=200))
            found.append(stack.enter_context(grpc.insecure_channel(address)))
        yield found


@pytest.fixture
def relay(channels):
    """A relay, its address as an attribute of it."""
    with ThreadPoolExecutor(2) as threads:
        found = Relay(channels)
        server = grpc.server(threads, handlers=[found])
        found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield found
        server.stop(None).wait()


@pytest.fixture
def waits():
    """Seconds that the client would have waited."""
    return []


@pytest.fixture
def read(relay, waits):
    """Read a stream by the function of the page, through the relay; return its data, batches included."""
    names = {"__name__": "page"}
    exec(compile(TEXT, "docs/clients.md", "exec"), names)
    with grpc.insecure_channel(relay.address) as channel:
        yield lambda request: content(names["read"]([channel], copied(request), wait=waits.append))


def copied(request):
    return sampling_pb2.SampleRequest.FromString(request.SerializeToString())


def content(messages):
    """Return what messages hold, their data and batches joined."""
    messages = list(messages)
    return b"".join(one.data for one in messages), [batch for one in messages for batch in one.batches]


def request_of(row_format="CSV", **more):
    fields = {"model": golden_version("independent"), "rows": ROWS, "seed": 7, "columns": ["age", "city", "badge"]}
    fields |= {"format": f"ROW_FORMAT_{row_format}", "message_bytes": PIECE}
    return sampling_pb2.SampleRequest(**fields | more)


def unbroken(channels, request):
    """Return the content of a stream by one call, and the number of its messages."""
    responses = list(SamplingServiceStub(channels[0]).Sample(request))
    assert responses[-1].summary.complete
    return content(response.data for response in responses), len(responses)


@pytest.mark.parametrize("row_format", FORMATS)
@pytest.mark.parametrize("start", STARTS)
def test_a_stream_that_is_cut_anywhere_is_the_stream_of_one_call(
    channels, relay, read, monkeypatch, row_format, *, start
):
    # The header comes in three messages, the last one with rows.
    lengthen(monkeypatch, 2 * PIECE + 1)
    request = request_of(row_format, start_row=start)
    whole, messages = unbroken(channels, request)
    for after in range(messages):
        relay.cuts.append((after, LOST))
        assert read(request) == whole
    assert len(relay.calls) == 2 * messages
    # Cut again and again, each time one message further.
    relay.cuts.extend([(2, grpc.StatusCode.INTERNAL), (0, LOST), (1, grpc.StatusCode.OK)] * (messages - 2))
    assert read(request) == whole
    assert len(relay.calls) == 2 * messages + 3 * (messages - 2) + 1


@pytest.mark.parametrize("end_row", [0, 3, GRID, ROWS - 1])
def test_the_beginning_of_a_stream_alone(channels, relay, read, end_row):
    for row_format in FORMATS:
        request = request_of(row_format, end_row=end_row)
        whole, messages = unbroken(channels, request)
        for after in range(messages):
            relay.cuts.append((after, LOST))
            assert read(request) == whole


@pytest.mark.parametrize("row_format", FORMATS)
def test_parts_of_a_stream_that_are_cut_join_to_the_stream(channels, relay, read, row_format):
    request = request_of(row_format)
    (data, batches), messages = unbroken(channels, request)
    plan = SamplingServiceStub(channels[1]).PlanSample(sampling_pb2.PlanSampleRequest(sample=request, parts=3))
    assert len(plan.parts) == 3
    for after in range(messages):
        parts = []
        for part in plan.parts:
            relay.cuts.append((after, LOST))
            parts.append(read(part))
            relay.cuts.clear()
        assert b"".join(part for part, _ in parts) == data
        assert [batch for _, part in parts for batch in part] == batches


def test_a_seed_that_was_drawn_is_kept(channels, relay, read):
    request = request_of()
    request.ClearField("seed")
    relay.cuts.extend([(0, LOST), (2, LOST), (1, LOST)])
    data = read(request)
    assert [call.HasField("seed") for call in relay.calls] == [False, False, True, True]
    assert data == unbroken(channels, request_of(seed=99))[0]


FINAL = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED)


@pytest.mark.parametrize("code", FINAL, ids=lambda code: code.name)
def test_an_error_with_a_reason_and_without_a_time_is_final(relay, read, code):
    relay.cuts.append((2, code))
    relay.trailers = status_trailer(code, "OF_THE_TEST", "no")
    with pytest.raises(grpc.RpcError) as raised:
        read(request_of())
    assert raised.value.code() is code
    assert len(relay.calls) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_an_error_with_a_time_is_answered_after_it(channels, relay, read, waits, code):
    relay.cuts.append((2, code))
    relay.trailers = (
        *status_trailer(code, "OF_THE_TEST", "later", retry_after=1.5),
        ("grpc-retry-pushback-ms", "1500"),
    )
    assert read(request_of()) == unbroken(channels, request_of())[0]
    assert waits == [1.5]


@pytest.mark.parametrize(("status", "error"), [(LOST, grpc.RpcError), (grpc.StatusCode.OK, EOFError)])
def test_calls_that_bring_nothing_come_to_an_end(relay, read, waits, status, error):
    relay.cuts.extend([(2, status), *[(1, status)] * 8])
    with pytest.raises(error):
        read(request_of())
    assert len(relay.calls) == 9
    assert waits == [0.025 * 2**failures for failures in range(8)]


def test_the_page_s_example_writes_a_file(channels, relay, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = TEXT
    changes = {
        "127.0.0.1:7402": relay.address,
        "projects/default/models/shop": golden_version("independent"),
        "rows=100_000": f"rows={ROWS}, seed=7",
    }
    for shown, used in changes.items():
        assert text.count(shown) == 1
        text = text.replace(shown, used)
    exec(compile(text, "docs/clients.md", "exec"), {"__name__": "__main__"})
    whole = sampling_pb2.SampleRequest(
        model=golden_version("independent"), rows=ROWS, seed=7, format=sampling_pb2.ROW_FORMAT_CSV
    )
    assert (tmp_path / "rows.csv").read_bytes() == unbroken(channels, whole)[0][0]
