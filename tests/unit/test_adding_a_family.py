"""A family that exists in tests only: it needs its message, its folders and a line in each list, and nothing else."""

import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from typer.testing import CliRunner

from rowmint.artifact import Artifact
from rowmint.cli.hyperparameters import with_training_options
from rowmint.client import training_config
from rowmint.client.families import family_names, training_fields
from rowmint.conditions import AnyOf, Predicate, WeightedTest, Weights, canonical, canonical_weights
from rowmint.errors import InvalidConditionError, InvalidFieldError
from rowmint.rng import StreamKey
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.plan import compile_plan, plan_key
from rowmint.sampling.rows import RowSource
from rowmint.sampling.spec import SampleSpec
from rowmint.sampling.stream import open_stream, write_rows
from rowmint.schema.arrays import column_cells
from rowmint.steps import finish
from rowmint.synthesizer import CompletionOptions, ConditionSupport, RowKeys
from rowmint.synthesizer import family as synthesizer_list
from rowmint.v1 import training_job_pb2
from tests.families.exemplars.config import ExemplarsConfig
from tests.families.exemplars.contract import FILE, declare
from tests.families.exemplars.family import EXEMPLARS
from tests.families.exemplars.synthesizer import CAPABILITIES, SYNTHESIZER, ExemplarsSynthesizer
from tests.golden.streams import golden_model
from tests.tables_to_fit import SMALL_EXPORT, fit_table, full_table, load
from trainer_service.config import TrainingConfig, from_json, to_json, validate_against
from trainer_service.converters.config import config_from_proto, config_to_proto
from trainer_service.fitting import families
from trainer_service.fitting.engine import estimate
from trainer_service.fitting.families.markdown import families_markdown, hyperparameters_markdown

TABLE = full_table()


def changed_contract() -> Any:
    """Return the class of `TrainingConfig` as it would be generated with the family's message in it."""
    pool = descriptor_pool.DescriptorPool()
    done: set[str] = set()

    def add(file: Any) -> None:
        if file.name in done:
            return
        done.add(file.name)
        for needed in file.dependencies:
            add(needed)
        body = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(body)
        if file.name == FILE:
            declare(body)
        pool.AddSerializedFile(body.SerializeToString())

    add(training_job_pb2.DESCRIPTOR)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rowmint.v1.TrainingConfig"))


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesizer_list, "FAMILIES", (*synthesizer_list.FAMILIES, SYNTHESIZER))
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, EXEMPLARS))
    monkeypatch.setattr(training_job_pb2, "TrainingConfig", changed_contract())


def config(**fields: Any) -> TrainingConfig:
    return TrainingConfig(ExemplarsConfig(), **{"seed": 6, "probe_epochs": 1, **fields})


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return fit_table(TABLE, config(keep_best=True), tmp_path)


def test_it_is_fitted_with_probes_and_a_manifest(artifact: Artifact) -> None:
    body = json.loads(artifact.manifest)
    training = body["training"]
    assert (body["generator"]["family"], training["family"]) == ("exemplars", "exemplars")
    assert (training["epochs"], training["steps_per_epoch"], len(training["probes"])) == (2, 6, 2)
    assert set(training["loss_history"]) == {"repeats"}
    assert training["config"]["exemplars"] == {
        "epochs": 2,
        "batch_size": 50,
        "share": 1.0,
        "distinct": False,
        "strides": [1],
    }
    # It uses neither torch nor the ctgan package.
    assert set(training["fingerprint"]) == {"device", "threads", "numpy", "simd", "blas"}
    assert "licence" not in body
    assert body["capabilities"] == {
        "unit": "row",
        "conditions": "exact",
        "likelihood": True,
        "privacy": ["noisy_marginals"],
    }


