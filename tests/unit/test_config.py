"""The training configuration: its checks, its JSON and its message."""

import dataclasses
import inspect
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.errors import ColumnNotFoundError, InvalidFieldError
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.v1 import training_job_pb2
from trainer_service.config import (
    TrainingConfig,
    effective_schema,
    from_json,
    to_json,
    validate,
    validate_against,
)
from trainer_service.converters.config import config_from_proto, config_to_proto
from trainer_service.fitting.context import Device
from trainer_service.fitting.families import FAMILIES, FamilyConfig, family_named
from trainer_service.fitting.families.auto.config import AutoConfig
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.ctgan.config import CtganConfig
from trainer_service.fitting.families.independent.config import IndependentConfig
from trainer_service.fitting.families.tvae.config import TvaeConfig
from trainer_service.fitting.options import ColumnOverride, HighCardinality

SCHEMA = TableSchema(
    (
        ColumnSpec("key", ColumnKind.ID, DataType.INT64),
        ColumnSpec("city", ColumnKind.CATEGORICAL, DataType.STRING, Domain(categories=("a", "b", "c"))),
        ColumnSpec("age", ColumnKind.NUMERICAL, DataType.INT64),
        ColumnSpec("paid", ColumnKind.BOOLEAN, DataType.BOOL),
        ColumnSpec("price", ColumnKind.NUMERICAL, DataType.DOUBLE),
    ),
    primary_key="key",
)

layers = st.lists(st.integers(1, 4096), min_size=1, max_size=8).map(tuple)
rates = st.floats(1e-9, 1e3)
decays = st.floats(0, 1e3)


@st.composite
def ctgan_configs(draw: st.DrawFn) -> CtganConfig:
    pac = draw(st.integers(1, 100))
    return CtganConfig(
        epochs=draw(st.integers(1, 100_000)),
        batch_size=2 * pac * draw(st.integers(1, 1000)),
        generator_dim=draw(layers),
        discriminator_dim=draw(layers),
        generator_lr=draw(rates),
        generator_decay=draw(decays),
        discriminator_lr=draw(rates),
        discriminator_decay=draw(decays),
        embedding_dim=draw(st.integers(1, 4096)),
        discriminator_steps=draw(st.integers(1, 100)),
        log_frequency=draw(st.booleans()),
        pac=pac,
    )


tvae_configs = st.builds(
    TvaeConfig,
    epochs=st.integers(1, 100_000),
    batch_size=st.integers(1, 1_000_000),
    embedding_dim=st.integers(1, 4096),
    compress_dims=layers,
    decompress_dims=layers,
    l2scale=decays,
    learning_rate=rates,
    loss_factor=rates,
)
overrides = st.lists(
    st.builds(
        ColumnOverride,
        column=st.text(st.characters(codec="utf-8"), min_size=1),
        kind=st.none() | st.sampled_from(ColumnKind),
        high_cardinality=st.none() | st.sampled_from(HighCardinality),
        max_categories=st.none() | st.integers(1, 4096),
        min_category_count=st.none() | st.integers(1, 2**31 - 1),
        max_modes=st.none() | st.integers(1, 100),
    ),
    max_size=3,
    unique_by=lambda override: override.column,
)


auto_configs = st.builds(
    AutoConfig,
    seconds=st.integers(1, 1_000_000),
    families=st.permutations([family.name for family in FAMILIES]).map(tuple),
)


@st.composite
def watched(draw: st.DrawFn, config: TrainingConfig) -> TrainingConfig:
    """Draw what watches the fit: patience and keep_best want probes, and a family that is iterated."""
    probe_epochs = draw(st.integers(0, 100_000))
    if probe_epochs == 0 or isinstance(config.family, IndependentConfig):
        return dataclasses.replace(config, probe_epochs=probe_epochs)
    patience, keep_best = draw(st.integers(0, 100_000)), draw(st.booleans())
    return dataclasses.replace(config, probe_epochs=probe_epochs, patience=patience, keep_best=keep_best)


configs = st.builds(
    TrainingConfig,
    family=ctgan_configs() | tvae_configs | st.just(IndependentConfig()) | auto_configs,
    seed=st.integers(0, 2**64 - 1),
    device=st.sampled_from(Device),
    threads=st.integers(1, 256),
    holdout_fraction=st.floats(0, 0.5),
    column_overrides=overrides.map(tuple),
    primary_key=st.none() | st.text(st.characters(codec="utf-8")),
).flatmap(watched)


