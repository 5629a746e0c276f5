"""The command: what it prints, where, and with which exit code."""

import csv
import io
import json
import re
from importlib.metadata import version

import grpc
import pyarrow as pa
import pyarrow.ipc
import pytest
from typer.testing import CliRunner

from rowmint.cli import jobs
from rowmint.cli.app import app
from rowmint.cli.output import short_name
from rowmint.client.families import field_help, training_fields
from rowmint.v1 import dataset_pb2, schema_pb2, training_job_pb2
from tests.unit.fake_failures import Cut
from tests.unit.fake_rows import VERSION, unbroken
from tests.unit.fake_sampler import FakeSampler
from tests.unit.fake_services import services
from tests.unit.fake_trainer import FakeTrainer
from tests.waiting import PATIENCE

ROWS = 200
CSV = 2
NDJSON = 3
ARROW = 1


@pytest.fixture
def fakes():
    with services() as found:
        yield found


def run(found, *arguments, **options):
    start = ["--trainer", found.trainer_address, "--sampler", found.sampler_address]
    return CliRunner().invoke(app, [*start, *arguments], **options)


def succeed(found, *arguments, **options):
    done = run(found, *arguments, **options)
    assert done.exit_code == 0, done.output
    return done


def fail(found, *arguments, code=1, **options):
    done = run(found, *arguments, **options)
    assert done.exit_code == code, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("rowmint: ")
    return lines[0]


@pytest.fixture
def flights(tmp_path):
    path = tmp_path / "flights.csv"
    path.write_bytes(b"origin,dep_delay\nJFK,5\n")
    return path


def test_datasets_are_uploaded_and_shown(fakes, flights):
    done = succeed(fakes, "datasets", "upload", str(flights), "--id", "f", "--column", "origin=categorical")
    assert "f: READY, 1,000 rows" in done.stderr
    assert "dep_delay" in done.stdout
    created = fakes.trainer.created[0].dataset
    assert list(created.column_overrides) == [
        schema_pb2.ColumnSpec(name="origin", kind=schema_pb2.COLUMN_KIND_CATEGORICAL)
    ]
    assert "f" in succeed(fakes, "datasets", "list").stdout
    assert json.loads(succeed(fakes, "datasets", "show", "f", "--json").stdout)["row_count"] == 1000
    listed = json.loads(succeed(fakes, "datasets", "list", "--json").stdout)
    assert [one["state"] for one in listed] == ["READY"]
    assert json.loads(succeed(fakes, "datasets", "delete", "f", "--json").stdout) == {"deleted": "f"}


def test_a_dialect_is_passed_on(fakes, flights):
    options = ["--delimiter", ";", "--null", "NA", "--null", "-", "--encoding", "latin-1", "--primary-key", "id"]
    done = succeed(fakes, "datasets", "upload", str(flights), *options, "--no-wait", "--json")
    assert json.loads(done.stdout)["state"] == "INGESTING"
    expected = dataset_pb2.CsvFormat(delimiter=";", null_values=["NA", "-"], encoding="latin-1")
    assert fakes.trainer.created[0].dataset.format.csv == expected
    assert fakes.trainer.created[0].dataset.primary_key == "id"


def test_standard_input_is_uploaded_with_a_given_format(fakes):
    succeed(fakes, "datasets", "upload", "-", "--format", "csv", "--id", "s", input=b"a\n1\n")
    assert fakes.trainer.stored["projects/default/datasets/s"] == b"a\n1\n"
    assert "--format" in fail(fakes, "datasets", "upload", "-", input=b"a\n1\n")