def test_it_is_sampled_exactly_under_conditions(artifact: Artifact) -> None:
    model = load(artifact)
    assert model.capabilities == EXEMPLARS.capabilities
    assert CAPABILITIES.conditions is ConditionSupport.EXACT
    where = canonical([Predicate("city", AnyOf(("Rome",))), Predicate("paid", AnyOf((True, None)))], model.schema)
    plan = compile_plan(model.digest, model.synthesizer, where)
    assert (plan.acceptance, plan.tile_budget, plan.most_reuse) == (1.0, 1, 1)
    # What its rows depend on beside model and conditions is in the digest.
    assert plan.digest != plan_key(model.digest, where)
    block = RowSource(model, plan, 3, model.schema.names).block(0, 100)
    assert (block.rows, block.accepted) == (100, block.candidates)
    rows = {name: column_cells(cells, model.schema.column(name)) for name, cells in block.columns.items()}
    assert set(rows["city"]) == {"Rome"}
    assert set(rows["paid"]) <= {True, None}
    # Each is a training row.
    names = [name for name in model.schema.names if name not in ("key", "noise")]
    real = set(zip(*(TABLE.cells[name] for name in names), strict=True))
    assert set(zip(*(rows[name] for name in names), strict=True)) <= real


def test_it_weights_a_column_exactly(artifact: Artifact) -> None:
    model = load(artifact)
    weights = Weights("city", (WeightedTest(AnyOf(("Rome",)), 3), WeightedTest(AnyOf(("Oslo", "Paris")), 1)))
    where = (Predicate("paid", AnyOf((True, None))),)
    spec = SampleSpec(rows=4000, where=where, weights=weights, seed=5, row_format=RowFormat.NDJSON)
    sink = io.BytesIO()
    summary = write_rows(model, spec, sink)
    assert (summary.candidates, summary.accepted) == (4000, 4000)
    rows = [json.loads(line) for line in sink.getvalue().splitlines()]
    cities = Counter(row["city"] for row in rows)
    assert set(cities) == {"Rome", "Oslo", "Paris"}
    assert {row["paid"] for row in rows} <= {True, None}
    assert cities["Rome"] / 4000 == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 4000))
    # Within an entry, the proportions are the model's.
    assert isinstance(model.synthesizer, ExemplarsSynthesizer)
    kept = [column_cells(model.synthesizer.columns[name], model.schema.column(name)) for name in ("city", "paid")]
    real = Counter(city for city, paid in zip(*kept, strict=True) if paid is not False)
    oslo = 0.25 * real["Oslo"] / (real["Oslo"] + real["Paris"])
    assert cities["Oslo"] / 4000 == pytest.approx(oslo, abs=4 * math.sqrt(oslo * (1 - oslo) / 4000))
    # They are in the digest, and reported beside the probability.
    conditions, own = canonical_weights(weights, canonical(where, model.schema), model.schema)
    plan = compile_plan(model.digest, model.synthesizer, conditions, own)
    assert plan.weights == own
    assert plan.digest != compile_plan(model.digest, model.synthesizer, conditions).digest
    assert plan.probability == sum(real[city] for city in cities) / model.synthesizer.size


def test_a_family_that_rejects_refuses_weights_and_names_this_one() -> None:
    weights = Weights("city", (WeightedTest(AnyOf(("Rome",)), 1),))
    with pytest.raises(InvalidConditionError, match=r"'city' cannot have weights: .*exactly: .*\bexemplars") as error:
        open_stream(golden_model("ctgan"), SampleSpec(rows=10, weights=weights, seed=5))
    assert error.value.metadata == {"column": "city"}


def test_an_impossible_share_is_refused_before_any_row(artifact: Artifact) -> None:
    model = load(artifact)
    entries = (WeightedTest(AnyOf((True,)), 1), WeightedTest(AnyOf((False,)), 1))
    unpaid = {age for age, paid in zip(TABLE.cells["age"], TABLE.cells["paid"], strict=True) if paid is False}
    alone = next(age for age in TABLE.cells["age"] if age is not None and age not in unpaid)
    spec = SampleSpec(rows=10, where=(Predicate("age", AnyOf((alone,))),), weights=Weights("paid", entries), seed=5)
    with pytest.raises(InvalidConditionError, match="in column 'paid'; it cannot have a share of the rows"):
        open_stream(model, spec)


