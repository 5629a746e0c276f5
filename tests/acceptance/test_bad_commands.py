"""Wrong uses of the command, against real services: one clear line on stderr, a non-zero exit, nothing left behind."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rowmint.cli.app import app
from tests.acceptance.conftest import Fitted
from tests.acceptance.processes import Services


@pytest.fixture(scope="module")
def addresses(shared_services: Services, fitted: Fitted) -> list[str]:
    """The options that name the services and the project of `fitted`."""
    trainer, *samplers = shared_services.started
    sampler = ",".join(one.address for one in samplers)
    return ["--trainer", trainer.address, "--sampler", sampler, "--project", "bad-input"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["datasets", "upload", "ragged.csv", "--id", "ragged"], ["line 3: row 2: has 1 fields, the header has 2"]),
        (["datasets", "upload", "fine.csv", "--id", "Fine"], ["dataset_id: 'Fine' is not an id"]),
        (["datasets", "upload", "fine.csv", "--primary-key", "c"], ["there is no column 'c'"]),
        (["datasets", "show", "none"], ["there is no projects/bad-input/datasets/none"]),
        (["train", "none", "--family", "independent"], ["there is no projects/bad-input/datasets/none"]),
        (["train", "customers", "--family", "ctgan", "--epochs", "0"], ["ctgan.epochs: is 0; must be 1 to 100,000"]),
        (
            ["train", "customers", "--family", "ctgan", "--set", "pac=7"],
            ["ctgan.batch_size", "divisible by pac, which is 7"],
        ),
        (["train", "customers", "--set", "primary_key=custmer"], ["'custmer'; did you mean 'customer'?"]),
        (["jobs", "cancel", "none"], ["there is no projects/bad-input/trainingJobs/none"]),
        (["models", "show", "customers@best"], ["has no alias 'best'; its aliases: "]),
        (["models", "alias", "customers", "latest", "1"], ["alias: 'latest' is moved by publishing only"]),
        (["models", "alias", "customers", "best", "9"], ["there is no", "customers/versions/9"]),
        (["models", "delete", "customers@latest"], ["write customers/versions/NUMBER"]),
        (["sample", "customers", "-n", "0", "-o", "rows.csv"], ["rows: is 0; must be 1 to"]),
        (["sample", "none", "-n", "5", "-o", "rows.csv"], ["there is no projects/bad-input/models/none"]),
        (
            ["sample", "customers", "-n", "5", "-w", "city = Osol", "-o", "rows.csv"],
            ["'Osol'", "similar values are 'Oslo'"],
        ),
        (["sample", "customers", "-n", "5", "-w", "age > 500", "-o", "rows.csv"], ["allows only values outside"]),
        (["sample", "customers", "-n", "5", "-w", "bonus = 7", "-o", "rows.csv"], ["rarest condition is", "'bonus'"]),
        (["complete", "customers", "known.csv", "-o", "rows.csv"], ["row 0: ", "'Osol'", "similar values are 'Oslo'"]),
    ],
)
def test_a_wrong_use_is_reported_in_one_line(addresses, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    files = {"ragged.csv": "a,b\n1,2\n3\n", "fine.csv": "a,b\n1,2\n3,4\n", "known.csv": "city\nOsol\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = CliRunner().invoke(app, [*addresses, *arguments])
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("rowmint: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_the_process_reports_an_error_in_one_line(addresses):
    command = [sys.executable, "-c", "from rowmint.cli import main; main()", *addresses, "models", "show", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "rowmint: there is no projects/bad-input/models/none (RESOURCE_NOT_FOUND)\n"
