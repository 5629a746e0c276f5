"""The arrows between modules, and what no module may do, read from the source."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"rowmint": ROOT / "shared", "trainer_service": ROOT, "sampler_service": ROOT}
SERVICES = ("trainer_service", "sampler_service")
# Parts of `rowmint` that are not its core: they see the wire.
EDGES = ("rowmint.v1", "rowmint.rpc", "rowmint.observability", "rowmint.client", "rowmint.cli")
UNPICKLERS = ("pickle", "cPickle", "_pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve", "pickletools")
UNPICKLING_CALLS = ("torch.load", "pd.read_pickle", "pandas.read_pickle")
CLOCKS = ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today")
VAGUE_NAMES = ("util", "utils", "common", "helper", "helpers", "misc")
MAX_LINES = 500


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: Dotted name; a package's is its folder's.
        path: The file.
        tree: Its syntax.
    """

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self):
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    def imports(self):
        """Yield each imported name with its line; `from a import b` may mean the module a.b."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node.lineno
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = self.package.split(".")
                    base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
                yield base, node.lineno
                for alias in node.names:
                    yield f"{base}.{alias.name}", node.lineno
            elif isinstance(node, ast.Call) and _dotted(node.func).rpartition(".")[2] in (
                "import_module",
                "__import__",
            ):
                for argument in node.args[:1]:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield argument.value, node.lineno


def _dotted(node):
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@cache
def modules():
    found = []
    for package, base in PACKAGES.items():
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not within(name, "rowmint.v1"):  # generated
                found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path))))
    return tuple(found)


def within(name, *roots):
    """Say whether a dotted name is one of `roots` or lies inside one."""
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def _broken(arrows):
    return sorted({f"{module.path.relative_to(ROOT)}:{line} {what}" for module, line, what in arrows})


def _imports_of(*targets):
    for module in modules():
        for name, line in module.imports():
            if within(name, *targets):
                yield module, line, name


def _is_core(module):
    return within(module.name, "rowmint") and not within(module.name, *EDGES)


def test_there_is_something_to_look_at():
    names = {module.name for module in modules()}
    assert {"rowmint", "rowmint.names", "rowmint.synthesizer.exact.network", "rowmint.rpc.status", *SERVICES} <= names


def test_the_core_knows_no_wire_and_no_service():
    forbidden = ("grpc", "grpc_status", "google", "grpc_health", "grpc_reflection", *EDGES, *SERVICES)
    assert _broken(arrow for arrow in _imports_of(*forbidden) if _is_core(arrow[0])) == []


def test_only_the_edges_see_the_stubs():
    def allowed(module):
        own = set(module.name.split(".")[1:])
        # A `__main__` adds the servicers to a server.
        return within(module.name, *EDGES) or bool(own & {"converters", "servicer", "servicers", "__main__"})

    assert _broken(arrow for arrow in _imports_of("rowmint.v1") if not allowed(arrow[0])) == []


def test_services_import_rowmint_and_never_each_other():
    def crosses(module, name):
        return any(within(name, service) and not within(module.name, service) for service in SERVICES)

    assert _broken(arrow for arrow in _imports_of(*SERVICES) if crosses(arrow[0], arrow[2])) == []


def test_services_know_neither_client_nor_cli():
    arrows = _imports_of("rowmint.client", "rowmint.cli")
    assert _broken(arrow for arrow in arrows if within(arrow[0].name, *SERVICES, "rowmint.rpc")) == []


def test_nothing_imports_a_main():
    arrows = (
        (module, line, name) for module in modules() for name, line in module.imports() if "__main__" in name.split(".")
    )
    assert _broken(arrows) == []


def test_nothing_unpickles():
    assert _broken(_imports_of(*UNPICKLERS, *UNPICKLING_CALLS)) == []
    calls = []
    for module in modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = _dotted(node.func)
            pickled = any(
                keyword.arg == "allow_pickle"
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
                for keyword in node.keywords
            )
            if name in UNPICKLING_CALLS or pickled or name.rpartition(".")[2] in ("read_pickle", "to_pickle"):
                calls.append((module, node.lineno, name))
    assert _broken(calls) == []


def test_torch_is_seen_by_fitting_alone():
    arrows = _imports_of("torch", "ctgan", "sklearn", "rdt", "copulas")
    assert _broken(arrow for arrow in arrows if not within(arrow[0].name, "trainer_service.fitting")) == []


def test_onnxruntime_is_seen_by_the_kernels_alone():
    assert {module.name for module, _, _ in _imports_of("onnxruntime", "onnx")} == {"rowmint.synthesizer.exact.kernels"}


def test_sdv_and_pandas_are_seen_by_the_trainer_alone():
    arrows = _imports_of("sdv", "sdmetrics", "pandas")
    assert _broken(arrow for arrow in arrows if not within(arrow[0].name, "trainer_service")) == []


def test_only_settings_and_the_command_line_read_the_environment():
    def allowed(module):
        return not {"settings", "environment"}.isdisjoint(module.name.split(".")) or within(module.name, "rowmint.cli")

    reads = []
    for module in modules():
        if allowed(module):
            continue
        reads += [
            (module, line, name)
            for name, line in module.imports()
            if name in ("os.environ", "os.getenv", "os.environb")
        ]
        reads += [
            (module, node.lineno, _dotted(node))
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute)
            and _dotted(node) in ("os.environ", "os.getenv", "os.putenv", "os.environb", "os.unsetenv")
        ]
    assert _broken(reads) == []


def test_nothing_goes_by_a_wall_clock_but_the_registrys():
    reads = [
        (module, node.lineno, _dotted(node))
        for module in modules()
        # The main module hands the clock to what reports an instant; `rowmint keys` says until when keys hold.
        if not module.name.endswith(".__main__") and module.name != "rowmint.cli.keys"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and _dotted(node).endswith(CLOCKS)
    ]
    assert _broken(reads) == []


def test_no_module_has_a_name_that_says_nothing():
    vague = [
        str(module.path.relative_to(ROOT)) for module in modules() if set(module.name.split(".")) & set(VAGUE_NAMES)
    ]
    assert vague == []


def test_a_module_is_one_noun():
    lengths = {
        str(module.path.relative_to(ROOT)): len(module.path.read_text(encoding="utf-8").splitlines())
        for module in modules()
    }
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_everything_explains_itself():
    assert [module.name for module in modules() if not ast.get_docstring(module.tree)] == []


@pytest.mark.parametrize(
    ("name", "roots", "expected"),
    [
        ("rowmint.v1", ["rowmint"], True),
        ("rowmint", ["rowmint"], True),
        ("rowmint_other", ["rowmint"], False),
        ("google_crc32c", ["google"], False),
    ],
)
def test_within(name, roots, expected):
    assert within(name, *roots) is expected


def test_imports_are_read_in_every_form(tmp_path):
    text = "import a.b as c\nfrom . import d\nfrom ..e import f\nfrom g import h\nimport_module('i.j')\n"
    module = Module("p.q.r", tmp_path / "r.py", ast.parse(text))
    names = [name for name, _ in module.imports()]
    assert names == ["a.b", "p.q", "p.q.d", "p.e", "p.e.f", "g", "g.h", "i.j"]
