"""The images: what they are built from, and that it is exactly what the locks name."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[2]
FORBIDDEN_IN_SAMPLER = ("torch", "sdv", "ctgan", "sklearn", "pandas")


def test_the_samplers_image_has_nothing_that_fits():
    dockerfile = (TOP / "sampler_service" / "Dockerfile").read_text()
    assert installed_from("sampler") == ["sampler.txt", "build.txt"]
    assert not set(FORBIDDEN_IN_SAMPLER) & set(locked("sampler.txt"))
    assert "scikit-learn" not in locked("sampler.txt")
    assert all(f"'{package}'" in dockerfile for package in FORBIDDEN_IN_SAMPLER)


@pytest.mark.parametrize("service", ["trainer", "sampler"])
def test_images_do_not_run_as_root(service):
    dockerfile = (TOP / f"{service}_service" / "Dockerfile").read_text()
    final = dockerfile.rsplit("FROM ", 1)[1]
    assert "\nUSER rowmint\n" in final
    assert f'ENTRYPOINT ["python", "-m", "{service}_service"]' in final


def installed_from(service):
    """Return the locks that a Dockerfile installs from, in order; what it has built itself needs none."""
    dockerfile = (TOP / f"{service}_service" / "Dockerfile").read_text().replace("\\\n", "")
    found = []
    for line in re.findall(r"pip install [^&\n]*", dockerfile):
        if "--no-index" in line:
            assert line.split()[2:] == ["--no-deps", "--no-index", "/opt/wheels/*.whl"]
            continue
        assert "--require-hashes" in line, line
        found.append(re.findall(r"deploy/locks/([^\s\"]+)", line)[0])
    return found


def locked(name):
    """Return the requirements of a lock by name of the package; each has at least one hash."""
    text = (TOP / "deploy" / "locks" / name).read_text()
    found = {}
    for entry in re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        line, *hashes = [part.strip(" \\") for part in entry.strip().splitlines()]
        requirement = Requirement(line)
        (version,) = requirement.specifier
        assert version.operator == "=="
        assert hashes, line
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), line
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("service", ["sampler", "trainer"])
def test_a_lock_holds_what_pyproject_asks_for(service):
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    extras = [service, "postgres", "tracing"]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            named = re.fullmatch(r"rowmint\[(.*)\]", line)
            if named:
                extras.append(named[1])
            else:
                wanted.append(line)
    found = locked(f"{service}.txt") | (locked("torch-cpu.txt") if service == "trainer" else {})
    for line in wanted:
        requirement = Requirement(line)
        several = found[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(pin_of(one), prereleases=True) for one in several), line


def pin_of(requirement):
    (specifier,) = requirement.specifier
    return specifier.version


def test_both_services_have_the_same_release_of_what_both_use():
    trainer, sampler = locked("trainer.txt"), locked("sampler.txt")
    assert {name: releases(several) for name, several in sampler.items()} == {
        name: releases(trainer[name]) for name in sampler
    }


def releases(requirements):
    return {pin_of(one) for one in requirements}


def test_torch_is_a_layer_of_its_own_and_as_in_the_makefile():
    assert installed_from("trainer") == ["torch-$TORCH.txt", "trainer.txt", "build.txt"]
    version = re.search(r"^TORCH := torch==(\S+)$", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert version
    cuda, cpu = locked("torch-cuda.txt"), locked("torch-cpu.txt")
    assert [pin_of(one) for one in (*cuda["torch"], *cpu["torch"])] == [version[1], f"{version[1]}+cpu"]
    assert "torch" not in locked("trainer.txt")
    # What both files name is the same release.
    both = locked("trainer.txt")
    assert {name: releases(cuda[name]) for name in set(cuda) & set(both)} == {
        name: releases(both[name]) for name in set(cuda) & set(both)
    }