def test_a_file_that_is_not_a_table_is_reported(flights):
    trainer = FakeTrainer()
    trainer.errors = [dataset_pb2.DataError(line=7, column="dep_delay", message="is text, not a number; fix it")]
    with services(trainer) as found:
        error = fail(found, "datasets", "upload", str(flights))
        name = "projects/default/datasets/made"
        problem = "line 7: column dep_delay: is text, not a number; fix it"
        assert error == f"rowmint: {flights} ({name}): {problem}"
        # The dataset that failed is uploaded again, and fails again.
        trained = [run(found, "train", str(flights)).stderr.splitlines() for _ in range(2)]
        named = short_name(min(trainer.datasets))
    assert trained[0] == [f"rowmint: {flights} (projects/default/datasets/{named}): {problem}"]
    assert trained[1] == [f"{named} was uploaded before and could not be read; it is uploaded again", *trained[0]]


def test_a_file_that_cannot_be_profiled_leaves_no_dataset(flights):
    trainer = FakeTrainer()
    trainer.errors = [dataset_pb2.DataError(line=7, message="has too few cells")]
    with services(trainer) as found:
        assert "line 7: has too few cells" in fail(found, "datasets", "profile", str(flights))
        assert trainer.datasets == {}
        fail(found, "datasets", "profile", str(flights), "--keep")
        assert len(trainer.datasets) == 1


def test_training_uploads_waits_and_reports(fakes, flights):
    done = succeed(
        fakes,
        "train",
        str(flights),
        "--family",
        "ctgan",
        "--epochs",
        "5",
        "--set",
        "generator_dim=8,8",
        "--set",
        "pac=1",
    )
    assert "j1: SUCCEEDED" in done.stderr
    # Without a terminal, a line an epoch; of three hundred, one in thirty.
    lines = [line for line in done.stderr.splitlines() if line.startswith("training flights: ")]
    assert [line.split()[2] for line in lines] == ["20%", "40%", "60%", "80%", "100%"]
    assert "published flights/versions/1" in done.stderr
    assert "had versions before" not in done.stderr
    assert "quality is" not in done.stderr
    job = fakes.trainer.jobs[0].training_job
    assert job.model == "projects/default/models/flights"
    assert job.config.ctgan == training_job_pb2.CtganConfig(epochs=5, generator_dim=[8, 8], pac=1)


def test_a_file_that_was_uploaded_before_is_used_again(fakes, flights):
    assert "uploaded before" not in succeed(fakes, "datasets", "profile", str(flights), "--keep").stderr
    done = succeed(fakes, "train", str(flights), "--epochs", "5")
    (name,) = fakes.trainer.datasets
    assert re.fullmatch("flights-[0-9a-f]{12}", short_name(name))
    assert done.stderr.splitlines()[0] == f"{short_name(name)} was uploaded before and is used again"
    assert [job.training_job.dataset for job in fakes.trainer.jobs] == [name]
    fakes.trainer.datasets[name].state = dataset_pb2.DATASET_STATE_UPLOADING
    done = succeed(fakes, "train", str(flights), "--epochs", "5")
    assert done.stderr.splitlines()[0] == f"{short_name(name)} was uploaded in part before; the rest follows"
    assert fakes.trainer.writes == [0, flights.stat().st_size]


def test_a_table_from_standard_input_gets_an_id_of_the_service(fakes):
    succeed(fakes, "train", "-", "--format", "csv", "--model", "m", "--epochs", "5", input=b"a\n1\n")
    assert list(fakes.trainer.datasets) == ["projects/default/datasets/made"]


def test_what_may_surprise_is_said_after_training(fakes, flights):
    fakes.trainer.progress = training_job_pb2.TrainingProgress(epoch=5, epochs=5, probe={"quality": 0.61})
    fakes.trainer.made = VERSION.replace("versions/1", "versions/4")
    done = succeed(fakes, "train", str(flights), "--epochs", "5")
    assert "quality is 0.61 of 1" in done.stderr
    assert "the model flights had versions before" in done.stderr
    done = succeed(fakes, "train", str(flights), "--epochs", "5", "--model", "flights")
    assert "had versions before" not in done.stderr
    assert succeed(fakes, "train", str(flights), "--epochs", "5", "--json").stderr == ""


ONE_STEP = "each epoch is a single step"


