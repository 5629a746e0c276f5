"""What a shell completes: names that the services have, in the shells' own protocol."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rowmint.cli import shell_completion
from rowmint.cli.app import app
from rowmint.cli.shell_completion import join_bash_words
from rowmint.v1 import dataset_pb2, dataset_service_pb2
from tests.unit.fake_services import services
from tests.unit.fake_trainer import FakeTrainer
from tests.waiting import PATIENCE


class TwoProjects(FakeTrainer):
    """Lists the datasets of the project that is requested."""

    def __init__(self):
        super().__init__()
        for name in ("default/datasets/flights", "default/datasets/shop-1a2b", "acme/datasets/flour"):
            self.datasets[f"projects/{name}"] = dataset_pb2.Dataset(name=f"projects/{name}")

    def ListDatasets(self, request, context):  # noqa: N802
        own = [one for name, one in self.datasets.items() if name.startswith(f"{request.parent}/")]
        return dataset_service_pb2.ListDatasetsResponse(datasets=own)


@pytest.fixture(scope="module")
def fakes():
    with services(TwoProjects()) as found:
        yield found


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine is not taken for a service that does not answer."""
    monkeypatch.setattr(shell_completion, "LISTING_SECONDS", PATIENCE)


def addresses(found):
    return {"ROWMINT_TRAINER": found.trainer_address, "ROWMINT_SAMPLER": found.sampler_address}


def complete(*words, env=None):
    """Return what Bash is offered for the last word."""
    request = {"_ROWMINT_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(("rowmint", *words))}
    request["COMP_CWORD"] = str(len(words))
    done = CliRunner().invoke(app, [], prog_name="rowmint", env={**request, **(env or {})})
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["datasets", "show", ""], ["flights", "shop-1a2b"]),
        (["datasets", "delete", "sh"], ["shop-1a2b"]),
        (["datasets", "resume", "fl"], ["flights"]),
        (["datasets", "show", "projects/default/datasets/f"], ["projects/default/datasets/flights"]),
        (["datasets", "show", "none"], []),
        (["jobs", "watch", ""], ["j1"]),
        (["models", "show", ""], ["a", "b"]),
        (["models", "list", "b"], ["b"]),
        (["sample", "a"], ["a"]),
        (["complete", ""], ["a", "b"]),
        (["train", "flights", "--model", "a"], ["a"]),
        (["train", "flights", "--family", ""], ["circuit", "ctgan", "tvae", "independent", "auto"]),
        (["train", "flights", "--family", "t"], ["tvae"]),
    ],
)
def test_names_are_completed(fakes, words, expected):
    assert complete(*words, env=addresses(fakes)) == expected


def test_files_and_datasets_are_data(fakes, tmp_path, monkeypatch):
    (tmp_path / "flights.csv").touch()
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "one.csv").touch()
    (tmp_path / ".flags").touch()
    monkeypatch.chdir(tmp_path)
    for command in (["train"], ["datasets", "profile"]):
        assert complete(*command, "fl", env=addresses(fakes)) == ["flat/", "flights.csv", "flights"]
    assert complete("train", "flat/", env=addresses(fakes)) == ["flat/one.csv"]
    assert complete("train", "none/", env=addresses(fakes)) == []


def test_the_address_is_that_of_options_and_environment(fakes):
    host, port = fakes.trainer_address.split(":")
    away = {"ROWMINT_TRAINER": "127.0.0.1:1"}
    assert complete("datasets", "show", "", env=away) == []
    # As Bash splits it.
    assert complete("--trainer", host, ":", port, "datasets", "show", "s", env=away) == ["shop-1a2b"]
    assert complete("--trainer", "=", host, ":", port, "datasets", "show", "s", env=away) == ["shop-1a2b"]


def test_the_project_is_that_of_options_and_environment(fakes):
    env = addresses(fakes)
    assert complete("datasets", "show", "fl", env=env) == ["flights"]
    assert complete("--project", "acme", "datasets", "show", "fl", env=env) == ["flour"]
    assert complete("datasets", "show", "fl", env={**env, "ROWMINT_PROJECT": "acme"}) == ["flour"]


@pytest.mark.parametrize(
    "environment",
    [
        {"ROWMINT_TRAINER": "127.0.0.1:1"},
        {"ROWMINT_TRAINER": "nowhere"},
        {"ROWMINT_TLS": "maybe"},
        {"ROWMINT_TOKEN_FILE": "none", "ROWMINT_TOKEN": "rowmint_x"},
    ],
)
def test_what_fails_completes_nothing_and_says_nothing(environment):
    assert complete("datasets", "show", "", env=environment) == []
    assert complete("train", "flights", "--family", "c", env=environment) == ["circuit", "ctgan"]


PATIENT_COMMAND = f"""
from rowmint.cli import shell_completion
from rowmint.cli.app import app

shell_completion.LISTING_SECONDS = {PATIENCE}
app(prog_name="rowmint")
"""


@pytest.mark.parametrize("reached", [True, False])
def test_a_shell_sees_nothing_but_names(fakes, reached):
    """In a process of its own, as libraries may write to standard error by themselves."""
    done = subprocess.run(
        [sys.executable, "-c", PATIENT_COMMAND],
        env={
            "_ROWMINT_COMPLETE": "complete_bash",
            "COMP_WORDS": "rowmint\ndatasets\nshow\n",
            "COMP_CWORD": "3",
            "ROWMINT_TRAINER": fakes.trainer_address if reached else "127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == (["flights", "shop-1a2b"] if reached else [])


@pytest.mark.parametrize(
    ("words", "cursor", "expected"),
    [
        ("rowmint\n--trainer\na\n:\n1\nmodels\nshow\n", 7, ("rowmint\n--trainer\na:1\nmodels\nshow\n", "5")),
        ("rowmint\n--family\n=\nct", 3, ("rowmint\n--family=ct", "1")),
        ("rowmint\nsample\nshop\n@\nbe\n-n", 4, ("rowmint\nsample\nshop@be\n-n", "2")),
        ("rowmint\nsample\nsh\n-w\n'a = 1'", 2, ("rowmint\nsample\nsh\n-w\n'a = 1'", "2")),
        ("rowmint sample sh", 2, ("rowmint sample sh", "2")),
    ],
)
def test_what_bash_has_split_is_joined(words, cursor, expected):
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(cursor)}
    join_bash_words(environment)
    assert (environment["COMP_WORDS"], environment["COMP_CWORD"]) == expected
