"""Training jobs, models, names and errors, as the client sees them."""

import subprocess
import sys

import grpc
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError, training_config
from rowmint.client.connection import parse_addresses
from rowmint.client.families import FieldHelp, field_help
from rowmint.errors import CancelledError, FieldViolation, InvalidFieldError, TrainingFailedError
from rowmint.v1 import schema_pb2, training_job_pb2
from tests.unit.fake_failures import Cut, refuse
from tests.unit.fake_rows import VERSION
from tests.unit.fake_sampler import FakeSampler
from tests.unit.fake_services import services
from tests.unit.fake_trainer import FakeTrainer


def client_of(found):
    return Client(found.trainer_address, found.sampler_address, retry=RetryPolicy(sleep=found.waits.append))


def test_hyperparameters_find_their_fields():
    config = training_config(
        "ctgan",
        {
            "epochs": "5",
            "generator_dim": "64, 32",
            "discriminator_dim": [16],
            "generator_lr": 1e-3,
            "log_frequency": "false",
            "seed": 0,
            "device": "cpu",
            "probe_epochs": "5",
            "patience": 3,
            "keep_best": "true",
            "column_overrides": [training_job_pb2.ColumnOverride(column="a", kind=schema_pb2.COLUMN_KIND_ID)],
        },
    )
    expected = training_job_pb2.TrainingConfig(
        ctgan=training_job_pb2.CtganConfig(
            epochs=5, generator_dim=[64, 32], discriminator_dim=[16], generator_lr=1e-3, log_frequency=False
        ),
        seed=0,
        device=training_job_pb2.DEVICE_CPU,
        probe_epochs=5,
        patience=3,
        keep_best=True,
        column_overrides=[training_job_pb2.ColumnOverride(column="a", kind=schema_pb2.COLUMN_KIND_ID)],
    )
    assert expected == config
    assert training_config("independent", {}).WhichOneof("family") == "independent"


def test_hyperparameters_are_explained():
    assert field_help("tvae", "loss_factor") == FieldHelp("Weight of the reconstruction loss", "above 0", "2")
    assert field_help("", "holdout_fraction") == FieldHelp("Share of the rows kept out of training", "0 to 0.5", "0")
    assert field_help("", "epochs") is field_help("tvae", "pac") is field_help("gan", "epochs") is None


@pytest.mark.parametrize(
    ("family", "name", "value", "part"),
    [
        ("ctgan", "epoch", 5, "did you mean epochs"),
        ("gan", "epochs", 5, "choose one of circuit, ctgan, tvae, independent, auto"),
        ("ctgan", "epochs", "many", "'many' is not a value"),
        ("ctgan", "epochs", 1.5, "is not a value"),
        ("ctgan", "epochs", 2**40, "is not a value"),
        ("ctgan", "log_frequency", "maybe", "'maybe' is not a value"),
        ("ctgan", "probe_epoch", 5, "did you mean probe_epochs"),
        ("tvae", "keep_best", "best", "'best' is not a value"),
        ("tvae", "patience", "long", "'long' is not a value"),
        ("ctgan", "device", "gpu", "'gpu' is not a value"),
        ("tvae", "compress_dims", ["a"], "'a' is not a value"),
    ],
)
def test_a_hyperparameter_that_does_not_fit_is_named(family, name, value, part):
    with pytest.raises(InvalidFieldError, match=part):
        training_config(family, {name: value})


def test_a_job_is_started_once_and_estimated_without():
    with services() as found, client_of(found) as client:
        job = client.train("d", "flights", epochs=5)
        assert job.name == "projects/default/trainingJobs/j1"
        sent = found.trainer.jobs[0]
        assert sent.training_job.dataset == "projects/default/datasets/d"
        assert sent.request_id
        assert client.estimate("d", "flights", family="tvae").encoded_width == 40
        assert found.trainer.jobs[1].validate_only
        assert not sent.training_job.staged
        assert client.train("d", "flights", staged=True).staged
        assert found.trainer.jobs[2].training_job.staged
        with pytest.raises(InvalidFieldError, match="beside a whole config"):
            client.train("d", "flights", training_config("tvae", {}), epochs=5)


