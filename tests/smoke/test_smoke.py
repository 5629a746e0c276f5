"""Real processes, once each way: quickstart, main job, a killed replica, a call by certificate, a route of Envoy.

What `make test` holds of the tier behind it, which has all of this in every form.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from rowmint.client import Client, RowmintCallError
from rowmint.client.credentials import Credentials
from rowmint.security.access_file import grant_certificate
from rowmint.security.certificates import issue_certificate, make_authority
from rowmint.security.identity import Role
from rowmint.v1 import training_job_pb2
from tests.acceptance.processes import Services, customers_csv
from tests.acceptance.test_readme import run
from tests.docs.pages import README, blocks
from tests.faults.golden_home import NO_TRAINER, golden_version
from tests.faults.raw_streams import NARROW
from tests.golden.streams import PROJECT
from tests.proxied.deployment import Deployment

# Some 3 MB, far more than a server on a narrow channel is ahead of its reader.
ROWS = 24_000
MESSAGE_BYTES = 16 * 1024


@pytest.fixture(scope="module")
def smoke_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A trainer and a sampler."""
    found = Services(tmp_path_factory.mktemp("services"))
    try:
        with ThreadPoolExecutor(2) as threads:
            trainer, sampler = threads.submit(found.trainer, ROWMINT_THREADS="1"), threads.submit(found.sampler)
            trainer.result()
            sampler.result()
        found.started.sort(key=lambda service: service.module, reverse=True)
        yield found
    finally:
        found.close()


def test_the_quickstart(smoke_services: Services, tmp_path: Path) -> None:
    trainer, sampler = smoke_services.started
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ROWMINT_TRAINER": trainer.address,
        "ROWMINT_SAMPLER": sampler.address,
    }
    for block in blocks("sh", [README]):
        run(["bash", "-euo", "pipefail", "-c", block], tmp_path, environment)
    header, *lines = (tmp_path / "oslo.csv").read_text().splitlines()
    assert header == "order,city,plan,age,spend"
    assert (len(lines), {line.split(",")[1] for line in lines}) == (1_000, {"Oslo"})


def test_the_main_job(smoke_services: Services) -> None:
    trainer, sampler = smoke_services.started
    with Client(trainer.address, sampler.address, "smoke") as client:
        dataset = client.upload(customers_csv(500), "customers", format="csv", primary_key="customer")
        events = list(client.watch(client.train(dataset, "customers", family="independent", seed=1)))
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert events[-1].state == training_job_pb2.JOB_STATE_SUCCEEDED
        table = client.sample(events[-1].model_version, 200, seed=5, where={"city": ["Oslo", "Lima"]}).to_table()
    assert table.num_rows == 200
    assert set(table["city"].to_pylist()) == {"Oslo", "Lima"}


def test_a_killed_replica(golden_home: Path) -> None:
    services = Services(golden_home)
    try:
        with ThreadPoolExecutor(2) as threads:
            both = [started.result() for started in [threads.submit(services.sampler) for _ in range(2)]]
        with Client(NO_TRAINER, [one.address for one in both], channel_options=NARROW) as client:
            requested = {"seed": 3, "format": "csv", "message_bytes": MESSAGE_BYTES}
            with client.sample(golden_version("ctgan"), ROWS, **requested) as stream:
                chunks = stream.chunks()
                data = next(chunks)
                (serving,) = [one for one in both if one.address == stream.address]
                serving.kill()
                data += b"".join(chunks)
            whole = b"".join(client.sample(golden_version("ctgan"), ROWS, **requested).chunks())
        assert stream.resumes == 1
        assert data == whole
    finally:
        services.close()


def test_a_call_by_certificate(golden_home: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = make_authority("tests", now)
    server = issue_certificate(authority, "server", now, hosts=("localhost", "127.0.0.1"))
    ada, unauthorized = (issue_certificate(authority, name, now) for name in ("ada", "unauthorized"))
    files = {"ca": authority.certificate, "server": server.certificate, "key": server.key}
    for name, content in files.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
    grant_certificate(tmp_path / "access.json", "ada", {PROJECT: Role.READER})

    def shown(pair):
        return Credentials(authorities=authority.certificate, certificate=pair.certificate, key=pair.key)

    services = Services(golden_home, credentials=shown(ada))
    try:
        sampler = services.sampler(
            ROWMINT_TLS_CERTIFICATE=str(tmp_path / "server.pem"),
            ROWMINT_TLS_KEY=str(tmp_path / "key.pem"),
            ROWMINT_TLS_CLIENT_CA=str(tmp_path / "ca.pem"),
            ROWMINT_ACCESS_FILE=str(tmp_path / "access.json"),
        )
        with Client(NO_TRAINER, sampler.address, credentials=shown(ada)) as client:
            assert client.sample(golden_version("ctgan"), 10, seed=1).to_table().num_rows == 10
        with (
            Client(NO_TRAINER, sampler.address, credentials=shown(unauthorized)) as client,
            pytest.raises(RowmintCallError) as refused,
        ):
            client.get_version(golden_version("ctgan"))
        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
    finally:
        services.close()


def test_a_route_of_envoy(golden_home: Path, tmp_path: Path) -> None:
    deployment = Deployment(golden_home, tmp_path)
    try:
        deployment.sampler()
        deployment.start_envoy()
        body = {"rows": 20, "seed": "7", "format": "ROW_FORMAT_NDJSON"}
        answer = deployment.get(f"/v1/{golden_version('ctgan')}:sample", body)
        assert answer.status == 200
        with Client(deployment.address, deployment.address) as client:
            rows = client.sample(golden_version("ctgan"), 20, seed=7, format="ndjson")
            assert len(b"".join(rows.chunks()).splitlines()) == 20
    finally:
        deployment.close()
