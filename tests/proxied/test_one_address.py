"""The whole of Rowmint at one address: upload, training, watching and rows, by gRPC and as JSON."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import grpc
import pytest

from rowmint.client import Client
from rowmint.v1.dataset_service_pb2 import FinishWrite, WriteDatasetRequest
from rowmint.v1.dataset_service_pb2_grpc import DatasetServiceStub
from tests.acceptance.processes import customers_csv
from tests.docs.pages import blocks
from tests.proxied.deployment import Deployment
from tests.waiting import PATIENCE, wait_until


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """A trainer, a sampler and Envoy, on an empty home."""
    found = Deployment(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("whole"))
    try:
        found.trainer(ROWMINT_THREADS="1", ROWMINT_SEGMENT_BYTES="65536")
        found.sampler()
        found.start_envoy()
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def version(whole: Deployment) -> str:
    """A version that was uploaded for and trained through Envoy."""
    with Client(whole.address, whole.address) as client:
        dataset = client.upload(customers_csv(1_500), "people", format="csv", primary_key="customer")
        job = client.train(dataset, "people", family="independent", seed=1, threads=1)
        events = list(client.watch(job))
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        return client.get_job(job.name).model_version


def test_rows_of_what_was_trained(whole: Deployment, version: str) -> None:
    with Client(whole.address, whole.address) as client:
        request = client.sample_request(version, 5_000, seed=3, where={"age": (30, None)}, format="csv")
        rows = b"".join(client.sample_stream(request).chunks())
    assert rows.count(b"\n") == 5_001
    assert len(whole.get(f"/v1/{version}:sample", {"rows": "5", "format": "ROW_FORMAT_CSV"}).lines) == 3


def test_jobs_and_datasets_as_json(whole: Deployment, version: str) -> None:
    jobs = whole.get("/v1/projects/default/trainingJobs").json["trainingJobs"]
    (job,) = [one for one in jobs if one["model"] == "projects/default/models/people"]
    assert (job["state"], job["modelVersion"]) == ("JOB_STATE_SUCCEEDED", version)
    assert whole.get(f"/v1/{job['name']}").json == job
    events = whole.get(f"/v1/{job['name']}:watch?after_sequence=1").lines
    assert [int(event["sequence"]) for event in events] == list(range(2, len(events) + 2))
    assert events[-1]["state"] == "JOB_STATE_SUCCEEDED"
    ended = whole.get(f"/v1/{job['name']}:cancel", {})
    assert (ended.status, ended.json["details"][0]["reason"]) == (400, "WRONG_STATE")
    datasets = whole.get("/v1/projects/default/datasets").json["datasets"]
    (dataset,) = [one for one in datasets if one["name"] == job["dataset"]]
    assert whole.get(f"/v1/{dataset['name']}").json == dataset
    path = "/v1/projects/default/trainingJobs?training_job_id=more&validate_only=true"
    wanted = {"dataset": dataset["name"], "model": "projects/default/models/more", "config": {"independent": {}}}
    estimated = whole.get(path, wanted)
    assert estimated.status == 200, estimated.body
    assert set(estimated.json) == {"trainingJob", "estimate"}


def test_the_pages(whole: Deployment, tmp_path: Path) -> None:
    """Their calls as JSON are run word for word; only the address is put in."""
    table, *_ = blocks("sh")
    (block,) = blocks("curl")
    scripts = Path(sys.executable).parent
    path = os.pathsep.join([str(scripts), os.environ["PATH"], str(Path(__file__).parent / "without_curl")])

    def shell(text: str) -> str:
        return subprocess.check_output(
            ["bash", "-euo", "pipefail", "-c", text], cwd=tmp_path, env={**os.environ, "PATH": path}, text=True
        )

    shell(table)
    with Client(whole.address, whole.address) as client:
        dataset = client.upload(tmp_path / "shop.csv", "shop", primary_key="order")
        client.wait_job(client.train(dataset, "shop", family="independent", seed=1, threads=1))
    placed = block.replace("127.0.0.1:7402", whole.address)
    assert placed.count(whole.address) == 3
    reported = shell(placed)
    version, rest = json.JSONDecoder().raw_decode(reported)[0], reported[json.JSONDecoder().raw_decode(reported)[1] :]
    assert version["name"] == "projects/default/models/shop/versions/1"
    *rows, error = [json.loads(line) for line in rest.splitlines()]
    assert len(rows) == 3
    assert min(row["age"] for row in rows) >= 40
    assert error["details"][0]["reason"] == "COLUMN_NOT_FOUND"


def test_a_dataset_is_made_and_deleted_as_json(whole: Deployment) -> None:
    made = whole.get("/v1/projects/default/datasets?dataset_id=empty", {"format": {"csv": {}}})
    assert made.status == 200, made.body
    assert (made.json["name"], made.json["state"]) == ("projects/default/datasets/empty", "DATASET_STATE_UPLOADING")
    again = whole.get("/v1/projects/default/datasets?dataset_id=empty", {"format": {"csv": {}}})
    assert (again.status, again.json["details"][0]["reason"]) == (409, "RESOURCE_EXISTS")
    gone = whole.get(f"/v1/{made.json['name']}", method="DELETE")
    assert (gone.status, gone.json) == (200, {})
    assert whole.get(f"/v1/{made.json['name']}").status == 404


def test_aliases_are_moved_as_json(whole: Deployment, version: str) -> None:
    model = version.rpartition("/versions/")[0]
    moved = whole.get(f"/v1/{model}:setAlias", {"alias": "stable", "version": "1"})
    assert moved.json["aliases"] == {"latest": "1", "stable": "1"}
    assert whole.get(f"/v1/{model}@stable:version").json["name"] == version
    refused = whole.get(f"/v1/{version}", method="DELETE")
    assert (refused.status, refused.json["details"][0]["reason"]) == (400, "WRONG_STATE")
    whole.get(f"/v1/{model}:setAlias", {"alias": "stable"})
    assert whole.get(f"/v1/{version}", method="DELETE").status == 200
    assert whole.get(f"/v1/{version}").status == 404
    assert whole.get(f"/v1/{version}:undelete", {}).json["name"] == version
    assert whole.get(f"/v1/{version}").status == 200


def test_a_broken_upload_is_resumed_where_it_broke(whole: Deployment) -> None:
    table = customers_csv(4_000)
    made = whole.get("/v1/projects/default/datasets?dataset_id=broken", {"format": {"csv": {}}})
    name = made.json["name"]
    broken = threading.Event()

    def first_part() -> Iterator[WriteDatasetRequest]:
        for start in range(0, len(table) // 2, 16_384):
            data = table[start : start + 16_384]
            yield WriteDatasetRequest(name=name, write_offset=start, data=data, crc32c=google_crc32c.value(data))
        broken.wait(60)

    def committed() -> int:
        return int(whole.get(f"/v1/{name}").json.get("committedSize", 0))

    with grpc.insecure_channel(whole.address) as channel:
        stub = DatasetServiceStub(channel)
        call = stub.WriteDataset.future(first_part())
        wait_until(lambda: committed() > 0, "a part of the upload being committed")
        call.cancel()
        broken.set()
        wait_until(call.done, "the end of the call")
        end = FinishWrite(total_size=len(table), sha256=hashlib.sha256(table).digest())

        def finished() -> bool:
            """Resume at what is committed; what the broken call still commits makes that wrong, once."""
            start = committed()
            assert 0 < start < len(table)
            rest = table[start:]
            last = WriteDatasetRequest(name=name, write_offset=start, data=rest, crc32c=google_crc32c.value(rest))
            last.finish_write.CopyFrom(end)
            try:
                reported = stub.WriteDataset(iter([last]), timeout=60)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.OUT_OF_RANGE  # noqa: PT017 - the other end is a success
                return False
            return reported.dataset.committed_size == len(table)

        wait_until(finished, "the rest of the upload")
    wait_until(lambda: whole.get(f"/v1/{name}").json["state"] == "DATASET_STATE_READY", "the dataset being ready")
    assert whole.get(f"/v1/{name}").json["rowCount"] == "4000"


def test_a_service_that_is_nowhere_is_unimplemented(whole: Deployment) -> None:
    with grpc.insecure_channel(whole.address) as channel:
        unknown = channel.unary_unary("/rowmint.v2.Nothing/At", lambda message: message, lambda message: message)
        with pytest.raises(grpc.RpcError) as raised:
            unknown(b"", timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
