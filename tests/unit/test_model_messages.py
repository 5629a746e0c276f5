"""Messages of models: every state and every declared capability has its value on the wire."""

from dataclasses import replace

import pytest

from rowmint.registry import VersionState
from rowmint.rpc.models import capabilities_to_proto, model_version_to_proto
from rowmint.synthesizer.interface import Capabilities, ConditionSupport, Mechanism, Unit
from rowmint.v1 import model_pb2
from tests.golden.make import stored
from tests.golden.streams import record

VERSION = record("independent", *stored("independent"))


@pytest.mark.parametrize("state", VersionState)
def test_every_state_has_its_value(state):
    shown = model_version_to_proto(replace(VERSION, state=state, rejection_reason="why"))
    assert model_pb2.ModelVersionState.Name(shown.state) == f"MODEL_VERSION_STATE_{state}"
    assert shown.rejection_reason == "why"


def test_a_version_that_declares_nothing_has_no_capabilities():
    assert not model_version_to_proto(VERSION).HasField("capabilities")


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("conditions", ConditionSupport)
@pytest.mark.parametrize("likelihood", [False, True])
def test_every_capability_has_its_value(unit, conditions, likelihood):
    declared = Capabilities(unit, conditions, likelihood, frozenset(Mechanism))
    shown = model_version_to_proto(replace(VERSION, capabilities=declared.to_json())).capabilities
    assert model_pb2.GenerationUnit.Name(shown.unit) == f"GENERATION_UNIT_{unit.name}"
    assert model_pb2.ConditionSupport.Name(shown.conditions) == f"CONDITION_SUPPORT_{conditions.name}"
    assert shown.likelihood is likelihood
    assert {model_pb2.PrivacyMechanism.Name(one) for one in shown.privacy} == {
        f"PRIVACY_MECHANISM_{mechanism.name}" for mechanism in Mechanism
    }


def test_a_value_of_newer_code_is_unspecified():
    declared = {"unit": "table", "conditions": "approximate", "likelihood": False, "privacy": ["of tomorrow"]}
    assert capabilities_to_proto(declared) == model_pb2.Capabilities(privacy=[0])
