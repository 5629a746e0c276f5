"""What families declare: it agrees with the proto, with the forward halves, and with itself."""

import inspect
import json
import re
import runpy
from pathlib import Path

import pytest
import rfc8785
from typer.testing import CliRunner

from rowmint.artifact import read_model
from rowmint.cli.app import app
from rowmint.cli.jobs import train
from rowmint.client.families import TrainingField, family_fields, family_names, training_fields
from rowmint.conditions import AnyOf, Predicate, canonical
from rowmint.errors import DataLossError, InvalidFieldError
from rowmint.synthesizer import FAMILIES as SYNTHESIZERS
from rowmint.synthesizer import (
    Capabilities,
    ConditionSupport,
    Mechanism,
    Unit,
    choose_kernel,
    synthesizer_family,
)
from tests.families.exemplars.config import ExemplarsConfig
from tests.golden.make import stored
from trainer_service.fitting import families
from trainer_service.fitting.families import (
    FAMILIES,
    Family,
    Trainable,
    family_named,
    family_of,
    trainable_named,
    trainable_of,
    trainables,
)
from trainer_service.fitting.families.hyperparameters import value_text
from trainer_service.fitting.families.markdown import families_markdown, hyperparameters_markdown

PROTO = (Path(__file__).parents[2] / "protos" / "rowmint" / "v1" / "training_job.proto").read_text(encoding="utf-8")
EVERY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
REQUESTABLE = pytest.mark.parametrize("one", trainables(), ids=lambda one: one.name)


def comments(message: str) -> dict[str, str]:
    """Return the comment of each field of a message of the proto."""
    found = re.search(r"^message " + message + r" [{](.*?)[}]", PROTO, re.MULTILINE | re.DOTALL)
    assert found is not None
    fields = re.findall(r"((?: *//[^\n]*\n)+) *(?:optional|repeated) \w+ (\w+) = \d+(?: \[[^\]]*\])?;", found.group(1))
    return {name: " ".join(re.findall(r"// ?(.*)", text)) for text, name in fields}


@REQUESTABLE
def test_the_proto_has_every_hyper_parameter_and_no_other(one: Trainable) -> None:
    assert list(one.config.hyperparameters()) == [field.name for field in family_fields()[one.name].fields]


@REQUESTABLE
def test_the_protos_comments_say_range_and_default(one: Trainable) -> None:
    said = comments(family_fields()[one.name].name)
    assert list(said) == list(one.config.hyperparameters())
    for name, parameter in one.config.hyperparameters().items():
        assert parameter.range in said[name], name
        assert parameter.help
        default = one.config.defaults()[name]
        shown = re.search(r"(?:Default|Empty): (.+)\.$", said[name])
        assert shown is not None, name
        if isinstance(default, tuple):
            assert shown.group(1).strip("()") == value_text(default), name
        elif isinstance(default, bool):
            assert shown.group(1) == str(default).lower(), name
        else:
            assert float(shown.group(1)) == default, name


@EVERY
def test_defaults_are_valid(family: Family) -> None:
    family.config().validate("test")
    assert family.config().least_rows >= 2
    assert (family.config().steps_per_epoch(10_000) > 0) == family.iterative


@EVERY
def test_a_family_is_found_by_name_and_by_configuration(family: Family) -> None:
    assert family_named(family.name) is family
    assert family_of(family.config()) is family
    assert synthesizer_family(family.synthesizer.name) is family.synthesizer
    assert family.capabilities.privacy == family.privacy


@REQUESTABLE
def test_what_a_job_requests_is_found_by_name_and_by_configuration(one: Trainable) -> None:
    one.config().validate("test")
    assert trainable_named(one.name) is one
    assert trainable_of(one.config()) is one


def test_the_lists_agree() -> None:
    assert tuple(one.name for one in trainables()) == family_names()
    assert families.family_names() == family_names()[:-1]
    assert {family.synthesizer.name for family in FAMILIES} <= {family.name for family in SYNTHESIZERS}
    assert len({family.config for family in FAMILIES}) == len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_unknown_families_are_refused() -> None:
    with pytest.raises(KeyError, match="oracle"):
        family_named("oracle")
    with pytest.raises(KeyError, match="oracle"):
        trainable_named("oracle")
    with pytest.raises(KeyError, match="ExemplarsConfig"):
        family_of(ExemplarsConfig())
    with pytest.raises(KeyError, match="auto"):
        family_named("auto")
    with pytest.raises(DataLossError, match=r"'oracle'; this version knows circuit, ctgan, tvae, independent"):
        synthesizer_family("oracle")


