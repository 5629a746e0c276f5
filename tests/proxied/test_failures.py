"""What Envoy does when replicas fail: what it retries and what not, which replica it ejects, and what it reports."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rowmint.v1 import (
    dataset_service_pb2,
    model_service_pb2,
    sampling_pb2,
    training_service_pb2,
)
from rowmint.v1.dataset_service_pb2_grpc import DatasetServiceStub
from rowmint.v1.model_service_pb2_grpc import ModelServiceStub
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from rowmint.v1.training_service_pb2_grpc import TrainingServiceStub
from tests.proxied.deployment import TRAINER, Deployment
from tests.proxied.stage import Stage
from tests.waiting import PATIENCE, wait_until

UNARY: dict[str, Callable[[grpc.Channel], Any]] = {
    "GetModel": lambda channel: ModelServiceStub(channel).GetModel(model_service_pb2.GetModelRequest()),
    "PlanSample": lambda channel: SamplingServiceStub(channel).PlanSample(sampling_pb2.PlanSampleRequest()),
}


CHANGING: dict[str, Callable[[grpc.Channel], Any]] = {
    "WriteDataset": lambda channel: DatasetServiceStub(channel).WriteDataset(
        iter([dataset_service_pb2.WriteDatasetRequest(name="projects/p/datasets/d", data=b"1,2\n")]), timeout=PATIENCE
    ),
    "CreateTrainingJob": lambda channel: TrainingServiceStub(channel).CreateTrainingJob(
        training_service_pb2.CreateTrainingJobRequest(), timeout=PATIENCE
    ),
}


def sample(channel: grpc.Channel) -> list[sampling_pb2.SampleResponse]:
    return list(SamplingServiceStub(channel).Sample(sampling_pb2.SampleRequest(), timeout=PATIENCE))


def noted(files: list[Path]) -> list[str]:
    """Return the calls that replicas have met."""
    return [line for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def channel(deployment: Deployment):
    with grpc.insecure_channel(deployment.address) as found:
        yield found


@pytest.fixture
def staged(stage: Stage):
    """A channel to replicas that answer as configured."""
    with grpc.insecure_channel(stage.deployment.address) as found:
        yield found


@pytest.mark.parametrize("method", UNARY)
def test_a_unary_call_that_changes_nothing_is_tried_twice_again(stage, staged, method) -> None:
    files = stage.samplers("unavailable", "unavailable")
    with pytest.raises(grpc.RpcError) as raised:
        UNARY[method](staged)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert noted(files) == [method] * 3
    assert all(noted([file]) for file in files), "not elsewhere"


def assert_one_answers(channel: grpc.Channel, failing: Path, good: Path) -> None:
    """Call until the failing replica was tried: each call ends well at the other."""

    def tried() -> bool:
        UNARY["GetModel"](channel)
        return bool(noted([failing]))

    wait_until(tried, "a call at the failing replica")
    assert set(noted([good])) == {"GetModel"}


@pytest.mark.parametrize("behaviour", ["unavailable", "full"])
def test_a_unary_call_ends_well_where_one_replica_can_answer(stage, staged, behaviour) -> None:
    assert_one_answers(staged, *stage.samplers(behaviour, "good"))


def test_a_unary_call_succeeds_where_one_replica_crashes(fakes, channel) -> None:
    assert_one_answers(channel, *fakes("dead", "good"))


def streamed(channel: grpc.Channel, files: list[Path]) -> grpc.StatusCode:
    """Begin a stream that fails; return how, when one replica has seen it and no other."""
    with pytest.raises(grpc.RpcError) as raised:
        sample(channel)
    assert noted(files) == ["Sample"]
    return raised.value.code()


@pytest.mark.parametrize("behaviour", ["unavailable", "full", "quota", "late"])
def test_a_stream_of_rows_that_a_replica_has_seen_is_not_tried_again(stage, staged, behaviour) -> None:
    code = streamed(staged, stage.samplers(behaviour, behaviour))
    assert code is (grpc.StatusCode.RESOURCE_EXHAUSTED if behaviour == "quota" else grpc.StatusCode.UNAVAILABLE)


def test_a_completion_that_killed_a_replica_is_not_retried(fakes, channel) -> None:
    code = streamed(channel, fakes("dead", "dead"))
    assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}


def test_rows_that_have_come_are_delivered_before_the_failure(stage, staged) -> None:
    files = stage.samplers("late", "late")
    call = SamplingServiceStub(staged).Sample(sampling_pb2.SampleRequest(), timeout=PATIENCE)
    assert next(call) == sampling_pb2.SampleResponse()
    with pytest.raises(grpc.RpcError) as raised:
        next(call)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert noted(files) == ["Sample"]


@pytest.mark.parametrize("method", CHANGING)
def test_what_a_trainer_may_have_done_is_not_tried_again(stage, staged, method) -> None:
    calls = stage.trainer("unavailable")
    with pytest.raises(grpc.RpcError):
        CHANGING[method](staged)
    assert noted([calls]) == [method]


@pytest.mark.parametrize("method", CHANGING)
def test_a_call_that_killed_a_trainer_is_not_retried(deployment, channel, method) -> None:
    deployment.fake_sampler("good")
    calls = deployment.fake_trainer("dead")
    deployment.start_envoy()
    with pytest.raises(grpc.RpcError):
        CHANGING[method](channel)
    assert noted([calls]) == [method]


def test_calls_that_cannot_reach_a_replica_any_more_go_to_another(deployment, channel) -> None:
    ending = deployment.fake_process("good")
    staying = deployment.fake_sampler("good")
    deployment.start_envoy()
    ending.process.kill()
    ending.process.wait()
    # Its health check has not failed yet, or has: a caller cannot see which.
    for _ in range(20):
        assert sample(channel) == [sampling_pb2.SampleResponse()]
    assert noted([staying]) == ["Sample"] * 20


def test_a_replica_whose_calls_break_is_left_out_though_it_looks_healthy(deployment, fakes, channel) -> None:
    failing, good = fakes("dying", "good")

    def left_out() -> bool:
        with contextlib.suppress(grpc.RpcError):
            sample(channel)
        return bool(deployment.figure("cluster.samplers.outlier_detection.ejections_active"))

    wait_until(left_out, "Envoy leaving a replica out")
    assert deployment.healthy("samplers") == ["127.0.0.3"]
    before = len(noted([failing]))
    for _ in range(20):
        assert sample(channel) == [sampling_pb2.SampleResponse()]
    assert len(noted([failing])) == before
    assert deployment.figure("cluster.samplers.outlier_detection.ejections_enforced_total") == 1
    assert set(noted([good])) == {"Sample"}


@pytest.mark.parametrize("behaviour", ["full", "quota"])
def test_a_replica_that_says_when_to_come_again_is_not_left_out(stage, staged, behaviour) -> None:
    files = stage.samplers(behaviour, behaviour)
    for _ in range(60):
        with pytest.raises(grpc.RpcError):
            sample(staged)
    assert len(stage.deployment.healthy("samplers")) == 2
    assert noted(files) == ["Sample"] * 60


def test_never_are_all_replicas_left_out(deployment, fakes, channel) -> None:
    files = fakes("dying", "dying")

    def spared() -> bool:
        with pytest.raises(grpc.RpcError):
            sample(channel)
        return bool(deployment.figure("cluster.samplers.outlier_detection.ejections_overflow"))

    wait_until(spared, "Envoy sparing the last replica")
    assert deployment.figure("cluster.samplers.outlier_detection.ejections_active") == 1
    assert noted(files)


def test_health_is_that_of_the_whole(deployment, channel) -> None:
    replica = deployment.fake_process("good")
    deployment.start_envoy()
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "rowmint.v1.SamplingService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert deployment.get("/healthz").status == 200
    assert deployment.get("/healthz/trainer").status == 503
    with pytest.raises(grpc.RpcError) as raised:
        next(health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    replica.process.kill()
    replica.process.wait()
    wait_until(lambda: not deployment.healthy("samplers"), "Envoy finding no sampler healthy")
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert deployment.get("/healthz").status == 503


def test_the_trainer_is_found_when_it_comes(deployment, channel) -> None:
    deployment.fake_sampler("good")
    deployment.start_envoy()
    assert deployment.get("/healthz/trainer").status == 503
    deployment.fake_trainer("good")
    wait_until(lambda: deployment.healthy("trainers") == [TRAINER], "Envoy finding the trainer healthy")
    assert deployment.get("/healthz/trainer").status == 200
