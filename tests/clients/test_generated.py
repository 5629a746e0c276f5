"""`buf generate` makes code for other languages: TypeScript's is compiled and used, Go's and Java's has its names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rowmint.client import Client
from tests.acceptance.node_programs import installed
from tests.acceptance.processes import ROOT, Services
from tests.faults.golden_home import NO_TRAINER, golden_version, publish_golden
from tests.golden.streams import PROJECT

SOURCES = Path(__file__).parent / "typescript"
TEMPLATE = ROOT / "buf.gen.yaml"
PROTOS = sorted(path.stem for path in (ROOT / "protos" / "rowmint" / "v1").glob("*.proto"))


def run(command, folder, programs):
    """Run a command in `folder`, with the folders `programs` before the path; return what it did."""
    path = os.pathsep.join([str(Path(sys.executable).parent), *map(str, programs), os.environ["PATH"]])
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def typescript(tmp_path_factory):
    """The folder of the TypeScript client and its packages, and the command of node."""
    folder = tmp_path_factory.mktemp("typescript")
    return folder, installed(SOURCES, folder)


@pytest.fixture(scope="module")
def compiled(typescript, tmp_path_factory):
    """The client, with the generated code, compiled to JavaScript."""
    folder, node = typescript
    settings = yaml.safe_load(TEMPLATE.read_text())
    settings["plugins"] = [plugin for plugin in settings["plugins"] if plugin.get("local") == "protoc-gen-es"]
    assert len(settings["plugins"]) == 1
    chosen = tmp_path_factory.mktemp("template") / "buf.gen.yaml"
    chosen.write_text(yaml.safe_dump(settings))
    programs = [folder / "node_modules" / ".bin"]
    made = run(["buf", "generate", "--template", chosen, "--output", folder], ROOT, programs)
    assert made.returncode == 0, made.stderr
    assert {path.name for path in (folder / "gen/ts/rowmint/v1").iterdir()} == {f"{name}_pb.ts" for name in PROTOS}
    made = run([node, "node_modules/typescript/bin/tsc"], folder, programs)
    assert made.returncode == 0, made.stdout
    return [node, folder / "compiled" / "client.js"]


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    home = tmp_path_factory.mktemp("golden")
    publish_golden(home)
    services = Services(home)
    yield services.sampler()
    services.close()


def test_typescript_is_compiled_and_reads_the_rows_of_the_python_client(compiled, sampler, tmp_path):
    version = golden_version("independent")
    words = [sampler.address, version, "3000", "8", "city", "Oslo"]
    done = subprocess.run([*compiled, *words], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with Client(NO_TRAINER, sampler.address, PROJECT) as client:
        client.sample_to_file(tmp_path / "rows", version, rows=3_000, seed=8, where={"city": "Oslo"}, format="ndjson")
    assert done.stdout.count(b"\n") == 3_000
    assert done.stdout == (tmp_path / "rows").read_bytes()


def test_typescript_gets_the_reason_of_an_error(compiled, sampler):
    words = [sampler.address, golden_version("independent"), "10", "8", "town", "Oslo"]
    done = subprocess.run([*compiled, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("InvalidArgument: ")
    assert "'town'" in done.stderr


@pytest.mark.debian
def test_go_java_and_typescript_are_generated_by_the_file_as_it_stands(typescript, tmp_path):
    packages, _ = typescript
    plugin = shutil.which("grpc_java_plugin")
    assert plugin is not None, "make test-system brings protobuf-compiler-grpc-java-plugin"
    programs = tmp_path / "programs"
    programs.mkdir()
    # What Maven calls protoc-gen-grpc-java has another name in Debian.
    (programs / "protoc-gen-grpc-java").symlink_to(plugin)
    made = run(["buf", "generate", "--output", tmp_path], ROOT, [programs, packages / "node_modules" / ".bin"])
    assert made.returncode == 0, made.stderr

    services = [name for name in PROTOS if name.endswith("_service")]
    go = {path.name: path.read_text() for path in (tmp_path / "gen/go/rowmint/v1").iterdir()}
    assert set(go) == {f"{name}.pb.go" for name in PROTOS} | {f"{name}_grpc.pb.go" for name in services}
    assert all("\npackage rowmintv1\n" in text for text in go.values())
    assert "func NewSamplingServiceClient(" in go["sampling_service_grpc.pb.go"]

    java = {path.name: path.read_text() for path in (tmp_path / "gen/java/io/rowmint/v1").iterdir()}
    assert all("package io.rowmint.v1;" in text for text in java.values())
    # A file a message: several a proto.
    assert {"SampleRequest.java", "WriteDatasetRequest.java", "SamplingServiceGrpc.java"} <= set(java)
    stubs = {"".join(word.title() for word in name.split("_")) + "Grpc.java" for name in services}
    assert {name for name in java if name.endswith("Grpc.java")} == stubs
    # What is google's has packages of its own, and is not made again.
    assert sorted(path.name for path in (tmp_path / "gen").rglob("google/*")) == ["api"]
    assert (tmp_path / "gen/ts/google/api").is_dir()