@given(configs)
def test_json_gives_back_the_configuration(config: TrainingConfig) -> None:
    validate(config)
    assert from_json(to_json(config)) == config


@given(configs)
def test_message_gives_back_the_configuration(config: TrainingConfig) -> None:
    message = config_to_proto(config)
    parsed = training_job_pb2.TrainingConfig.FromString(message.SerializeToString())
    assert config_from_proto(parsed, seed=1, threads=1) == config
    assert config_to_proto(config_from_proto(parsed, seed=1, threads=1)) == message


def test_unset_fields_are_the_defaults_of_ctgan() -> None:
    message = training_job_pb2.TrainingConfig(ctgan={})
    assert config_from_proto(message, seed=5, threads=3) == TrainingConfig(CtganConfig(), seed=5, threads=3)
    message = training_job_pb2.TrainingConfig(tvae={})
    assert config_from_proto(message, seed=5, threads=3) == TrainingConfig(TvaeConfig(), seed=5, threads=3)
    message = training_job_pb2.TrainingConfig(independent={}, seed=0)
    assert config_from_proto(message, seed=5, threads=3).seed == 0


def test_a_choice_fits_its_candidates_with_their_defaults() -> None:
    family = AutoConfig(families=("independent", "tvae"))
    requested = TrainingConfig(family, seed=5, threads=3, patience=4, keep_best=True)
    validate(requested)
    assert [one.name for one in requested.families] == ["independent", "tvae"]
    made = [requested.candidate(one, 0.25) for one in requested.families]
    # What takes no steps cannot stop early.
    assert made == [
        TrainingConfig(IndependentConfig(), seed=5, threads=3, holdout_fraction=0.25),
        TrainingConfig(TvaeConfig(), seed=5, threads=3, holdout_fraction=0.25, patience=4, keep_best=True),
    ]
    assert TrainingConfig(TvaeConfig(), seed=5).families == (family_named("tvae"),)


def test_probes_are_taken_where_nothing_is_said_of_them() -> None:
    message = training_job_pb2.TrainingConfig(ctgan={})
    made = config_from_proto(message, seed=5, threads=3)
    assert (made.probe_epochs, made.patience, made.keep_best) == (10, 0, False)
    # An explicit 0 is none.
    message = training_job_pb2.TrainingConfig(ctgan={}, probe_epochs=0, patience=0, keep_best=False)
    assert config_from_proto(message, seed=5, threads=3).probe_epochs == 0
    message = training_job_pb2.TrainingConfig(tvae={}, probe_epochs=3, patience=4, keep_best=True)
    made = config_from_proto(message, seed=5, threads=3)
    assert (made.probe_epochs, made.patience, made.keep_best) == (3, 4, True)


def test_a_job_older_than_probes_has_none() -> None:
    made = TrainingConfig(CtganConfig(), seed=1, probe_epochs=3, patience=4, keep_best=True)
    body = to_json(made)
    assert (body["probe_epochs"], body["patience"], body["keep_best"]) == (3, 4, True)
    for name in ("probe_epochs", "patience", "keep_best"):
        del body[name]
    assert from_json(body) == TrainingConfig(CtganConfig(), seed=1, probe_epochs=0)


