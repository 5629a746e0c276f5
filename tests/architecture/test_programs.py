"""What tests and the programs beside them (soak, benchmarks, generators) import of each other is there.

Nothing in `make test` runs a soak or a benchmark: a name that was moved would be missed by them alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def top_level_names(tree: ast.Module) -> set[str]:
    """Return the names that a module defines or imports, at its top level or in a top-level `if` or `try`."""
    found: set[str] = set()
    nodes: list[ast.stmt] = list(tree.body)
    while nodes:
        node = nodes.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Assign():
                found |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            case ast.AnnAssign(target=ast.Name() as target):
                found.add(target.id)
            case ast.Import() | ast.ImportFrom():
                found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            case ast.If() | ast.Try() | ast.With():
                nodes += [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
    return found


def missing(path: Path, root: Path) -> Iterator[str]:
    """Yield what a module imports from `tests` that is not there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("tests"):
            continue
        base = root.joinpath(*str(node.module).split("."))
        module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        names = top_level_names(ast.parse(module.read_text(encoding="utf-8"))) if module.exists() else set()
        for alias in node.names:
            if (
                alias.name not in names
                and not (base / f"{alias.name}.py").exists()
                and not (base / alias.name).is_dir()
            ):
                yield f"{path.relative_to(root)}:{node.lineno}: {node.module}.{alias.name}"


def test_what_tests_import_of_each_other_is_there() -> None:
    modules = sorted(TESTS.rglob("*.py"))
    assert len(modules) > 200
    assert [line for path in modules for line in missing(path, ROOT)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from tests.there import one, two", []),
        ("from tests import there", []),
        ("from tests.there import three", ["tests/user.py:1: tests.there.three"]),
        ("def f():\n    from tests.gone import one", ["tests/user.py:2: tests.gone.one"]),
        ("from elsewhere import one", []),
    ],
)
def test_a_name_that_is_not_there_is_found(tmp_path: Path, text: str, expected: list[str]) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "there.py").write_text("one = 1\ntry:\n    def two(): ...\nexcept ImportError:\n    pass\n")
    (folder / "user.py").write_text(text)
    assert list(missing(folder / "user.py", tmp_path)) == expected