def test_it_completes_rows(artifact: Artifact) -> None:
    model = load(artifact)
    key = StreamKey(model.digest, bytes(32), 4)
    completer = model.synthesizer.completer(key.tile(0, 0), CompletionOptions(256, 0.1))
    (done,) = finish(completer.complete([{"city": "Paris"}], RowKeys(key, 0, 5, 5)))
    assert done.cells["city"] == "Paris"
    assert set(done.cells) == set(model.schema.names) - {"key"}


def test_it_is_estimated(tmp_path: Path) -> None:
    path = TABLE.write(tmp_path / "t.parquet")
    found = estimate(path, TABLE.schema, config(), tmp_path, export=SMALL_EXPORT)
    assert found.steps_per_epoch == 6
    assert found.total_seconds > 0


def test_its_configuration_is_checked_and_converted_both_ways() -> None:
    message = training_config("exemplars", {"batch_size": "7", "share": 0.5, "distinct": True, "strides": "2,3"})
    made = config_from_proto(message, seed=9, threads=2)
    assert made.family == ExemplarsConfig(batch_size=7, share=0.5, distinct=True, strides=(2, 3))
    assert config_from_proto(config_to_proto(made), seed=0, threads=1) == made
    assert from_json(json.loads(json.dumps(to_json(made)))) == made
    for wrong, field in (({"epochs": 101}, "epochs"), ({"share": np.nan}, "share"), ({"strides": [0]}, "strides[0]")):
        with pytest.raises(InvalidFieldError) as caught:
            config_from_proto(training_config("exemplars", wrong), seed=9, threads=2)
        assert [one.field for one in caught.value.violations] == [f"training_job.config.exemplars.{field}"]
    with pytest.raises(InvalidFieldError, match="exemplars needs at least 3"):
        validate_against(config(), TABLE.schema, 2)


def test_the_client_knows_it_and_its_keyword_arguments() -> None:
    assert family_names()[-1] == "exemplars"
    fields = {field.name: field for field in training_fields()}
    assert (fields["share"].families, fields["share"].kind) == (("exemplars",), float)
    assert fields["epochs"].families == ("circuit", "ctgan", "tvae", "exemplars")
    with pytest.raises(InvalidFieldError, match=r"exemplars has no such hyper-parameter; did you mean share"):
        training_config("exemplars", {"shares": 1})


def test_the_documentation_lists_it() -> None:
    assert "| `exemplars` | Some training rows, drawn again and again | exact | yes | noisy_marginals | tests |\n" in (
        families_markdown()
    )
    table = hyperparameters_markdown(EXEMPLARS)
    assert "| `batch_size` | Rows a step | 1 to 1,000 | `50` |\n" in table
    assert "| `distinct` | Whether a row is kept once at most | true or false | `false` |\n" in table


def test_the_command_has_its_options() -> None:
    given: dict[str, object] = {}

    def command(*, settings: dict[str, object]) -> None:
        given.update(settings)

    app = typer.Typer(rich_markup_mode=None)
    app.command()(with_training_options(command))
    # The client explains it as soon as `make docs` has written what it declares; until then it names the family.
    wide = CliRunner().invoke(app, ["--help"], terminal_width=1000, max_content_width=1000).output
    said = " ".join(wide.split())
    assert "Hyper-parameter of exemplars [separated by commas]." in said
    assert "[ctgan, tvae; 1 to 100,000; default: 300]. Hyper-parameter of exemplars." in said
    arguments = ["--share", "0.5", "--distinct", "--strides", "2,3", "--epochs", "4", "--seed", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert given == {"share": 0.5, "distinct": True, "strides": "2,3", "epochs": 4, "seed": 1}
    own = training_config("exemplars", given).exemplars  # type: ignore[attr-defined]
    assert (own.share, own.distinct, list(own.strides), own.epochs) == (0.5, True, [2, 3], 4)
