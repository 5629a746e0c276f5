"""Tests wait for what happens, not for time to pass: no pauses, no assertions on seconds, no second tries.

A sleep may be the pause of a loop that waits for a condition. What is compared with a clock, or with processor time, is
guessed: a busy machine makes it untrue. And what is made has no time in it: where a parameter had one, the processes
that share the tests would name them differently, and none would run.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ALLOWED = {
    "benchmarks": "measures, and asserts nothing of it",
    "golden/old_code": "code of an older version, as it was",
    "soak": "a program that runs for a given time; its slow readers sleep",
    "unit/test_client_balancing.py": "a caller's pause between its attempts, a short one",
    "waiting.py": "the bound of a wait for a condition",
}
"""Folders and files in which the clock is read, and why."""
SLEEPS = {"sleep", "time.sleep", "asyncio.sleep"}
CLOCKS = {
    "time.monotonic",
    "time.perf_counter",
    "time.process_time",
    "time.thread_time",
    "time.time",
    "loop.time",
    "monotonic",
    "perf_counter",
    "psutil.cpu_percent",
}
FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py"))


def allowed(file: str) -> bool:
    return any(file == one or file.startswith(f"{one}/") for one in ALLOWED)


def found_in(source: str) -> list[str]:
    """Return what a module does with time, a line for each."""
    module = ast.parse(source)
    assigned = [node for node in ast.walk(module) if isinstance(node, ast.Assign) and _reads_clock(node.value)]
    clocked = {target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)}
    return [f"line {line}: {what}" for line, what in _found(module, clocked, waits=False)]


def _found(node: ast.AST, clocked: set[str], *, waits: bool) -> Iterator[tuple[int, str]]:
    """Yield what stands below a node that is in a loop which `waits` for a condition, or is not.

    Args:
        node: Where to look.
        clocked: Names of what was read from a clock.
        waits: Whether the node is in such a loop.
    """
    if isinstance(node, ast.While):
        waits = not isinstance(node.test, ast.Constant)
    elif isinstance(node, ast.For | ast.AsyncFor | ast.FunctionDef | ast.AsyncFunctionDef):
        waits = False
    for child in ast.iter_child_nodes(node):
        yield from _found(child, clocked, waits=waits)
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        yields = name == "asyncio.sleep" and [ast.unparse(argument) for argument in node.args] == ["0"]
        if name in SLEEPS and not waits and not yields:
            yield node.lineno, f"{ast.unparse(node)} waits for time to pass"
        if name == "gzip.compress" and "mtime" not in [keyword.arg for keyword in node.keywords]:
            yield node.lineno, f"{ast.unparse(node)} has the time in its bytes; give it mtime=0"
        if name.endswith("Event().wait") and node.args:
            yield node.lineno, f"{ast.unparse(node)} waits for an event that nothing sets"
    elif isinstance(node, ast.Compare):
        if _reads_clock(node) or any(isinstance(part, ast.Name) and part.id in clocked for part in ast.walk(node)):
            yield node.lineno, f"{ast.unparse(node)} compares with a clock"
    elif isinstance(node, ast.ExceptHandler) and _hides_failure(node):
        yield node.lineno, "an assertion that failed is not the end"


def _hides_failure(handler: ast.ExceptHandler) -> bool:
    """Say whether a handler continues after an assertion has failed."""
    caught = handler.type is not None and "AssertionError" in ast.unparse(handler.type)
    return caught and not isinstance(handler.body[-1], ast.Return | ast.Raise)


def _reads_clock(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) and ast.unparse(part.func) in CLOCKS for part in ast.walk(node))


@pytest.mark.parametrize("file", [file for file in FILES if not allowed(file)])
def test_no_test_guesses_from_time(file: str) -> None:
    assert found_in((TESTS / file).read_text()) == []


def test_what_is_allowed_is_there() -> None:
    assert [one for one in ALLOWED if not (TESTS / one).exists()] == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import time\ntime.sleep(1)", [2]),
        ("for _ in range(3):\n    time.sleep(1)", [2]),
        ("while True:\n    sleep(0.1)", [2]),
        ("while not done():\n    sleep(0.1)", []),
        ("async def f():\n    await asyncio.sleep(0)\n    await asyncio.sleep(0.1)", [3]),
        ("threading.Event().wait(3)", [1]),
        ('gzip.compress(b"a")\ngzip.compress(b"a", mtime=0)', [1]),
        ("assert time.monotonic() - began < 3", [1]),
        ("elapsed = time.monotonic() - began", []),
        ("elapsed = time.monotonic() - began\nassert elapsed < 3", [2]),
        ("try:\n    f()\nexcept AssertionError:\n    f()", [3]),
    ],
)
def test_what_guesses_is_found(source: str, lines: list[int]) -> None:
    assert [int(line.split()[1].rstrip(":")) for line in found_in(source)] == lines
