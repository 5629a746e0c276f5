"""What is installed: a bill of materials, its licences, and its known weaknesses; run by `make audit`.

    python -m tests.supply BIN NAME=ENVIRONMENT ...

BIN holds cyclonedx-py and pip-audit; each bill becomes build/NAME.cdx.json. Ends with 1 where something is wrong. Where
no advisory service can be reached, it says so, and goes by the fixes in releases that tests/supply/bom.py names.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.supply.advisories import AwayError, weaknesses
from tests.supply.bom import components, problems

BUILD = Path("build")
# What each bill must hold: the extras of pyproject.toml that are installed there.
EXTRAS = {"sampler": ("sampler",), "development": ("sampler", "trainer", "postgres", "tracing", "dev")}


def required(extras: tuple[str, ...]) -> list[str]:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [line for line in found if not line.startswith("rowmint[")]


def bill(tools: Path, name: str, environment: Path) -> list[str]:
    """Write a bill; return what is wrong with it."""
    target = BUILD / f"{name}.cdx.json"
    subprocess.run(
        [
            *(str(tools / "cyclonedx-py"), "environment", str(environment / "bin" / "python")),
            *("--pyproject", "pyproject.toml", "--output-reproducible", "--output-format", "JSON"),
            *("--output-file", str(target)),
        ],
        check=True,
    )
    found = json.loads(target.read_text(encoding="utf-8"))
    print(f"{target}: {len(components(found))} packages, CycloneDX {found['specVersion']}")
    return problems(found, required(EXTRAS[name]))


def audit(tools: Path, name: str) -> list[str]:
    """Return the known weaknesses of what a bill holds; of a build such as 2.13.0+cpu, services know the release."""
    found = components(json.loads((BUILD / f"{name}.cdx.json").read_text(encoding="utf-8")))
    pinned = BUILD / f"{name}.txt"
    pinned.write_text("".join(f"{package}=={version.partition('+')[0]}\n" for package, version in found.items()))
    done = subprocess.run(
        [
            *(str(tools / "pip-audit"), "--requirement", str(pinned), "--no-deps", "--disable-pip"),
            *("--format", "json", "--progress-spinner", "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return weaknesses(done.stdout, done.stderr, done.returncode)


def main(tools: Path, environments: dict[str, Path]) -> int:
    BUILD.mkdir(exist_ok=True)
    wrong = []
    for name, environment in environments.items():
        wrong += bill(tools, name, environment)
        subprocess.run([str(environment / "bin" / "python"), "-m", "pip", "check"], check=True)
        try:
            wrong += audit(tools, name)
        except AwayError:
            print(f"NOT AUDITED: {name}: no advisory service can be reached from here; run `make audit` where one can")
    for one in wrong:
        print(f"wrong: {one}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(
        main(Path(sys.argv[1]), {name: Path(place) for name, _, place in (one.partition("=") for one in sys.argv[2:])})
    )
