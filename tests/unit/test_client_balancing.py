"""Several replicas without a proxy: which one a new stream goes to, and by which reports of load."""

import threading
from collections import Counter

import grpc
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError
from rowmint.client import balancing as balancing_module
from rowmint.client.balancing import Target, sampler_targets, service_config
from rowmint.client.retry import RetryState, SharedProgress
from rowmint.client.route import Route
from rowmint.errors import InvalidFieldError
from rowmint.v1 import sampling_pb2
from tests.unit.fake_failures import Cut
from tests.unit.fake_health import ReplicaReports
from tests.unit.fake_rows import GRID, unbroken
from tests.unit.fake_sampler import FakeSampler, alike
from tests.unit.fake_services import services
from tests.waiting import wait_until

ROWS = 40
SHED = Cut(0, "refuse", grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", retry_after=3.0)


def reporting(*reports):
    samplers = [FakeSampler() for _ in reports]
    for sampler, one in zip(samplers, reports, strict=True):
        sampler.reports = one
    return samplers


def spread(client, streams):
    """Return how many of so many streams each replica is given."""
    found = Counter()
    for _ in range(streams):
        with client.sample("flights", ROWS, format="csv") as stream:
            found[stream.address] += 1
    return found


@pytest.mark.parametrize("balancing", ["weighted", "round_robin"])
def test_streams_are_spread_over_replicas(balancing):
    with (
        services(samplers=[FakeSampler() for _ in range(3)]) as found,
        Client(found.trainer_address, found.sampler_address, balancing=balancing) as client,
    ):
        wait_until(lambda: len(spread(client, 3)) == 3, "a channel to each replica")
        assert spread(client, 30) == dict.fromkeys(found.sampler_addresses, 10)


def test_a_replica_that_reports_more_load_is_given_less(monkeypatch):
    # The first reports count, and weights follow at once.
    policy = balancing_module._WEIGHTED["weighted_round_robin"]
    monkeypatch.setitem(policy, "blackoutPeriod", "0s")
    monkeypatch.setitem(policy, "weightUpdatePeriod", "0.1s")
    reports = ReplicaReports(utilization=0.9, rate=10.0), ReplicaReports(utilization=0.3, rate=30.0)
    with (
        services(samplers=reporting(*reports)) as found,
        Client(found.trainer_address, found.sampler_addresses) as client,
    ):
        busy, idle = found.sampler_addresses

        def weighted():
            streams = spread(client, 40)
            # Nine times the weight; half the streams each as long as the reports are too young.
            return streams[idle] >= 6 * streams[busy] > 0

        wait_until(weighted, "weights from reports")
        assert reports[0].watches == reports[1].watches == [b"\n\x1arowmint.v1.SamplingService"]


def test_round_robin_does_not_look_at_load():
    reports = ReplicaReports(utilization=0.9, rate=10.0), ReplicaReports(utilization=0.3, rate=30.0)
    with (
        services(samplers=reporting(*reports)) as found,
        Client(found.trainer_address, found.sampler_addresses, balancing="round_robin") as client,
    ):
        wait_until(lambda: len(spread(client, 2)) == 2, "a channel to each replica")
        assert spread(client, 20) == dict.fromkeys(found.sampler_addresses, 10)


@pytest.mark.parametrize("balancing", ["weighted", "round_robin"])
def test_a_draining_replica_gets_no_new_stream(balancing):
    reports = ReplicaReports(), ReplicaReports()
    with (
        services(samplers=reporting(*reports)) as found,
        Client(found.trainer_address, found.sampler_addresses, balancing=balancing) as client,
    ):
        draining, staying = found.sampler_addresses
        wait_until(lambda: len(spread(client, 2)) == 2, "a channel to each replica")
        reports[0].turn(serving=False)
        wait_until(lambda: draining not in spread(client, 4), "the news of the drain")
        assert spread(client, 30) == {staying: 30}
        reports[0].turn(serving=True)
        wait_until(lambda: len(spread(client, 2)) == 2, "the news that it serves again")


def test_where_all_drain_a_stream_waits_for_one_that_serves_again():
    reports = ReplicaReports(), ReplicaReports()
    samplers = reporting(*reports)
    for sampler in samplers:
        sampler.cuts.append(Cut(2))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if stream.resumes:
            reports[1].turn(serving=True)
        threading.Event().wait(0.01)

    with (
        services(samplers=samplers) as found,
        Client(
            found.trainer_address, found.sampler_addresses, retry=RetryPolicy(attempts=3_000, sleep=pause)
        ) as client,
        client.sample("flights", 10 * GRID, format="csv") as stream,
    ):
        for one in reports:
            one.turn(serving=False)
        client._connection.retry = RetryPolicy(unary_attempts=1)  # the stream keeps its own

        def none_serves():
            try:
                client.get_model("flights")
            except RowmintCallError as error:
                return error.code is grpc.StatusCode.UNAVAILABLE
            return False

        wait_until(none_serves, "the news that none serves")
        assert b"".join(stream.chunks()) == unbroken(sampling_pb2.ROW_FORMAT_CSV, 10 * GRID)
        assert pauses
        assert stream.address == found.sampler_addresses[1]


def test_pushback_is_waited_for_and_another_replica_may_answer():
    with services(samplers=alike([SHED, SHED])) as found:
        retry = RetryPolicy(sleep=found.waits.append)
        with (
            Client(found.trainer_address, found.sampler_address, retry=retry) as client,
            client.sample("flights", ROWS, format="csv") as stream,
        ):
            assert b"".join(stream.chunks()) == unbroken(sampling_pb2.ROW_FORMAT_CSV, ROWS)
        assert found.waits == [3.0, 3.0]


def test_a_failure_without_pushback_is_followed_by_another_replica_at_once():
    with services(samplers=alike([Cut(0)])) as found:
        retry = RetryPolicy(sleep=found.waits.append)
        with Client(found.trainer_address, found.sampler_address, retry=retry) as client:
            with client.sample("flights", ROWS, format="csv") as stream:
                list(stream.chunks())
            assert stream.resumes == 1
        assert found.waits == []


def test_names_in_a_list_are_taken_in_turn():
    with services(samplers=[FakeSampler(), FakeSampler()]) as found:
        addresses = [f"dns:///{one.replace('127.0.0.1', 'localhost')}" for one in found.sampler_addresses]
        with Client(found.trainer_address, addresses) as client:
            assert spread(client, 10) == dict.fromkeys(found.sampler_addresses, 5)
            found.samplers[0].kill()
            assert spread(client, 10) == {found.sampler_addresses[1]: 10}


def test_a_name_leads_to_all_its_addresses():
    with services() as found:
        name = found.sampler_address.replace("127.0.0.1", "localhost")
        with Client(found.trainer_address, f"dns:///{name}") as client:
            assert spread(client, 3) == {found.sampler_address: 3}


def test_a_replica_that_does_not_name_itself_goes_by_the_address_given():
    class Nameless(FakeSampler):
        def Sample(self, request, context):  # noqa: N802
            self.address = ""
            yield from super().Sample(request, context)

    with (
        services(samplers=[Nameless(), Nameless()]) as found,
        Client(found.trainer_address, found.sampler_address) as client,
    ):
        assert spread(client, 3) == {found.sampler_address: 3}


def test_an_unknown_balancing_is_refused():
    with pytest.raises(InvalidFieldError, match="weighted, round_robin"):
        Client(balancing="least_request")


def test_a_config_is_one_that_grpc_takes():
    for balancing in ("weighted", "round_robin"):
        options = [("grpc.service_config", service_config(balancing))]
        with grpc.insecure_channel("ipv4:127.0.0.1:1", options) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary("/a/B")(b"")
            # A config that it does not take fails every call with INVALID_ARGUMENT.
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("addresses", "targets"),
    [
        (["a:1"], [Target("a:1", "a:1", balanced=False, replicas=1)]),
        (["10.0.0.5:1"], [Target("10.0.0.5:1", "10.0.0.5:1", balanced=False, replicas=1)]),
        (["dns:///a:1"], [Target("dns:///a:1", "dns:///a:1", balanced=True, replicas=2)]),
        (
            ["10.0.0.5:1", "localhost:2"],
            [Target("ipv4:10.0.0.5:1,127.0.0.1:2", "10.0.0.5:1,localhost:2", balanced=True, replicas=2)],
        ),
        (
            ["ipv4:10.0.0.5:1", "10.0.0.6:1"],
            [Target("ipv4:10.0.0.5:1,10.0.0.6:1", "ipv4:10.0.0.5:1,10.0.0.6:1", balanced=True, replicas=2)],
        ),
        (
            ["[::1]:1", "[fe80::2]:3"],
            [Target("ipv6:[::1]:1,[fe80::2]:3", "[::1]:1,[fe80::2]:3", balanced=True, replicas=2)],
        ),
        (
            ["a:1", "10.0.0.5:1", "[::1]:1"],
            [Target(one, one, balanced=True, replicas=1) for one in ("a:1", "10.0.0.5:1", "[::1]:1")],
        ),
    ],
)
def test_what_addresses_lead_to(addresses, targets):
    assert list(sampler_targets(addresses)) == targets


