"""JSON over HTTP, turned into gRPC by Envoy: the same answers, the same rows, the same errors."""

import base64
import hashlib
import json
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2  # noqa: F401 - registers the types of details
from grpc_status import rpc_status

from rowmint.v1 import model_pb2, model_service_pb2, sampling_pb2
from rowmint.v1.model_service_pb2_grpc import ModelServiceStub
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from tests.acceptance.processes import ROOT
from tests.golden.streams import PROJECT
from tests.proxied.deployment import Answer, Deployment

GOLDEN = json.loads((ROOT / "tests" / "golden" / "digests.json").read_text())
PARENT = f"projects/{PROJECT}"
MODEL = f"{PARENT}/models/ctgan"
VERSION = f"{MODEL}/versions/1"


@pytest.fixture
def channel(two: Deployment):
    with grpc.insecure_channel(two.address) as found:
        yield found


@pytest.fixture
def digest(channel: grpc.Channel) -> str:
    version = ModelServiceStub(channel).GetModelVersion(model_service_pb2.GetModelVersionRequest(name=VERSION))
    return version.model_digest.hex()


def forms_of_a_version(digest: str) -> list[str]:
    return [f"{MODEL}@latest", f"{MODEL}%40latest", f"{MODEL}@sha256:{digest}", f"{MODEL}%40sha256%3A{digest}"]


def read(answer: Answer, message: Any) -> Any:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    return json_format.ParseDict(answer.json, message)


def test_models(two: Deployment, channel: grpc.Channel) -> None:
    stub = ModelServiceStub(channel)
    model = stub.GetModel(model_service_pb2.GetModelRequest(name=MODEL))
    assert read(two.get(f"/v1/{MODEL}"), model_pb2.Model()) == model
    listed = stub.ListModels(model_service_pb2.ListModelsRequest(parent=PARENT, page_size=3))
    assert len(listed.models) == 3
    got = two.get(f"/v1/{PARENT}/models?page_size=3")
    assert read(got, model_service_pb2.ListModelsResponse()) == listed
    rest = two.get(f"/v1/{PARENT}/models?pageSize=3&pageToken={got.json['nextPageToken']}")
    assert [one["name"] for one in rest.json["models"]] == [f"{PARENT}/models/tvae"]
    versions = stub.ListModelVersions(model_service_pb2.ListModelVersionsRequest(parent=MODEL))
    assert read(two.get(f"/v1/{MODEL}/versions"), model_service_pb2.ListModelVersionsResponse()) == versions


def test_a_version_by_name_alias_and_digest(two: Deployment, channel: grpc.Channel, digest: str) -> None:
    version = ModelServiceStub(channel).GetModelVersion(model_service_pb2.GetModelVersionRequest(name=VERSION))
    assert read(two.get(f"/v1/{VERSION}"), model_pb2.ModelVersion()) == version
    for name in forms_of_a_version(digest):
        assert read(two.get(f"/v1/{name}:version"), model_pb2.ModelVersion()) == version


def test_statistics_are_those_of_the_called_replica(two: Deployment) -> None:
    for name in (VERSION, MODEL):
        answer = two.get(f"/v1/{name}:statistics")
        assert answer.status == 200, answer.body
        assert answer.json["replica"] in {"127.0.0.2:7402", "127.0.0.3:7402"}


def test_a_plan(two: Deployment, channel: grpc.Channel, digest: str) -> None:
    sample = sampling_pb2.SampleRequest(model=VERSION, rows=9_000, seed=5)
    sample.where.predicates.add(column="city").equals.string_value = "Zürich"
    request = sampling_pb2.PlanSampleRequest(sample=sample, parts=3)
    plan = SamplingServiceStub(channel).PlanSample(request)
    assert len(plan.parts) == 3
    body = json_format.MessageToDict(request)
    del body["sample"]["model"]
    for name in (VERSION, *forms_of_a_version(digest)):
        assert read(two.get(f"/v1/{name}:planSample", body), sampling_pb2.PlanSampleResponse()) == plan
    # A part is a request as it stands, but for its model, which is in the path.
    part = two.get(f"/v1/{VERSION}:planSample", body).json["parts"][1]
    lines = two.get(f"/v1/{part.pop('model')}:sample", part).lines
    assert lines[-1]["summary"]["complete"] is True


