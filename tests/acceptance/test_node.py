"""Clients made of the protos alone, in Node: typed columns, an upload, a fit, a stream that outlives its replica."""

import hashlib
import json
import math
import os
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
from tests.acceptance.node_programs import installed
from tests.acceptance.processes import ROOT, Services, customers_csv
from tests.docs.pages import blocks

GOLDEN = ROOT / "tests" / "golden"
NODE_CLIENT = Path(__file__).parent / "node"
FAMILIES = ("ctgan", "tvae", "independent")


@pytest.fixture(scope="session")
def node_client(tmp_path_factory):
    """The command of node, and the folder of the clients and their packages."""
    folder = tmp_path_factory.mktemp("node")
    return installed(NODE_CLIENT, folder), folder


@pytest.fixture(scope="module")
def node_services(tmp_path_factory):
    """A trainer that commits an upload in small pieces, and two samplers, of which a test kills one."""
    found = Services(tmp_path_factory.mktemp("services"))
    found.trainer(ROWMINT_SEGMENT_BYTES="65536")
    found.sampler()
    found.sampler()
    yield found
    found.close()


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


def run_node(node_client, sampler, *arguments, script="sample.mjs"):
    node, folder = node_client
    result = subprocess.run(
        [node, folder / script, sampler.address, *arguments],
        env={**os.environ, "ROWMINT_PROTOS": str(ROOT / "protos")},
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


def test_the_pages_snippet_runs(node_client, sampler):
    node, folder = node_client
    (snippet,) = blocks("node")
    code = snippet.replace("127.0.0.1:7402", sampler.address).replace("models/shop", "models/independent")
    (folder / "page.mjs").write_text(code, encoding="utf-8")
    # The reader's folder has the protos and the packages.
    if not (folder / "protos").exists():
        (folder / "protos").symlink_to(ROOT / "protos")
    result = subprocess.run(
        [node, "page.mjs"], cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
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


@pytest.fixture(scope="module")
def fitted(node_client, node_services, tmp_path_factory):
    """The version of a model that Node fitted to a table that it uploaded."""
    table = customers_csv(2_500)
    file = tmp_path_factory.mktemp("table") / "customers.csv"
    file.write_bytes(table)
    words = ("node", "customers", str(file), "customer")
    status, found = run_node(node_client, node_services.started[0], *words, script="fit.mjs")
    assert status == 0, found
    assert found["dataset"] == {
        "state": "DATASET_STATE_READY",
        "rows": "2500",
        "sha256": hashlib.sha256(table).hexdigest(),
    }
    assert 0 < found["committed"] <= len(table) // 2
    assert found["broken_after"] == 1
    assert [int(event["sequence"]) for event in found["events"]] == list(range(1, len(found["events"]) + 1))
    assert found["events"][-1]["state"] == "JOB_STATE_SUCCEEDED"
    assert found["job"] == {
        "state": "JOB_STATE_SUCCEEDED",
        "model_version": "projects/node/models/customers/versions/1",
    }
    return found["job"]["model_version"]


def test_a_stream_in_node_outlives_its_replica(node_client, node_services, fitted, tmp_path):
    node, folder = node_client
    trainer, lost, kept = node_services.started
    rows, seed = 150_000, 9  # more than a replica writes ahead of its reader
    output = tmp_path / "rows.csv"
    addresses = f"{lost.address},{kept.address}"
    model = fitted.rpartition("/versions/")[0]
    command = [node, folder / "resume.mjs", addresses, model, str(rows), str(seed), output]
    environment = {**os.environ, "ROWMINT_PROTOS": str(ROOT / "protos")}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline()
        lost.kill()
        rest, complaints = process.communicate("on\n", timeout=120)
    assert process.returncode == 0, complaints
    assert 0 < int(json.loads(first)["rows"]) < rows
    found = json.loads(rest)
    assert found["version"] == fitted
    assert found["rows"] == str(rows)
    begun = [(call["address"], int(call["start_row"])) for call in found["calls"]]
    assert [address for address, _ in begun] == [lost.address, kept.address]
    assert 0 < begun[1][1] < rows
    with Client(trainer.address, kept.address, "node") as mine:
        mine.sample_to_file(tmp_path / "python.csv", fitted, rows=rows, seed=seed, format="csv")
    assert output.read_bytes() == (tmp_path / "python.csv").read_bytes()


def test_node_gets_the_reason_why_an_upload_is_refused(node_client, node_services, tmp_path):
    file = tmp_path / "empty.csv"
    file.write_bytes(b"")
    status, found = run_node(
        node_client, node_services.started[0], "node", "Not An Id", str(file), "", script="fit.mjs"
    )
    assert status == 1
    assert (found["error"]["code"], found["error"]["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")