@pytest.mark.parametrize(
    ("family", "manifest", "said"),
    [
        ("ctgan", '{"training": {"steps_per_epoch": 1}}', True),
        ("tvae", '{"training": {"steps_per_epoch": 1}}', True),
        ("tvae", '{"training": {"steps_per_epoch": 2}}', False),
        ("independent", '{"training": {"steps_per_epoch": 0}}', False),
        ("ctgan", '{"training": {}}', False),
        ("ctgan", "{", False),
    ],
)
def test_a_fit_of_one_step_an_epoch_is_reported(fakes, flights, monkeypatch, *, family, manifest, said):
    monkeypatch.setattr(jobs, "MANIFEST_SECONDS", PATIENCE)
    fakes.samplers[0].manifest = manifest
    lines = succeed(fakes, "train", str(flights), "--family", family).stderr.splitlines()
    assert [line for line in lines if line.startswith(ONE_STEP) and "--batch-size" in line] == lines[-1:] * said
    assert succeed(fakes, "train", str(flights), "--family", family, "--json").stderr == ""


def test_an_estimate_of_one_step_an_epoch_is_reported(fakes):
    assert ONE_STEP not in succeed(fakes, "train", "f", "--estimate").stderr
    fakes.trainer.steps = 1
    assert ONE_STEP in succeed(fakes, "train", "f", "--estimate").stderr
    assert succeed(fakes, "train", "f", "--estimate", "--json").stderr == ""
    assert ONE_STEP not in succeed(fakes, "train", "f", "--estimate", "--family", "independent").stderr


def test_training_needs_no_sampler(fakes, flights):
    fakes.sampler_addresses = ["127.0.0.1:1"]
    done = succeed(fakes, "train", str(flights))
    assert "published flights/versions/1" in done.stderr
    assert ONE_STEP not in done.stderr


def test_training_of_a_dataset_by_id_and_its_estimate(fakes):
    done = succeed(fakes, "train", "f", "--family", "tvae", "--seed", "3", "--model", "m", "--json")
    assert json.loads(done.stdout)["model_version"] == VERSION
    assert fakes.trainer.jobs[0].training_job.dataset == "projects/default/datasets/f"
    assert fakes.trainer.jobs[0].training_job.config.seed == 3
    done = succeed(fakes, "train", "f", "--estimate", "--json")
    assert json.loads(done.stdout)["encoded_width"] == 40
    assert "40" in succeed(fakes, "train", "f", "--estimate").stdout
    assert json.loads(succeed(fakes, "train", "f", "--no-wait", "--json").stdout)["state"] == "PENDING"
    assert json.loads(succeed(fakes, "train", "f", "--staged", "--no-wait", "--json").stdout)["staged"] is True


