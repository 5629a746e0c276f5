"""`rowmint models promote` and `reject`, how a version's state is shown, and the client's calls behind them."""

import json

import pytest

from rowmint.client import Client
from rowmint.v1 import model_pb2
from tests.unit.fake_rows import VERSION
from tests.unit.fake_sampler import FakeSampler
from tests.unit.fake_services import services
from tests.unit.test_cli import fail, succeed


class StagedSampler(FakeSampler):
    """Knows a version of each state."""

    def ListModelVersions(self, request, context):  # noqa: N802
        found = super().ListModelVersions(request, context)
        for number, state in enumerate(("STAGED", "REJECTED"), start=2):
            found.model_versions.add(version=number, state=f"MODEL_VERSION_STATE_{state}")
        return found

    def GetModelVersion(self, request, context):  # noqa: N802
        found = self.version()
        if request.name.endswith("/3"):
            found.name, found.state = request.name, model_pb2.MODEL_VERSION_STATE_REJECTED
            found.rejection_reason = "rows repeat the [bold] training data"
        return found


@pytest.fixture
def fakes():
    with services(samplers=[StagedSampler()]) as found:
        yield found


def test_versions_are_listed_with_their_state(fakes):
    lines = succeed(fakes, "models", "list", "flights").stdout.splitlines()
    assert lines[0].split()[:2] == ["version", "state"]
    assert [line.split()[:2] for line in lines[1:]] == [["1", "published"], ["2", "staged"], ["3", "rejected"]]
    listed = json.loads(succeed(fakes, "models", "list", "flights", "--json").stdout)
    assert [one["state"].removeprefix("MODEL_VERSION_STATE_") for one in listed] == ["PUBLISHED", "STAGED", "REJECTED"]


def test_a_version_is_shown_with_its_state_and_why_it_was_rejected(fakes):
    done = succeed(fakes, "models", "show", "flights/versions/1")
    assert "flights/versions/1, published: circuit" in done.stderr
    assert "rejected because" not in done.stderr
    done = succeed(fakes, "models", "show", "flights/versions/3")
    assert "flights/versions/3, rejected: circuit" in done.stderr
    assert "rejected because: rows repeat the [bold] training data" in done.stderr


def test_a_version_is_promoted(fakes):
    done = succeed(fakes, "models", "promote", "flights/versions/1")
    assert (done.stdout, done.stderr) == ("", "flights/versions/1 is published\n")
    shown = json.loads(succeed(fakes, "models", "promote", "flights/versions/1", "--json").stdout)
    assert shown["name"] == VERSION
    assert fakes.trainer.decided == [(VERSION, "")] * 2


def test_a_version_is_rejected_for_a_reason(fakes):
    done = succeed(fakes, "models", "reject", "flights/versions/1", "--reason", "too far from the data")
    assert (done.stdout, done.stderr) == ("", "flights/versions/1 is rejected: too far from the data\n")
    shown = json.loads(succeed(fakes, "models", "reject", "flights/versions/1", "--reason", "why", "--json").stdout)
    assert shown["rejection_reason"] == "why"
    assert fakes.trainer.decided == [(VERSION, "too far from the data"), (VERSION, "why")]


def test_only_a_versions_own_name_is_decided_and_a_rejection_says_why(fakes):
    for arguments in (["promote", "flights"], ["promote", "flights@latest"], ["reject", "flights", "--reason", "why"]):
        assert "write flights/versions/NUMBER" in fail(fakes, "models", *arguments)
    assert "--reason" in fail(fakes, "models", "reject", "flights/versions/1", code=2)
    assert fakes.trainer.decided == []


def test_the_client_promotes_and_rejects(fakes):
    with Client(fakes.trainer_address, fakes.sampler_address) as client:
        assert client.promote_version("flights/versions/1").state == model_pb2.MODEL_VERSION_STATE_PUBLISHED
        assert client.reject_version(VERSION, "why").rejection_reason == "why"
        states = [one.state for one in client.list_versions("flights")]
    assert fakes.trainer.decided == [(VERSION, ""), (VERSION, "why")]
    assert states == [
        model_pb2.MODEL_VERSION_STATE_PUBLISHED,
        model_pb2.MODEL_VERSION_STATE_STAGED,
        model_pb2.MODEL_VERSION_STATE_REJECTED,
    ]
