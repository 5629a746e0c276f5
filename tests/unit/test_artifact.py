"""Artifacts: what is written is read back, and any damage is DATA_LOSS before anything is parsed."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import rfc8785
import safetensors.numpy

from rowmint.artifact import FittedModel, read_manifest, read_model, write_model
from rowmint.codecs import CategoryCodec, IdentityCodec, NumericCodec
from rowmint.codecs.category import integer_weights
from rowmint.conditions import AnyOf, Predicate, canonical
from rowmint.errors import DataLossError
from rowmint.rng import StreamKey
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.forms import NumberForm, StorageType, WrittenForm
from rowmint.synthesizer import FAMILIES, propose
from rowmint.synthesizer.exact.kernels import choose_kernel

KERNEL = choose_kernel("numpy")
SCHEMA = TableSchema(
    (
        ColumnSpec("id", ColumnKind.ID, DataType.STRING, Domain(nullable=False), id_pattern="N[0-9]{6}"),
        ColumnSpec("city", ColumnKind.CATEGORICAL, DataType.STRING, Domain(("x", "y", "z"), nullable=True)),
        ColumnSpec("age", ColumnKind.NUMERICAL, DataType.INT64, Domain(minimum=0, maximum=99, nullable=False)),
    ),
    "id",
)
CODECS = (
    IdentityCodec(integral=False, base=0, size=10**6, pattern="N[0-9]{6}"),
    CategoryCodec(3, 1, nullable=True, rare_weights=integer_weights(np.array([3.0, 1.0]))),
    NumericCodec(
        True, 0, 1, 0, True, False, 0.0, 99.0, np.array([20.0, 60.0]), np.array([15.0, 30.0]), np.array([42.0])
    ),
)  # fmt: skip


def _generator(family):
    if family == "independent":
        weights = {"slots.1": integer_weights(np.array([1.0, 2.0, 3.0])), "slots.2": integer_weights(np.ones(3))}
        return FittedModel(family, SCHEMA, CODECS, {}, weights)
    random = np.random.Generator(np.random.Philox(11))
    # Five codes of noise; CTGAN puts three places of a condition behind them, and layers before what they take.
    inputs = 8 if family == "ctgan" else 5
    shapes = {"layer.0": (inputs, 4), "output": (4 + inputs if family == "ctgan" else 4, 7)}
    arrays = {}
    for name, (k, m) in shapes.items():
        arrays[f"{name}.weight"] = random.integers(-127, 128, (k, m)).astype(np.int8)
        arrays[f"{name}.bias"] = random.integers(-9000, 9000, m).astype(np.int32)
        arrays[f"{name}.scale"] = np.full(m, 0.01, np.float32)
    if family == "ctgan":
        arrays["drivers.column"] = np.array([1, 1, 1])
        arrays["drivers.slot"] = np.array([0, 1, 2])
        arrays["drivers.weights"] = integer_weights(np.array([1.0, 2.0, 3.0]))
    else:
        arrays["spread"] = np.array([1 << 20])
    return FittedModel(family, SCHEMA, CODECS, {"hidden_layers": 1}, arrays)


# A circuit is more than weights of any shape: tests/unit/test_circuit_arrays.py reads those.
@pytest.fixture(params=[family.name for family in FAMILIES if family.name != "circuit"])
def family(request):
    return request.param


@pytest.fixture
def artifact(family):
    return write_model(_generator(family), {"training": {"rows": 7}, "licence": "none"})


def _tile(model):
    key = StreamKey(model.digest, bytes(32), 5).tile(0, 0)
    conditions = canonical([Predicate("city", AnyOf(("y", None)))], model.schema)
    proposal = propose(model.synthesizer, conditions, ("age", "city"))
    found = proposal.candidates(key, 256)
    return found.size, {name: array.values.tolist() for name, array in proposal.finish(found, key).columns.items()}


def test_a_model_is_restored_as_it_was_written(artifact):
    model = read_model(artifact.manifest, artifact.weights, KERNEL, artifact.manifest_digest)
    assert model.digest == artifact.model_digest
    assert model.schema == SCHEMA
    assert model.grid == 8192
    assert model.identities == {"id": CODECS[0]}
    assert model.memory_bytes > 0
    assert artifact.manifest_digest == hashlib.sha256(artifact.manifest).digest()
    assert artifact.weights_digest == hashlib.sha256(artifact.weights).digest()
    body = read_manifest(artifact.manifest)
    assert body["training"] == {"rows": 7}
    assert rfc8785.dumps(body) == artifact.manifest
    accepted, columns = _tile(model)
    assert 0 < accepted < 256
    assert set(columns["city"]) <= {1, -1}
    again = read_model(artifact.manifest, artifact.weights, choose_kernel("onnxruntime"))
    assert _tile(again) == (accepted, columns)


def test_writing_is_repeatable_and_provenance_changes_no_row(artifact, family):
    assert write_model(_generator(family), {"training": {"rows": 7}, "licence": "none"}) == artifact
    other = write_model(_generator(family), {"training": {"rows": 8}})
    assert other.model_digest == artifact.model_digest
    assert other.manifest_digest != artifact.manifest_digest
    narrower = replace(_generator(family), schema=replace(SCHEMA, primary_key=""))
    assert write_model(narrower, {}).model_digest != artifact.model_digest


def _flipped(data, position):
    return data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :]


def _positions(data):
    return {0, 1, 7, 8, len(data) - 1, *range(3, len(data), max(1, len(data) // 60))}


def test_any_flipped_byte_is_found(artifact):
    for position in _positions(artifact.manifest):
        with pytest.raises(DataLossError):
            read_model(_flipped(artifact.manifest, position), artifact.weights, KERNEL, artifact.manifest_digest)
    for position in _positions(artifact.weights):
        with pytest.raises(DataLossError):
            read_model(artifact.manifest, _flipped(artifact.weights, position), KERNEL)


def test_a_flipped_byte_of_what_rows_depend_on_is_found_without_the_registry(artifact):
    generator = rfc8785.dumps(json.loads(artifact.manifest)["generator"])
    start = artifact.manifest.index(generator)
    for position in _positions(generator):
        with pytest.raises(DataLossError):
            read_manifest(_flipped(artifact.manifest, start + position))


@pytest.mark.parametrize("kept", [0, 1, 8, 100, -1])
def test_what_is_cut_or_longer_is_found(artifact, kept):
    with pytest.raises(DataLossError):
        read_model(artifact.manifest[:kept], artifact.weights, KERNEL)
    with pytest.raises(DataLossError):
        read_model(artifact.manifest, artifact.weights[:kept], KERNEL)
    with pytest.raises(DataLossError):
        read_model(artifact.manifest, artifact.weights + b"\0", KERNEL)


def test_the_registrys_digest_is_checked(artifact):
    with pytest.raises(DataLossError, match="digest the registry says"):
        read_model(artifact.manifest, artifact.weights, KERNEL, bytes(32))


def _with(artifact, changes=None, generator=None, weights=None):
    """Return an artifact's files with other values and right digests all the same."""
    body = json.loads(artifact.manifest)
    body["generator"].update(generator or {})
    if weights is not None:
        body["generator"]["weights"] = {"sha256": hashlib.sha256(weights).hexdigest(), "size": len(weights)}
    body["model_digest"] = hashlib.sha256(rfc8785.dumps(body["generator"])).hexdigest()
    body.update(changes or {})
    return rfc8785.dumps(body), artifact.weights if weights is None else weights


