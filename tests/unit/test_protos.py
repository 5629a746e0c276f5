"""The committed stubs are what the pinned generator makes of the protos, and the protos leave nothing unexplained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "protos" / "rowmint" / "v1").glob("*.proto"))
STUBS = ROOT / "shared" / "rowmint" / "v1"

# Field numbers in descriptor.proto: paths into a file's source info are made of them.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES, _FILE_SYNTAX = 4, 5, 6, 12
_MESSAGE_FIELDS, _MESSAGE_MESSAGES, _MESSAGE_ENUMS, _MESSAGE_ONEOFS = 2, 3, 4, 8


def buf() -> str:
    """Return the command that the package `buf-bin` brings."""
    return str(Path(sys.executable).with_name("buf"))


@pytest.fixture(scope="module")
def generator():
    """Runs the pinned grpcio-tools in the folder of the repository."""
    python = Path(os.environ.get("ROWMINT_PROTOC_PYTHON", ROOT / ".venv-protoc" / "bin" / "python"))
    if not python.exists():
        pytest.fail(
            f"the pinned generator is not at {python}: `make protos` or `make test` installs it there, or"
            " ROWMINT_PROTOC_PYTHON names another python that has it"
        )

    site_packages = "import sysconfig; print(sysconfig.get_path('purelib'))"
    googleapis = subprocess.check_output([str(python), "-c", site_packages], text=True).strip()

    def run(*arguments):
        # protoc finds its plug-ins on the path.
        environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [str(python), "-m", "grpc_tools.protoc", "-Iprotos", f"-I{googleapis}", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    return run


def test_the_stubs_are_generated_again_byte_for_byte(generator, tmp_path):
    names = [path.relative_to(ROOT) for path in PROTOS]
    services = [name for name in names if name.stem.endswith("_service")]
    generator(f"--python_out={tmp_path}", f"--mypy_out=quiet:{tmp_path}", *names)
    generator(f"--grpc_python_out={tmp_path}", f"--mypy_grpc_out=quiet:{tmp_path}", *services)
    made = {path.name: path.read_bytes() for path in (tmp_path / "rowmint" / "v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in STUBS.glob("*_pb2*.py*")}
    assert sorted(committed) == sorted(made)
    different = [name for name, text in made.items() if committed[name] != text]
    assert not different, f"run `make protos`: {different} differ from what the protos say"


def test_the_descriptors_that_envoy_reads_are_generated_again_byte_for_byte(generator, tmp_path):
    target = tmp_path / "rowmint.binpb"
    services = sorted(path.relative_to(ROOT) for path in PROTOS if path.stem.endswith("_service"))
    generator("--include_imports", f"--descriptor_set_out={target}", *services, "google/rpc/error_details.proto")
    assert (ROOT / "deploy" / "rowmint.binpb").read_bytes() == target.read_bytes(), "run `make protos`"


def _parts(file):
    """Yield the path and full name of everything in a file that needs a comment."""

    def message_parts(message, path, name):
        yield path, name
        for index, field in enumerate(message.field):
            yield (*path, _MESSAGE_FIELDS, index), f"{name}.{field.name}"
        for index, oneof in enumerate(message.oneof_decl):
            if not oneof.name.startswith("_"):  # proto3 `optional` makes one a field
                yield (*path, _MESSAGE_ONEOFS, index), f"{name}.{oneof.name}"
        for index, enum in enumerate(message.enum_type):
            yield from enum_parts(enum, (*path, _MESSAGE_ENUMS, index), f"{name}.{enum.name}")
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield from message_parts(nested, (*path, _MESSAGE_MESSAGES, index), f"{name}.{nested.name}")

    def enum_parts(enum, path, name):
        yield path, name
        for index, value in enumerate(enum.value):
            yield (*path, 2, index), f"{name}.{value.name}"

    yield (_FILE_SYNTAX,), file.name
    for index, message in enumerate(file.message_type):
        yield from message_parts(message, (_FILE_MESSAGES, index), message.name)
    for index, enum in enumerate(file.enum_type):
        yield from enum_parts(enum, (_FILE_ENUMS, index), enum.name)
    for index, service in enumerate(file.service):
        yield (_FILE_SERVICES, index), service.name
        for place, method in enumerate(service.method):
            yield (_FILE_SERVICES, index, 2, place), f"{service.name}.{method.name}"


def test_clients_of_the_release_before_are_understood():
    now, before = ROOT / "deploy" / "rowmint.binpb", ROOT / "tests" / "golden" / "contract.binpb"
    command = [buf(), "breaking", now, "--path", "rowmint", "--against", before]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_contract_that_breaks_clients_is_found(tmp_path):
    contract = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "deploy" / "rowmint.binpb").read_bytes())
    (file,) = (file for file in contract.file if file.name == "rowmint/v1/sampling.proto")
    (message,) = (message for message in file.message_type if message.name == "SampleRequest")
    message.field[0].number = 99
    (tmp_path / "broken.binpb").write_bytes(contract.SerializeToString())
    before = ROOT / "tests" / "golden" / "contract.binpb"
    command = [buf(), "breaking", tmp_path / "broken.binpb", "--path", "rowmint", "--against", before]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 100, done.stdout + done.stderr
    assert "SampleRequest" in done.stdout


def test_everything_in_the_protos_has_a_comment(generator, tmp_path):
    target = tmp_path / "descriptors.bin"
    names = [path.relative_to(ROOT) for path in PROTOS]
    generator(f"--descriptor_set_out={target}", "--include_source_info", *names)
    found = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    assert len(found.file) == len(PROTOS)
    bare, seen = [], 0
    for file in found.file:
        comments = {
            tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location
        }
        for path, name in _parts(file):
            seen += 1
            if not comments.get(path):
                bare.append(f"{file.name}: {name}")
    assert bare == []
    assert seen > 300


def test_every_proto_is_in_the_package():
    for path in PROTOS:
        text = path.read_text(encoding="utf-8")
        assert 'syntax = "proto3";' in text, path.name
        assert "package rowmint.v1;" in text, path.name