def test_defaults_are_those_of_the_package() -> None:
    import ctgan

    for family, synthesizer in ((CtganConfig, ctgan.CTGAN), (TvaeConfig, ctgan.TVAE)):
        theirs = inspect.signature(synthesizer.__init__).parameters
        for field in dataclasses.fields(family):
            # The package leaves the learning rate of TVAE to Adam, whose default is 1e-3.
            expected = theirs[field.name].default if field.name in theirs else 1e-3
            assert expected == field.default, field.name


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({}, "family"),
        ({"ctgan": {"epochs": 0}}, "ctgan.epochs"),
        ({"ctgan": {"batch_size": 0}}, "ctgan.batch_size"),
        ({"ctgan": {"batch_size": 505}}, "ctgan.batch_size"),
        ({"ctgan": {"batch_size": 500, "pac": 7}}, "ctgan.batch_size"),
        ({"ctgan": {"pac": 0}}, "ctgan.pac"),
        ({"ctgan": {"generator_dim": [0]}}, "ctgan.generator_dim[0]"),
        ({"ctgan": {"generator_dim": [8] * 9}}, "ctgan.generator_dim"),
        ({"ctgan": {"discriminator_dim": [8, 5000]}}, "ctgan.discriminator_dim[1]"),
        ({"ctgan": {"generator_lr": 0.0}}, "ctgan.generator_lr"),
        ({"ctgan": {"discriminator_lr": math.nan}}, "ctgan.discriminator_lr"),
        ({"ctgan": {"generator_decay": -1.0}}, "ctgan.generator_decay"),
        ({"ctgan": {"discriminator_decay": math.inf}}, "ctgan.discriminator_decay"),
        ({"ctgan": {"embedding_dim": 0}}, "ctgan.embedding_dim"),
        ({"ctgan": {"discriminator_steps": 0}}, "ctgan.discriminator_steps"),
        ({"tvae": {"epochs": 0}}, "tvae.epochs"),
        ({"tvae": {"batch_size": 0}}, "tvae.batch_size"),
        ({"tvae": {"embedding_dim": 5000}}, "tvae.embedding_dim"),
        ({"tvae": {"compress_dims": [-1]}}, "tvae.compress_dims[0]"),
        ({"tvae": {"decompress_dims": [0]}}, "tvae.decompress_dims[0]"),
        ({"tvae": {"l2scale": -1.0}}, "tvae.l2scale"),
        ({"tvae": {"learning_rate": 0.0}}, "tvae.learning_rate"),
        ({"tvae": {"loss_factor": 0.0}}, "tvae.loss_factor"),
        ({"auto": {"seconds": 0}}, "auto.seconds"),
        ({"auto": {"families": ["tvae", "oracle"]}}, "auto.families[1]"),
        ({"auto": {"families": ["auto"]}}, "auto.families[0]"),
        ({"auto": {"families": ["tvae", "independent", "tvae"]}}, "auto.families[2]"),
        ({"auto": {"families": ["independent"]}, "patience": 1}, "patience"),
        ({"auto": {"families": ["independent"]}, "keep_best": True}, "keep_best"),
        ({"independent": {}, "threads": 0}, "threads"),
        ({"independent": {}, "device": 9}, "device"),
        ({"independent": {}, "holdout_fraction": 0.6}, "holdout_fraction"),
        ({"independent": {}, "holdout_fraction": math.nan}, "holdout_fraction"),
        ({"ctgan": {}, "probe_epochs": -1}, "probe_epochs"),
        ({"ctgan": {}, "probe_epochs": 100_001}, "probe_epochs"),
        ({"tvae": {}, "patience": -1}, "patience"),
        ({"tvae": {}, "patience": 100_001}, "patience"),
        ({"tvae": {}, "probe_epochs": 0, "patience": 1}, "patience"),
        ({"ctgan": {}, "probe_epochs": 0, "keep_best": True}, "keep_best"),
        ({"independent": {}, "patience": 1}, "patience"),
        ({"independent": {}, "keep_best": True}, "keep_best"),
        ({"independent": {}, "column_overrides": [{}]}, "column_overrides[0].column"),
        ({"independent": {}, "column_overrides": [{"column": "a"}, {"column": "a"}]}, "column_overrides[1].column"),
        ({"independent": {}, "column_overrides": [{"column": "a", "kind": 99}]}, "column_overrides[0].kind"),
        (
            {"independent": {}, "column_overrides": [{"column": "a", "max_categories": 0}]},
            "column_overrides[0].max_categories",
        ),
        ({"independent": {}, "column_overrides": [{"column": "a", "max_modes": 0}]}, "column_overrides[0].max_modes"),
        (
            {"independent": {}, "column_overrides": [{"column": "a", "min_category_count": 0}]},
            "column_overrides[0].min_category_count",
        ),
    ],
)
def test_out_of_range_fields_are_named(message: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        config_from_proto(training_job_pb2.TrainingConfig(**message), seed=1, threads=1)
    assert [violation.field for violation in caught.value.violations] == [f"training_job.config.{field}"]


def config(*columns: ColumnOverride, **fields: Any) -> TrainingConfig:
    return TrainingConfig(**{"family": IndependentConfig(), "seed": 1, "column_overrides": columns, **fields})


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (config(ColumnOverride("price", kind=ColumnKind.ID)), "config.column_overrides[0].kind"),
        (config(ColumnOverride("paid", kind=ColumnKind.NUMERICAL)), "config.column_overrides[0].kind"),
        (config(ColumnOverride("age", max_categories=3)), "config.column_overrides[0].max_categories"),
        (
            config(ColumnOverride("age", high_cardinality=HighCardinality.OTHER)),
            "config.column_overrides[0].high_cardinality",
        ),
        (config(ColumnOverride("city", max_modes=3)), "config.column_overrides[0].max_modes"),
        (
            config(ColumnOverride("age", kind=ColumnKind.CATEGORICAL, min_category_count=3)),
            "config.column_overrides[0].min_category_count",
        ),
        (
            config(ColumnOverride("city", max_categories=2, high_cardinality=HighCardinality.REFUSE)),
            "config.column_overrides[0].high_cardinality",
        ),
        (config(primary_key="price"), "config.primary_key"),
        (config(ColumnOverride("key", kind=ColumnKind.NUMERICAL)), "config.primary_key"),
        (
            config(*(ColumnOverride(name, kind=ColumnKind.IGNORED) for name in ("city", "age", "paid", "price"))),
            "config.column_overrides",
        ),
    ],
)
def test_impossible_configurations_are_refused(wanted: TrainingConfig, field: str) -> None:
    validate(wanted)
    with pytest.raises(InvalidFieldError) as caught:
        validate_against(wanted, SCHEMA, 100)
    assert caught.value.violations[0].field == f"training_job.{field}"