@pytest.mark.parametrize(
    ("changes", "generator"),
    [
        ({"format": 3}, {}),
        ({"format": "1"}, {}),
        ({}, {"algorithm": 0}),
        ({}, {"algorithm": 1}),
        ({}, {"algorithm": 3}),
        ({}, {"arithmetic": "float32"}),
    ],
)
def test_an_unknown_format_or_algorithm_says_what_to_do(artifact, changes, generator):
    with pytest.raises(DataLossError, match="update the service"):
        read_model(*_with(artifact, changes, generator), KERNEL)


@pytest.mark.parametrize(
    "generator",
    [
        {"family": "oracle"},
        {"family": None},
        {"codecs": []},
        {"codecs": None},
        {"codecs": [{}, {}, {}]},
        {"codecs": ["identity", 1, None]},
        {"schema": {}},
        {"schema": {"columns": [{"name": "a", "type": "complex"}]}},
        {"schema": {"columns": [{"name": "a"}, {"name": "a"}, {"name": "b"}]}},
        {"schema": {"columns": [{"name": "a"}], "primary_key": "b"}},
        {"grid": "many"},
        {"weights": None},
        {"weights": {}},
        {"weights": {"size": 3}},
    ],
)
def test_a_section_that_makes_no_model_is_refused(artifact, generator):
    with pytest.raises(DataLossError):
        read_model(*_with(artifact, generator=generator), KERNEL)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"[]", b"null", b"{}", b'{"generator": 3}', b"\xff\xfe", b"[" * 200_000, b'{"generator": {"a": NaN}}'],
)
def test_bytes_that_are_not_a_manifest_are_refused(manifest):
    with pytest.raises(DataLossError):
        read_manifest(manifest)