def test_failures_are_counted_from_the_last_progress_and_that_of_others_prevents_giving_up():
    waits = []
    shared = SharedProgress()
    state = RetryState(Route((), replicas=2), RetryPolicy(attempts=4, first_delay=1.0, sleep=waits.append), shared)
    failure = RowmintCallError(grpc.StatusCode.UNAVAILABLE, "gone")
    for others in (False, False, False, True, True):
        if others:
            shared.add()
        state.failed(failure, reached=True)
    assert waits == [1.0, 2.0, 4.0, 5.0]
    state.progress()
    state.failed(failure, reached=True)
    assert len(waits) == 4
    assert shared.count == 3
    for _ in range(3):
        state.failed(failure, reached=True)
    with pytest.raises(RowmintCallError, match="given up after 4 attempts"):
        state.failed(failure, reached=True)
    with pytest.raises(RowmintCallError, match=r"^gone \(UNAVAILABLE\)$"):
        state.failed(failure, reached=False)


def test_parts_and_single_calls_take_names_in_turn():
    names = ["alpha:7402", "beta:7402", "gamma:7402"]
    with Client("127.0.0.1:1", names) as client:
        for parallel in (2, 3, 6):
            routes = client._connection.routes(parallel)
            first = [route.peers[route.first % len(route.peers)].address for route in routes]
            assert len(set(first)) == min(parallel, 3)


def test_calls_of_a_client_that_is_closed_open_no_channel():
    with Client("127.0.0.1:1", "127.0.0.1:1") as client:
        assert len({route.peers for route in client._connection.routes(3)}) == 3
        assert len({route.peers for route in client._connection.routes(2)}) == 2
    assert len({route.peers for route in client._connection.routes(9)}) == 3