def test_too_many_values_are_refused_where_their_number_is_known() -> None:
    refuse = ColumnOverride(
        "age", kind=ColumnKind.CATEGORICAL, max_categories=5, high_cardinality=HighCardinality.REFUSE
    )
    with pytest.raises(InvalidFieldError, match="column 'age' has 6 values or more, the limit is 5") as caught:
        validate_against(config(refuse), SCHEMA, 100, {"age": 6})
    assert caught.value.violations[0].field == "training_job.config.column_overrides[0].high_cardinality"
    validate_against(config(refuse), SCHEMA, 100, {"age": 5})
    validate_against(config(refuse), SCHEMA, 100)
    # The rows that are left for training may have fewer.
    validate_against(config(refuse, holdout_fraction=0.5), SCHEMA, 100, {"age": 6})


@pytest.mark.parametrize(
    ("family", "limit"),
    [(CircuitConfig(), 4096), (TvaeConfig(), 200), (AutoConfig(), 4096), (AutoConfig(families=("tvae", "ctgan")), 200)],
    ids=["circuit", "tvae", "auto", "auto without circuit"],
)
def test_the_family_says_how_many_values_are_too_many(family: FamilyConfig, limit: int) -> None:
    wanted = TrainingConfig(
        family,
        seed=1,
        column_overrides=(ColumnOverride("age", kind=ColumnKind.CATEGORICAL, high_cardinality=HighCardinality.REFUSE),),
    )
    validate_against(wanted, SCHEMA, 100, {"age": limit})
    with pytest.raises(InvalidFieldError, match=rf"has {limit + 1:,} values or more, the limit is {limit:,}"):
        validate_against(wanted, SCHEMA, 100, {"age": limit + 1})


@pytest.mark.parametrize("wanted", [config(ColumnOverride("cyti")), config(primary_key="kye")])
def test_unknown_columns_are_refused_with_near_ones(wanted: TrainingConfig) -> None:
    with pytest.raises(ColumnNotFoundError, match="did you mean"):
        validate_against(wanted, SCHEMA, 100)


@pytest.mark.parametrize(
    ("family", "rows", "holdout", "enough"),
    [
        (IndependentConfig(), 1, 0.0, False),
        (IndependentConfig(), 2, 0.0, True),
        (TvaeConfig(), 3, 0.5, False),
        (CtganConfig(), 9, 0.0, False),
        (CtganConfig(), 10, 0.0, True),
        (CtganConfig(), 12, 0.4, False),
    ],
)
def test_too_few_rows_are_refused(family: Any, rows: int, holdout: float, enough: bool) -> None:
    wanted = config(family=family, holdout_fraction=holdout)
    if enough:
        validate_against(wanted, SCHEMA, rows)
    else:
        with pytest.raises(InvalidFieldError, match="rows") as caught:
            validate_against(wanted, SCHEMA, rows)
        assert caught.value.violations[0].field == "training_job.dataset"


def test_primary_key_of_the_job_replaces_the_datasets() -> None:
    wanted = effective_schema(config(primary_key="age"), SCHEMA)
    assert (wanted.primary_key, wanted.column("age").kind) == ("age", ColumnKind.ID)
    assert effective_schema(config(primary_key=""), SCHEMA).primary_key == ""
    assert effective_schema(config(), SCHEMA).primary_key == "key"
    ignored = effective_schema(config(ColumnOverride("key", kind=ColumnKind.IGNORED)), SCHEMA)
    assert ignored.modelled().primary_key == ""
