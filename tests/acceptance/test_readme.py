"""The code of README and docs/, run as it stands against real services; only addresses are put in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from rowmint.client import Client
from tests.acceptance.processes import Services, free_port
from tests.docs.pages import blocks


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    services = Services(tmp_path_factory.mktemp("home"))
    # One thread: with more, whatever else the machine is doing makes the fit crawl.
    trainer = services.trainer(ROWMINT_THREADS="1")
    samplers = [services.sampler(), services.sampler()]
    scripts = str(Path(sys.executable).parent)
    yield {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "ROWMINT_TRAINER": trainer.address,
        "ROWMINT_SAMPLER": ",".join(sampler.address for sampler in samplers),
        "COLUMNS": "120",
    }
    services.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, environment):
    """A folder in which the shell blocks have run: a table, and a model `shop` of it."""
    found = tmp_path_factory.mktemp("readme")
    for command in blocks("sh"):
        run(["bash", "-euo", "pipefail", "-c", command], found, environment)
    return found


def run(command, folder, environment):
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def test_the_command_line(folder):
    lines = (folder / "oslo.csv").read_text().splitlines()
    assert lines[0] == "order,city,plan,age,spend"
    assert len(lines) == 1_001
    cells = [line.split(",") for line in lines[1:]]
    assert {row[1] for row in cells} == {"Oslo"}
    assert min(int(row[3]) for row in cells) > 40
    assert len({row[0] for row in cells}) == 1_000

    assert (folder / "shop.ndjson").read_text().count("\n") == 100_000


@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python(folder, environment, index):
    code = blocks("python")[index]
    output = run([sys.executable, "-W", "error", "-c", code], folder, environment)
    if index == 0:
        assert (folder / "rows.csv").read_text().count("\n") == 1_001
        assert "'city': 'Oslo'" in output
    elif index == 1:
        assert output.splitlines()[-1] == "1000 ['order', 'city', 'plan', 'age', 'spend']"
    else:
        parts = [line.split() for line in output.splitlines()]
        assert [int(start) for start, _, _ in parts] == [0, *(int(end) for _, end, _ in parts[:-1])]
        assert int(parts[-1][1]) == 50_000


def placed(command, environment):
    """Return a block with the sampler's address in it."""
    address = environment["ROWMINT_SAMPLER"].split(",")[0]
    found = command.replace("127.0.0.1:7402", address)
    assert found != command
    return ["bash", "-euo", "pipefail", "-c", found]


@pytest.fixture
def python_rows(folder, environment):
    """What the Python client gives of the stream that grpcurl and buf request; other tests publish new versions."""
    with Client(environment["ROWMINT_TRAINER"], environment["ROWMINT_SAMPLER"]) as client:
        client.sample_to_file(folder / "expected", "shop", rows=5, seed=7, where={"city": "Oslo"}, format="ndjson")
    return (folder / "expected").read_text()


def test_grpcurl(folder, environment, python_rows):
    sample, look, plan, refused = (placed(command, environment) for command in blocks("grpcurl"))
    assert run(sample, folder, environment) == python_rows

    output = run(look, folder, environment)
    assert "rowmint.v1.SamplingService\n" in output
    assert "rowmint.v1.SampleRequest is a message:" in output
    assert '"status": "SERVING"' in output

    run(plan, folder, environment)
    planned = json.loads((folder / "plan.json").read_text())
    assert planned["header"]["model_version"].startswith("projects/default/models/shop/versions/")
    assert [int(part["end_row"]) for part in planned["parts"]] == [5]

    error = subprocess.run(
        refused, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert error.returncode == 64 + grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "Code: InvalidArgument" in error.stderr
    assert '"reason":"VALUE_NOT_FOUND"' in error.stderr


def test_buf_curl(folder, environment, python_rows):
    (command,) = blocks("buf")
    # What the walk with grpcurl has left behind.
    (folder / "oslo.json").write_text(re.search(r"oslo.json <<'EOF'\n(.*?)EOF", blocks("grpcurl")[0], re.DOTALL)[1])
    methods, _, rows = run(placed(command, environment), folder, environment).partition("{")
    assert "rowmint.v1.SamplingService/Sample" in methods.split()
    assert "{" + rows == python_rows


def test_from_zero_to_mutual_tls(folder, environment, tmp_path):
    (setting_up,), (using,) = blocks("tls"), blocks("tls-use")
    assert len(setting_up.strip().splitlines()) == 10
    trainer, sampler = free_port(), free_port()
    serve = f"rowmint serve --trainer-port {trainer} --sampler-port {sampler} &"
    placed = setting_up.replace("rowmint serve &", serve)
    assert placed != setting_up
    (tmp_path / "shop.csv").write_bytes((folder / "shop.csv").read_bytes())
    addresses = {"ROWMINT_TRAINER": f"localhost:{trainer}", "ROWMINT_SAMPLER": f"127.0.0.1:{sampler}"}
    script = f'{placed}\ntrap "kill $!; wait" EXIT\n{using}'
    output = run(["bash", "-euo", "pipefail", "-c", script], tmp_path, {**environment, **addresses})
    assert "refused, as it should be" in output
    assert "order,city,plan,age,spend" in output
    for name, denied in (("trainer", 1), ("sampler", 0)):
        (log,) = (tmp_path / "audit").glob(f"{name}-*.jsonl")
        records = [json.loads(line) for line in log.read_text().splitlines()]
        assert [record["decision"] for record in records].count("denied") == denied
        assert {record["who"] for record in records} >= {"certificate:ada"}
    assert (tmp_path / "keys" / "ca-key.pem").stat().st_mode & 0o077 == 0