def test_the_primary_key_is_the_datasets_or_overrides_it(fakes, flights):
    succeed(fakes, "train", str(flights), "--primary-key", "origin", "--no-wait", "--json")
    assert fakes.trainer.created[0].dataset.primary_key == "origin"
    succeed(fakes, "train", "f", "--primary-key", "origin", "--no-wait", "--json")
    uploaded, dataset = (job.training_job.config for job in fakes.trainer.jobs)
    assert not uploaded.HasField("primary_key")
    assert dataset.primary_key == "origin"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "f", "--family", "ctgan", "--set", "pac=7"], "batch_size: must be divisible by pac (INVALID_FIELD)"),
        (["train", "f", "--set", "epoch=7"], "did you mean epochs?"),
        (["train", "f", "--set", "epochs"], "is not NAME=VALUE"),
        (["train", "f", "--family", "gan"], "choose one of circuit, ctgan, tvae, independent, auto"),
        (["train", "nope/f.csv"], "there is no file 'nope/f.csv'"),
        (["train", "-"], "--model: is required"),
        (["train", "f", "--delimiter", ";"], "--delimiter: describes a file; 'f' is a dataset"),
        (["train", "f", "--column", "a=id"], "--column: describes a file"),
        (["datasets", "show", "nope"], "there is no projects/default/datasets/nope (RESOURCE_NOT_FOUND)"),
        (["datasets", "upload", "nope.csv"], "nope.csv: No such file or directory"),
        (["datasets", "upload", "nope.sav"], "choose one of csv, tsv"),
        (["datasets", "upload", "nope.parquet", "--delimiter", ";"], "for CSV only"),
        (["models", "delete", "flights"], "write flights/versions/NUMBER"),
        (["models", "alias", "flights", "best"], "or --remove"),
        (["sample", "nothing", "-n", "5"], "there is no model nothing (RESOURCE_NOT_FOUND)"),
        (["sample", "flights", "-n", "5", "-w", "orgin = JFK"], "did you mean 'origin'?"),
        (["sample", "flights", "-n", "5", "-w", "dep_delay > late"], "holds integers; 'late' is not one"),
        (["sample", "flights", "-n", "5", "--format", "xlsx"], "choose one of csv, tsv"),
        (["sample", "flights", "-n", "5", "-o", "nope/rows.csv"], "No such file or directory"),
        (["complete", "flights", "nope.csv"], "nope.csv: No such file or directory"),
        (["score", "flights", "nope.csv"], "nope.csv: No such file or directory"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(fakes, tmp_path, monkeypatch, arguments, part):
    monkeypatch.chdir(tmp_path)
    assert part in fail(fakes, *arguments)


@pytest.mark.parametrize(
    "arguments", [["nope"], ["sample", "flights"], ["sample", "flights", "-n", "many"], ["--nope"]]
)
def test_misuse_has_an_exit_code_of_its_own(fakes, arguments):
    assert "--help`" in fail(fakes, *arguments, code=2)


def test_an_unreachable_service_is_reported_in_one_line():
    with services() as found:
        found.sampler_addresses = ["127.0.0.1:1"]
        assert "is `rowmint serve` running there" in fail(found, "sample", "flights", "-n", "5")
        found.trainer_address = "nowhere"
        assert "is not an address" in fail(found, "jobs", "list")


def test_jobs_are_listed_shown_watched_and_cancelled(fakes):
    assert "SUCCEEDED" in succeed(fakes, "jobs", "list").stdout
    assert json.loads(succeed(fakes, "jobs", "list", "--json").stdout)[0]["state"] == "SUCCEEDED"
    assert "j1: SUCCEEDED" in succeed(fakes, "jobs", "show", "j1").stderr
    lines = succeed(fakes, "jobs", "watch", "j1").stdout.splitlines()
    assert len(lines) == 7
    assert "epoch 1/5  critic +0.100  generator -0.500  1,000 rows/s" in lines[1]
    events = [
        json.loads(line) for line in succeed(fakes, "jobs", "watch", "j1", "--after", "5", "--json").stdout.splitlines()
    ]
    assert [event["sequence"] for event in events] == [6, 7]
    assert events[0]["progress"]["losses"] == {"critic": 0.1, "generator": -4.5}
    assert json.loads(succeed(fakes, "jobs", "cancel", "j1", "--json").stdout)["state"] == "CANCELLING"


def test_a_watched_job_shows_the_quality_of_its_probes():
    trainer = FakeTrainer()
    trainer.events[1].progress.probe.update({"quality": 0.9125, "shapes": 0.95, "pairs": 0.875, "distinct": 1.0})
    with services(trainer) as found:
        lines = succeed(found, "jobs", "watch", "j1").stdout.splitlines()
        assert "epoch 1/5  critic +0.100  generator -0.500  quality 0.912  1,000 rows/s" in lines[1]
        assert "quality" not in lines[2]
        done = succeed(found, "jobs", "watch", "j1", "--after", "1", "--json")
        assert json.loads(done.stdout.splitlines()[0])["progress"]["probe"]["pairs"] == 0.875


def test_a_failed_job_fails_the_command(flights):
    trainer = FakeTrainer()
    trainer.outcome = trainer.events[-1].state = training_job_pb2.JOB_STATE_FAILED
    with services(trainer) as found:
        done = run(found, "train", str(flights))
        assert done.exit_code == 1
        assert done.stderr.splitlines()[-1].endswith("failed: a loss became infinite")


def test_models_are_listed_shown_named_and_deleted(fakes):
    assert [line.split()[0] for line in succeed(fakes, "models", "list").stdout.splitlines()] == ["model", "a", "b"]
    assert "circuit" in succeed(fakes, "models", "list", "flights").stdout
    assert json.loads(succeed(fakes, "models", "list", "flights", "--json").stdout)[0]["model_digest"] == "6d" * 32
    assert "arr_delay" in succeed(fakes, "models", "show", "flights@latest").stdout
    assert json.loads(succeed(fakes, "models", "show", "flights", "--json").stdout)["name"] == VERSION
    assert "best=1" in succeed(fakes, "models", "alias", "flights", "best", "1").stderr
    succeed(fakes, "models", "alias", "flights", "best", "--remove")
    succeed(fakes, "models", "delete", "flights/versions/1")
    assert fakes.trainer.deleted == [VERSION]


def test_rows_go_to_standard_output_alone(fakes):
    done = succeed(fakes, "sample", "flights", "-n", str(ROWS), "--seed", "5")
    assert done.stdout_bytes == unbroken(CSV, ROWS)
    assert f"{ROWS} rows of {VERSION}, seed 5, 50.0% of {2 * ROWS} candidates accepted" in done.stderr
    assert succeed(fakes, "sample", "flights", "-n", str(ROWS), "--json").stdout_bytes == unbroken(NDJSON, ROWS)


def test_rows_go_to_a_file_of_the_suffixs_format(fakes, tmp_path):
    path = tmp_path / "rows.arrows"
    done = succeed(fakes, "sample", "flights", "-n", str(ROWS), "-o", str(path), "--json")
    assert path.read_bytes() == unbroken(ARROW, ROWS)
    assert pa.ipc.open_stream(path.read_bytes()).read_all().num_rows == ROWS
    report = json.loads(done.stdout)
    assert report["rows"] == ROWS
    assert report["header"]["seed"] == 77


def test_rows_read_as_parts_at_once_are_the_same(fakes):
    arguments = ["sample", "flights", "-n", str(50 * ROWS), "--seed", "5"]
    assert succeed(fakes, *arguments, "--parallel", "3").stdout_bytes == unbroken(CSV, 50 * ROWS)
    assert len(fakes.samplers[0].requests) > 10
    assert "parallel: is 65; must be 1 to 64" in fail(fakes, *arguments, "--parallel", "65")


def test_the_balancing_is_an_option_of_the_command(fakes):
    succeed(fakes, "--balancing", "round_robin", "models", "list")
    assert "choose one of weighted, round_robin" in fail(fakes, "--balancing", "fair", "models", "list")


def test_options_win_over_the_environment():
    with services() as found:
        environment = {"ROWMINT_TRAINER": found.trainer_address, "ROWMINT_SAMPLER": found.sampler_address}
        assert CliRunner().invoke(app, ["jobs", "list"], env=environment).exit_code == 0
        done = CliRunner().invoke(app, ["jobs", "list"], env={**environment, "ROWMINT_BALANCING": "least"})
        assert done.stderr.startswith("rowmint: ROWMINT_BALANCING: 'least' is unknown; choose one of weighted,")
        assert run(found, "jobs", "list", env={"ROWMINT_TRAINER": "nowhere"}).exit_code == 0
        bad = {**environment, "ROWMINT_TLS": "maybe"}
        assert CliRunner().invoke(app, ["jobs", "list"], env=bad).exit_code == 1
        assert CliRunner().invoke(app, ["--no-tls", "jobs", "list"], env=bad).exit_code == 0
        # Help needs no valid environment.
        assert CliRunner().invoke(app, ["jobs", "list", "--help"], env=bad).exit_code == 0


@pytest.fixture(scope="module")
def help_of_train():
    """What `rowmint train --help` prints, in one line, as where it is broken depends on the terminal."""
    done = CliRunner().invoke(app, ["train", "--help"])
    assert done.exit_code == 0
    return " ".join(done.output.split())


@pytest.mark.parametrize(
    "expected",
    [
        "Passes over the training rows [ctgan, tvae; 1 to 100,000; default: 300]. --batch-size",
        (
            "Rows per step; even, and divisible by pac [ctgan; 2 to 1,000,000; default: 500]. "
            "Rows per step [tvae; 1 to 1,000,000; default: 500]. --states"
        ),
        (
            "Width of each hidden layer of the generator "
            "[ctgan; 1 to 8 layers of 1 to 4,096; separated by commas; default: 256,256]."
        ),
        (
            "Whether condition vectors are drawn by the logarithm of a category's frequency in training "
            "[ctgan; default: true]."
        ),
        "--device <str> Where networks are fitted [every family; cpu or cuda; default: cpu].",
        "[every family; 1 to 256; default: the trainer's setting].",
        "[every family; 0 to 18,446,744,073,709,551,615; default: random].",
    ],
)
def test_help_explains_the_options_of_families(help_of_train, expected):
    assert expected in help_of_train


def test_every_option_of_families_is_explained():
    # That of the primary key is an option of every upload.
    fields = {field.name: field for field in training_fields() if field.name != "primary_key"}
    assert {"epochs", "l2scale", "keep_best"} <= set(fields)
    assert [
        (family, field.name)
        for field in fields.values()
        for family in field.families or ("",)
        if field_help(family, field.name) is None
    ] == []


def test_conditions_and_columns_reach_the_service(fakes):
    succeed(
        fakes, "sample", "flights", "-n", "5", "-w", "origin in (JFK, EWR)", "-w", "dep_delay > 60", "-w",
        "arr_delay is null", "--columns", "dep_delay, origin", "--allow-partial", "--escape-formulas",
        "--max-reuse", "16",
    )  # fmt: skip
    request = fakes.samplers[0].requests[0]
    assert [one.WhichOneof("test") for one in request.where.predicates] == ["any_of", "range", "is_null"]
    assert list(request.columns) == ["dep_delay", "origin"]
    assert request.allow_partial
    assert request.csv_escape_formulas
    assert request.max_reuse == 16


def test_weights_reach_the_service(fakes):
    succeed(fakes, "sample", "flights", "-n", "5", "--weights", "dep_delay = ..60:1, 60..:3", "-w", "origin = JFK")
    where = fakes.samplers[0].requests[0].where
    assert [one.column for one in where.predicates] == ["origin"]
    assert [(one.column, [entry.share for entry in one.entries]) for one in where.weights] == [("dep_delay", [1, 3])]
    error = fail(fakes, "sample", "flights", "-n", "5", "--weights", "dep_delay = ..60")
    assert "'dep_delay = ..60' does not state weights: a value has no share; write: column = value:share" in error


def test_a_plan_is_printed_instead_of_rows(fakes):
    done = json.loads(succeed(fakes, "sample", "flights", "-n", "5", "--plan", "--json").stdout)
    assert {name: done[name] for name in ("condition_probability", "acceptance", "conditioned_column")} == {
        "condition_probability": 0.25,
        "acceptance": 0.5,
        "conditioned_column": "",
    }
    assert done["header"]["model_version"].endswith("/flights/versions/1")
    printed = succeed(fakes, "sample", "flights", "-n", "5", "--plan").stdout
    assert re.search(r"condition probability +0\.25 *\n", printed)
    digest = done["header"]["plan_digest"]
    assert re.search(rf"plan digest +{digest} *\n", printed)


def test_a_stream_that_fails_leaves_no_file(tmp_path):
    cut = Cut(1, "refuse", grpc.StatusCode.FAILED_PRECONDITION, "ACCEPTANCE_TOO_LOW")
    with services(samplers=[FakeSampler([cut])]) as found:
        error = fail(found, "sample", "flights", "-n", str(ROWS), "-o", str(tmp_path / "rows.csv"))
    assert error == "rowmint: refused by the test (ACCEPTANCE_TOO_LOW)"
    assert list(tmp_path.iterdir()) == []


def test_rows_are_completed_from_csv_to_csv(fakes, tmp_path):
    source = tmp_path / "known.csv"
    source.write_bytes(b'\xef\xbb\xbfdep_delay,origin\n7,\n,"EWR"\n')
    done = succeed(fakes, "complete", "flights", str(source), "--seed", "1")
    assert list(csv.reader(io.StringIO(done.stdout))) == [
        ["origin", "dep_delay", "arr_delay"],
        ["JFK", "7", "0.5"],
        ["EWR", "1", "0.5"],
    ]
    assert "of 2 rows the known cells are only near to what was learned" in done.stderr
    done = succeed(fakes, "complete", "flights", "--json", input=b"origin\nLGA\n")
    assert json.loads(done.stdout) == {
        "row": 0,
        "support": "widened",
        "effective_sample_size": 12.5,
        "tolerance": 0.1,
        "values": {"origin": "LGA", "dep_delay": 0, "arr_delay": 0.5},
    }


def test_rows_are_scored_one_number_a_row(fakes, tmp_path):
    source = tmp_path / "rows.csv"
    source.write_bytes(b"dep_delay,origin\n7,\n,\n9,EWR\n")
    done = succeed(fakes, "score", "flights", str(source))
    assert done.stdout == "log_probability\n-0.5\n-inf\n-1.0\n"
    assert "1 rows are impossible" in done.stderr
    assert "3 rows scored" in done.stderr
    assert "-0.7500 nats" in done.stderr
    done = succeed(fakes, "score", "flights", "--json", input=b"origin,dep_delay\nLGA,\n,\n")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"row": 0, "log_probability": -0.5, "impossible": False},
        {"row": 1, "log_probability": None, "impossible": True},
    ]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "line 1: the input has no header"),
        (b"orgin\nJFK\n", "did you mean 'origin'?"),
        (b"origin,origin\nJFK,LGA\n", "line 1: a column is named twice"),
        (b"origin,dep_delay\nJFK\n", "line 2: 1 fields where the header has 2"),
        (b"dep_delay\nlate\n", "rows[0].dep_delay: column 'dep_delay' holds integers"),
        (b'origin\n"JFK\n', "is not CSV"),
        (b"origin\n\xff\xfe\n", "is not UTF-8"),
    ],
)
def test_known_cells_that_cannot_be_read_name_their_line(fakes, tmp_path, data, part):
    source = tmp_path / "known.csv"
    source.write_bytes(data)
    output = tmp_path / "rows.csv"
    assert part in fail(fakes, "complete", "flights", str(source), "-o", str(output))
    assert not output.exists()


def test_errors_are_json_for_scripts(fakes, tmp_path):
    def error_of(*arguments):
        done = run(fakes, *arguments)
        assert done.exit_code == 1
        assert done.stdout == ""
        return json.loads(done.stderr)["error"]

    refused = error_of("sample", "flights", "-n", "5", "-w", "orgin = JFK", "-o", str(tmp_path / "x.csv"), "--json")
    assert refused["reason"] == "COLUMN_NOT_FOUND"
    assert "did you mean 'origin'" in refused["message"]
    assert refused["metadata"]["column"] == "orgin"
    absent = error_of("datasets", "upload", str(tmp_path / "absent.csv"), "--json")
    assert "absent.csv" in absent["message"]


def test_the_version_is_shown():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"rowmint {version('rowmint')}\n")


def test_an_interrupt_is_said_and_leaves_no_part_of_a_file(fakes, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rowmint.client.row_files.FileFormat.write", interrupted)
    done = run(fakes, "sample", "flights", "-n", "5", "-o", str(tmp_path / "rows.csv"))
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (130, "rowmint: interrupted")
    assert list(tmp_path.iterdir()) == []