@pytest.mark.parametrize(
    "cuts",
    [
        [],
        [Cut(0)],
        [Cut(3)],
        [Cut(3, code=grpc.StatusCode.UNAVAILABLE), Cut(2)],
        [Cut(2, "silent")],
        [Cut(2, "gap")],
        [Cut(2, "refuse", grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")],
    ],
)
def test_each_event_is_received_once_over_breaks(cuts):
    with services(FakeTrainer(watch_cuts=cuts)) as found, client_of(found) as client:
        received = [event.sequence for event in client.watch("j1")]
        assert received == list(range(1, 8))
        assert [event.sequence for event in client.watch("j1", after=5)] == [6, 7]
        assert list(client.watch("j1", after=7)) == []
        assert client.wait_job("j1").model_version == VERSION


def test_watching_gives_up_and_times_out():
    with (
        services(FakeTrainer(watch_cuts=[Cut(0)] * 20)) as found,
        client_of(found) as client,
        pytest.raises(RowmintCallError, match="given up after 8"),
    ):
        list(client.watch("j1"))
    trainer = FakeTrainer(watch_cuts=[Cut(0, "silent")] * 50)
    trainer.outcome = training_job_pb2.JOB_STATE_RUNNING
    with (
        services(trainer) as found,
        client_of(found) as client,
        pytest.raises(TimeoutError, match="did not end within"),
    ):
        client.wait_job("j1", timeout=0)


@pytest.mark.parametrize(
    ("state", "error", "part"),
    [
        (training_job_pb2.JOB_STATE_FAILED, TrainingFailedError, "a loss became infinite"),
        (training_job_pb2.JOB_STATE_CANCELLED, CancelledError, "was cancelled"),
    ],
)
def test_a_job_without_a_version_is_an_error(state, error, part):
    trainer = FakeTrainer()
    trainer.outcome = trainer.events[-1].state = state
    with services(trainer) as found, client_of(found) as client, pytest.raises(error, match=part):
        client.wait_job("j1")


def test_jobs_and_models_are_read_and_changed():
    with services() as found, client_of(found) as client:
        assert [job.name for job in client.list_jobs()] == ["projects/default/trainingJobs/j1"]
        assert client.cancel_job("j1").state == training_job_pb2.JOB_STATE_CANCELLING
        assert [model.name for model in client.list_models()] == [
            "projects/default/models/a",
            "projects/default/models/b",
        ]
        assert client.get_model("flights").aliases == {"latest": 1}
        assert [version.version for version in client.list_versions("flights")] == [1]
        assert client.set_alias("flights", "best", 1).aliases == {"best": 1}
        client.delete_version("flights/versions/1")
        assert found.trainer.deleted == [VERSION]


def test_an_error_carries_everything_the_service_said():
    with services() as found, client_of(found) as client, pytest.raises(RowmintCallError) as caught:
        client.train("d", "flights", family="ctgan", pac=7)
    error = caught.value
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "INVALID_FIELD"
    assert error.violations == (FieldViolation("training_job.config.ctgan.batch_size", "must be divisible by pac"),)
    assert str(error) == "training_job.config.ctgan.batch_size: must be divisible by pac (INVALID_FIELD)"


class Busy(FakeTrainer):
    def __init__(self, refusals, **details):
        super().__init__()
        self.refusals = refusals
        self.details = details

    def GetTrainingJob(self, request, context):  # noqa: N802
        if self.refusals:
            self.refusals -= 1
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT", "too\nmany calls", **self.details)
        return super().GetTrainingJob(request, context)


def test_a_call_is_made_again_when_the_service_says_so():
    with services(Busy(2, retry_after=1.5)) as found, client_of(found) as client:
        assert client.get_job("j1").name == "projects/default/trainingJobs/j1"
        assert found.waits == [1.5, 1.5]
    with (
        services(Busy(2)) as found,
        client_of(found) as client,
        pytest.raises(RowmintCallError, match=r"^too many calls \(LIMIT\)$"),
    ):
        client.get_job("j1")
    with services(Busy(1, domain="elsewhere")) as found, client_of(found) as client:
        assert client.get_job("j1").name == "projects/default/trainingJobs/j1"


def test_mixed_up_addresses_are_reported():
    with services() as found, Client(found.sampler_address, found.trainer_address) as client:
        with pytest.raises(RowmintCallError, match="mixed up"):
            client.get_job("j1")
        with pytest.raises(RowmintCallError, match="mixed up"):
            client.sample("flights", 5)


@pytest.mark.parametrize("given", ["", ",", "localhost", "a:b", "a:0", "a:70000", "a b:1"])
def test_a_malformed_address_is_refused(given):
    with pytest.raises(InvalidFieldError, match="sampler"):
        parse_addresses(given, "sampler")


def test_addresses_are_taken_apart():
    assert parse_addresses("a:1, b:2", "sampler") == ("a:1", "b:2")
    assert parse_addresses(["a:1,b:2", "[::1]:3", "dns:///c"], "sampler") == ("a:1", "b:2", "[::1]:3", "dns:///c")


def test_unary_calls_go_round_the_replicas():
    class Counting(FakeSampler):
        calls = 0

        def GetModel(self, request, context):  # noqa: N802
            self.calls += 1
            return super().GetModel(request, context)

    samplers = [Counting(), Counting()]
    with services(samplers=samplers) as found, client_of(found) as client:
        while not all(sampler.calls for sampler in samplers):
            client.get_model("flights")


def test_the_client_needs_no_service_library():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'numpy', 'pandas', 'sqlalchemy', 'torch', 'grpc_status',"
        " 'grpc_health', 'pydantic', 'onnxruntime'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import rowmint.client, rowmint.cli\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