@pytest.mark.parametrize(("family", "column"), [("ctgan", "city"), ("tvae", ""), ("independent", "city")])
def test_candidates_are_drawn_for_a_condition_where_the_family_can(family: str, column: str) -> None:
    model = read_model(*stored(family), choose_kernel("numpy"))
    tests = canonical([Predicate("city", AnyOf(("Zürich",)))], model.schema)
    assert model.synthesizer.conditioned_column(tests) == column
    assert model.synthesizer.conditioned_column(()) == ""


def test_capabilities_are_restored_from_json() -> None:
    some = Capabilities(
        Unit.SEQUENCE, ConditionSupport.EXACT, likelihood=True, privacy=frozenset({Mechanism.DP_SGD, *Mechanism})
    )
    assert Capabilities.from_json(some.to_json()) == some
    assert Capabilities().to_json() == {"unit": "row", "conditions": "rejection", "likelihood": False, "privacy": []}
    assert some.to_json()["privacy"] == ["dp_sgd", "noisy_marginals"]


@pytest.mark.parametrize(
    "part", [{"unit": "table"}, {"conditions": "perhaps"}, {"likelihood": 1}, {"privacy": 3}, {"privacy": None}]
)
def test_capabilities_that_this_version_does_not_know_are_refused(part: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Capabilities.from_json({**Capabilities().to_json(), **part})


def test_a_model_of_a_mechanism_that_this_version_does_not_know_is_read() -> None:
    manifest, weights = stored("tvae")
    declared = {**Capabilities().to_json(), "privacy": ["dp_sgd", "of a later version"]}
    manifest = rfc8785.dumps({**json.loads(manifest), "capabilities": declared})
    model = read_model(manifest, weights, choose_kernel("numpy"))
    assert model.capabilities.privacy == {Mechanism.DP_SGD}


def test_settings_have_the_types_of_the_api() -> None:
    fields = {field.name: field for field in training_fields()}
    assert fields["embedding_dim"] == TrainingField("embedding_dim", int, ("ctgan", "tvae"))
    assert fields["log_frequency"] == TrainingField("log_frequency", bool, ("ctgan",))
    assert fields["generator_dim"] == TrainingField("generator_dim", str, ("ctgan",), repeated=True)
    assert fields["device"] == TrainingField("device", str, (), ("cpu", "cuda"))
    assert (fields["loss_factor"].kind, fields["keep_best"].kind, fields["seed"].kind) == (float, bool, int)
    assert not {"family", "column_overrides", *family_names()} & set(fields)


def test_the_command_has_an_option_for_every_setting() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"]).output
    names = {field.name for field in training_fields()}
    assert [name for name in names if f"--{name.replace('_', '-')}" not in shown] == []
    # No other option of the command hides one of them, but --primary-key, which sets it where no file is uploaded.
    options = {
        name: getattr(parameter.annotation, "__metadata__", (None,))[0]
        for name, parameter in inspect.signature(train).parameters.items()
    }
    generated = {name for name, option in options.items() if getattr(option, "rich_help_panel", None) == "Training"}
    assert names - generated == {"primary_key"}


def test_a_range_is_checked_and_said_once() -> None:
    with pytest.raises(InvalidFieldError) as caught:
        ExemplarsConfig(epochs=0).validate("training_job.config.exemplars")
    (violation,) = caught.value.violations
    assert violation.field == "training_job.config.exemplars.epochs"
    assert ExemplarsConfig.hyperparameters()["epochs"].range in violation.description


def test_the_module_prints_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("trainer_service.fitting.families", run_name="__main__")
    shown = capsys.readouterr().out
    assert families_markdown() in shown
    assert [one.name for one in trainables() if hyperparameters_markdown(one) not in shown] == []