@pytest.mark.parametrize("form", ["arrow_stream", "csv", "ndjson", "columns"])
def test_rows_are_lines_of_what_grpc_gives(two: Deployment, channel: grpc.Channel, digest: str, form: str) -> None:
    request = sampling_pb2.SampleRequest(model=VERSION, rows=5_000, seed=2**64 - 1, message_bytes=65_536)
    request.format = sampling_pb2.RowFormat.Value(f"ROW_FORMAT_{form.upper()}")
    expected = list(SamplingServiceStub(channel).Sample(request))
    body = json_format.MessageToDict(request)
    del body["model"]
    for name in (VERSION, *forms_of_a_version(digest)):
        answer = two.get(f"/v1/{name}:sample", body)
        assert answer.status == 200
        assert [json_format.ParseDict(line, sampling_pb2.SampleResponse()) for line in answer.lines] == expected
    header, *messages, summary = answer.lines
    assert header["header"]["modelVersion"] == VERSION
    assert summary["summary"]["complete"] is True
    if form != "columns":
        data = b"".join(base64.b64decode(message["data"]["data"]) for message in messages)
        assert hashlib.sha256(data).hexdigest() == GOLDEN[f"ctgan, all, first, {form}"]


def test_the_largest_messages_pass(two: Deployment) -> None:
    body = {"rows": "40000", "seed": "7", "messageBytes": 1_048_576}
    lines = two.get(f"/v1/{VERSION}:sample", body).lines
    assert max(len(base64.b64decode(line["data"]["data"])) for line in lines[1:-1]) > 900_000
    assert lines[-1]["summary"]["rowsDelivered"] == "40000"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{PARENT}/models/none", None, 404),
        (f"{PARENT}/models?page_size=5000", None, 400),
        (f"{MODEL}@none:version", None, 404),
        (f"{VERSION}:sample", {"rows": "10", "columns": ["nope"]}, 400),
        (f"{VERSION}:sample", {"rows": "0"}, 400),
        (f"{VERSION}:sample", {"rows": "9", "startRow": "10"}, 400),
        (f"{VERSION}:planSample", {"sample": {"rows": "9"}, "parts": 5_000}, 400),
    ],
)
def test_errors_have_their_details(two: Deployment, channel: grpc.Channel, path: str, body: Any, status: int) -> None:
    answer = two.get(f"/v1/{path}", body)
    assert answer.status == status
    with pytest.raises(grpc.RpcError) as raised:
        ask_by_grpc(channel, path, body)
    reported = rpc_status.from_call(raised.value)
    assert reported is not None
    assert answer.json == json_format.MessageToDict(reported)
    assert answer.json["details"][0]["domain"] == "rowmint"


def ask_by_grpc(channel: grpc.Channel, path: str, body: Any) -> None:
    models, sampling = ModelServiceStub(channel), SamplingServiceStub(channel)
    if path.endswith(":sample"):
        list(sampling.Sample(json_format.ParseDict({"model": VERSION, **body}, sampling_pb2.SampleRequest())))
    elif path.endswith(":planSample"):
        body = {**body, "sample": {"model": VERSION, **body["sample"]}}
        sampling.PlanSample(json_format.ParseDict(body, sampling_pb2.PlanSampleRequest()))
    elif path.endswith(":version"):
        name = path.removesuffix(":version")
        models.GetModelVersion(model_service_pb2.GetModelVersionRequest(name=name))
    elif "?" in path:
        models.ListModels(model_service_pb2.ListModelsRequest(parent=PARENT, page_size=5_000))
    else:
        models.GetModel(model_service_pb2.GetModelRequest(name=path))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"/v1/{VERSION}:sample", {"rows": "ten"}, 400),
        (f"/v1/{MODEL}?nope=1", None, 400),
        (f"/v1/{PARENT}%2Fmodels/ctgan", None, 400),
        (f"/v1/{VERSION}:nope", {}, 404),
        ("/", None, 404),
        ("/stats/prometheus", None, 404),
        ("/config_dump", None, 404),
        ("/quitquitquit", {}, 404),
    ],
)
def test_what_is_not_a_call_is_refused(two: Deployment, path: str, body: Any, status: int) -> None:
    assert two.get(path, body).status == status