def test_every_array_is_needed_and_checked(artifact):
    arrays = safetensors.numpy.load(artifact.weights)
    for name, array in arrays.items():
        without = {key: value for key, value in arrays.items() if key != name}
        with pytest.raises(DataLossError):
            read_model(*_with(artifact, weights=safetensors.numpy.save(without)), KERNEL)
        if name == "layer.0.weight":
            continue  # a wider input is a sound model
        longer = {**arrays, name: np.concatenate([array, array])}
        with pytest.raises(DataLossError):
            read_model(*_with(artifact, weights=safetensors.numpy.save(longer)), KERNEL)


@pytest.mark.parametrize("family", ["ctgan"], indirect=True)
@pytest.mark.parametrize(
    "changes",
    [
        {"drivers.column": np.array([1, 1, 2])},
        {"drivers.column": np.array([1, 1, 0])},
        {"drivers.slot": np.array([0, 1, 3])},
        {"drivers.slot": np.array([0, 1, -1])},
        {"drivers.weights": np.array([1, 2, 3], np.uint64)},
    ],
)
def test_condition_vectors_must_fit_the_columns(artifact, changes):
    arrays = {**safetensors.numpy.load(artifact.weights), **changes}
    if "drivers.column" in changes and changes["drivers.column"][2] == 2:
        arrays["drivers.slot"] = np.array([0, 1, 3])
    with pytest.raises(DataLossError, match="condition vector"):
        read_model(*_with(artifact, weights=safetensors.numpy.save(arrays)), KERNEL)


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 64,
        # A pickle that would run `exit`, and the head of a zip of pickles, as torch writes them.
        b"cposix\n_exit\n(I3\ntR.",
        b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x05_exit\x94\x93\x94K\x03\x85\x94R\x94.",
        b"PK\x03\x04archive/data.pkl",
    ],
)
def test_weights_that_are_not_safetensors_are_refused_and_never_run(artifact, weights):
    with pytest.raises(DataLossError, match="malformed"):
        read_model(*_with(artifact, weights=weights), KERNEL)


def _independent(schema=SCHEMA, codecs=CODECS):
    return replace(_generator("independent"), schema=schema, codecs=codecs)


def test_only_models_with_forms_need_the_second_format():
    plain = write_model(_independent(), {})
    assert read_manifest(plain.manifest)["format"] == 1
    money = WrittenForm(NumberForm(prefix="$"))
    columns = (*SCHEMA.columns[:2], replace(SCHEMA.columns[2], written_form=money))
    formed = write_model(_independent(TableSchema(columns, "id")), {})
    assert read_manifest(formed.manifest)["format"] == 2
    assert read_model(formed.manifest, formed.weights, KERNEL).schema.columns[2].written_form == money
    assert formed.model_digest != plain.model_digest
    for ids in (
        replace(CODECS[0], size=1000, sequential=True),
        replace(CODECS[0], pattern="N[0-9]{6,7}"),
        replace(CODECS[0], pattern="[0-9a-f]{32}"),
        replace(CODECS[0], first=1000),
    ):
        made = write_model(_independent(codecs=(ids, *CODECS[1:])), {})
        assert read_manifest(made.manifest)["format"] == 2
        assert read_model(made.manifest, made.weights, KERNEL).identities == {"id": ids}


def test_a_form_that_cannot_be_makes_no_model():
    columns = (*SCHEMA.columns[:2], replace(SCHEMA.columns[2], written_form=WrittenForm(NumberForm(prefix="-"))))
    made = write_model(_independent(TableSchema(columns, "id")), {})
    with pytest.raises(DataLossError, match=r"written_form\.number\.prefix"):
        read_model(made.manifest, made.weights, KERNEL)
    body = json.loads(made.manifest)
    body["generator"]["schema"]["columns"][2]["written_form"] = {"number": {"letters": 1}}
    body["model_digest"] = hashlib.sha256(rfc8785.dumps(body["generator"])).hexdigest()
    with pytest.raises(DataLossError, match="unknown field 'letters'"):
        read_model(rfc8785.dumps(body), made.weights, KERNEL)
    columns = (*SCHEMA.columns[:2], replace(SCHEMA.columns[2], written_form=WrittenForm(storage=StorageType.INT8)))
    wide = replace(CODECS[2], upper=200.0)
    made = write_model(_independent(TableSchema(columns, "id"), (*CODECS[:2], wide)), {})
    with pytest.raises(DataLossError, match="makes values beyond int8"):
        read_model(made.manifest, made.weights, KERNEL)
