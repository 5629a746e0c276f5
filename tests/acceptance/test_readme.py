"""The README's quickstart, run as it stands against real services; only addresses are put in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.acceptance.processes import ROOT, Services

README = (ROOT / "README.md").read_text()


def blocks(kind):
    """Return the code blocks marked to be run as `kind`, in order."""
    return re.findall(rf"<!-- run: {kind} -->\n```\w+\n(.*?)```", README, re.DOTALL)


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
    commands = blocks("sh")
    assert len(commands) == 2
    for command in commands:
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


@pytest.mark.parametrize("index", [0, 1, 2])
def test_python(folder, environment, index):
    code = blocks("python")[index]
    client = f"Client({environment['ROWMINT_TRAINER']!r}, {environment['ROWMINT_SAMPLER']!r})"
    placed = code.replace("Client()", client).replace(
        'synthesize("shop.csv",', f'synthesize("shop.csv", client=__import__("rowmint.client").client.{client},'
    )
    assert placed != code
    output = run([sys.executable, "-W", "error", "-c", placed], folder, environment)
    if index == 0:
        assert (folder / "rows.csv").read_text().count("\n") == 1_001
        assert "'city': 'Oslo'" in output
    elif index == 1:
        assert output.splitlines()[-1] == "1000 ['order', 'city', 'plan', 'age', 'spend']"
    else:
        parts = [line.split() for line in output.splitlines()]
        assert [int(start) for start, _, _ in parts] == [0, *(int(end) for _, end, _ in parts[:-1])]
        assert int(parts[-1][1]) == 50_000


def test_grpcurl(folder, environment):
    (command,) = blocks("grpcurl")
    body = re.search(r"-d '(.*?)'", command)
    assert body
    assert command.split()[-2:] == ["127.0.0.1:7402", "rowmint.v1.SamplingService/Sample"]
    with grpc.insecure_channel(environment["ROWMINT_SAMPLER"].split(",")[0]) as channel:
        # As grpcurl does it: all that is known of the service is what the server says by reflection.
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName("rowmint.v1.SamplingService").FindMethodByName("Sample")
        asked, told = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        call = channel.unary_stream("/rowmint.v1.SamplingService/Sample", asked.SerializeToString, told.FromString)
        *_, last = call(json_format.ParseDict(json.loads(body[1]), asked(), descriptor_pool=pool), timeout=60)
    assert last.summary.complete
    assert last.summary.rows_delivered == 3
