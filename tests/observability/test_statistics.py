"""What replicas report of a model, by the RPC, the client and the command."""

import json
from datetime import UTC, datetime

import grpc
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError
from tests.acceptance.processes import Services, free_port
from tests.observability.conftest import PROJECT, REQUESTED, Watched


@pytest.fixture(scope="module")
def idle(watched: Watched):
    """A replica that has served nothing."""
    services = Services(watched.services.home)
    yield services.sampler()
    services.close()


def test_a_replica_reports_its_own_requests_only(watched: Watched, idle):
    with Client(watched.trainer.address, [watched.sampler.address, idle.address], PROJECT) as client:
        version = client.get_version("customers").name
        served, unserved = client.model_statistics(version)
        assert (served.address, unserved.address) == (watched.sampler.address, idle.address)
        assert (served.statistics.replica, unserved.statistics.replica) == (served.address, unserved.address)
        (one,) = served.statistics.model_versions
        assert one.model_version == version
        # Other tests may have called this replica since, but not the first one of all.
        assert one.streams_begun >= one.streams_ended.complete >= 1
        assert one.rows >= REQUESTED
        assert one.candidates >= one.accepted >= watched.report["accepted"]
        assert one.blocks >= 1
        assert one.block_seconds > 0
        assert one.first_row_seconds.count == one.streams_begun
        assert 0 < one.first_row_seconds.max <= one.first_row_seconds.sum
        assert one.loaded
        assert one.loaded_bytes > 0
        begun = served.statistics.start_time.ToDatetime(UTC)
        assert begun <= one.last_served_time.ToDatetime(UTC) <= datetime.now(UTC)

        (none,) = unserved.statistics.model_versions
        assert none.model_version == version
        assert {field.name for field, _ in none.ListFields()} <= {
            "model_version",
            "streams_ended",
            "first_row_seconds",
        }
        assert none.streams_begun == none.streams_ended.complete == none.first_row_seconds.count == 0
        # Of a model, only what was served.
        served, unserved = client.model_statistics("customers")
        assert [one.model_version for one in served.statistics.model_versions] == [version]
        assert list(unserved.statistics.model_versions) == []


def test_completed_rows_count(watched: Watched, idle):
    services = Services(watched.services.home)
    try:
        sampler = services.sampler()
        with Client(watched.trainer.address, sampler.address, PROJECT) as client:
            rows = list(client.complete_rows("customers", [{"city": "Oslo"}] * 7, seed=1))
            assert len(rows) == 7
            (found,) = client.model_statistics("customers")
            (one,) = found.statistics.model_versions
            assert (one.streams_begun, one.rows, one.blocks) == (1, 7, 0)
    finally:
        services.close()


@pytest.mark.parametrize("form", ["customers@latest", "customers@sha256:{digest}", "customers/versions/1"])
def test_a_version_is_named_as_anywhere(watched: Watched, form):
    with Client(watched.trainer.address, watched.sampler.address, PROJECT) as client:
        version = client.get_version("customers")
        (found,) = client.model_statistics(form.format(digest=version.model_digest.hex()))
        assert [one.model_version for one in found.statistics.model_versions] == [version.name]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nothing", grpc.StatusCode.NOT_FOUND),
        ("nothing@latest", grpc.StatusCode.NOT_FOUND),
        ("customers/versions/99", grpc.StatusCode.NOT_FOUND),
        ("Customers", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_there_is_not_is_refused(watched: Watched, name, code):
    with (
        Client(watched.trainer.address, watched.sampler.address, PROJECT) as client,
        pytest.raises(RowmintCallError) as caught,
    ):
        client.model_statistics(name)
    assert caught.value.code is code


def test_a_replica_that_is_down_does_not_hide_the_others(watched: Watched):
    unused_address = f"127.0.0.1:{free_port()}"
    quick = RetryPolicy(unary_attempts=2, first_delay=0.01)
    with Client(watched.trainer.address, [watched.sampler.address, unused_address], PROJECT, retry=quick) as client:
        up, down = client.model_statistics("customers")
        assert up.statistics is not None
        assert (down.address, down.statistics) == (unused_address, None)
        assert down.error.code is grpc.StatusCode.UNAVAILABLE
    with (
        Client(watched.trainer.address, unused_address, PROJECT, retry=quick) as client,
        pytest.raises(RowmintCallError) as caught,
    ):
        client.model_statistics("customers")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_the_command_shows_a_table_and_json(watched: Watched):
    (found,) = json.loads(watched.command("models", "statistics", "customers", "--json"))
    assert found["address"] == watched.sampler.address
    assert found["model_versions"][0]["rows"] >= REQUESTED
    table = watched.command("models", "statistics", "customers")
    assert "acceptance" in table
    assert watched.sampler.address in table
    watched.command("models", "statistics", "nothing", code=1)
