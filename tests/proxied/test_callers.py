"""Who may call what through Envoy: a sampler that was taken over does not reach trainers by way of it."""

import pytest

from tests.proxied.stage import Stage

# In the subnet of the network `samplers` of docker-compose.yml.
A_SAMPLER = "10.201.7.9"
ANYONE = "127.0.0.1"
GRPC, JSON = "application/grpc", "application/json"
DENIED = {GRPC: (200, "7"), JSON: (403, None)}


@pytest.fixture(scope="module")
def with_a_sampler(stage: Stage) -> Stage:
    stage.deployment.add_address(A_SAMPLER)
    return stage


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/rowmint.v1.DatasetService/ListDatasets", GRPC),
        ("/rowmint.v1.TrainingService/ListTrainingJobs", GRPC),
        ("/rowmint.v1.ModelAdminService/SignModelVersion", GRPC),
        ("/v1/projects/p/datasets", JSON),
        ("/v1/projects/p/trainingJobs", JSON),
        ("/v1/projects/p/models/m:setAlias", JSON),
    ],
)
def test_calls_to_trainers_from_the_samplers_network_are_refused(
    with_a_sampler: Stage, path: str, content_type: str
) -> None:
    assert with_a_sampler.deployment.status_for(A_SAMPLER, path, content_type) == DENIED[content_type]
    assert with_a_sampler.deployment.status_for(ANYONE, path, content_type) != DENIED[content_type]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/rowmint.v1.ModelService/ListModels", GRPC), ("/v1/projects/p/models/m:planSample", JSON)],
)
def test_calls_to_samplers_are_not(with_a_sampler: Stage, path: str, content_type: str) -> None:
    assert with_a_sampler.deployment.status_for(A_SAMPLER, path, content_type) != DENIED[content_type]
