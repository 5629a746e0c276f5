"""Bad jobs, and bad uses of models and aliases: each is refused by a typed error and leaves no job and no version."""

import uuid

import grpc
import pytest

from rowmint.client import RowmintCallError
from rowmint.errors import TrainingFailedError
from rowmint.v1 import model_admin_service_pb2, model_service_pb2, schema_pb2, training_job_pb2, training_service_pb2
from rowmint.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from rowmint.v1.model_service_pb2_grpc import ModelServiceStub
from rowmint.v1.training_service_pb2_grpc import TrainingServiceStub
from tests.acceptance.conftest import Fitted
from tests.acceptance.processes import Services
from tests.acceptance.refusals import refused

PROJECT = "projects/bad-input"
INVALID = ("INVALID_ARGUMENT", "INVALID_FIELD")
NOT_FOUND = ("NOT_FOUND", "RESOURCE_NOT_FOUND")

Config = training_job_pb2.TrainingConfig
Ctgan = training_job_pb2.CtganConfig
Override = training_job_pb2.ColumnOverride
Tvae = training_job_pb2.TvaeConfig
Alias = model_admin_service_pb2.SetModelAliasRequest


@pytest.fixture(scope="module")
def channel(shared_services: Services):
    with grpc.insecure_channel(shared_services.started[0].address) as found:
        yield found


@pytest.fixture(scope="module")
def create(channel):
    return TrainingServiceStub(channel).CreateTrainingJob


@pytest.fixture(scope="module")
def tiny(fitted: Fitted) -> str:
    """A dataset of three rows."""
    return fitted.client.upload(b"a,b\n1,x\n2,y\n3,x\n", "tiny", format="csv").name


def independent(*overrides, **settings) -> Config:
    return Config(independent=training_job_pb2.IndependentConfig(), column_overrides=overrides, **settings)


def request(fitted, config, model="never", **wrong) -> training_service_pb2.CreateTrainingJobRequest:
    job = {"dataset": fitted.dataset, "model": f"{PROJECT}/models/{model}", "config": config}
    own = {name: wrong.pop(name) for name in ("dataset", "model") if name in wrong}
    return training_service_pb2.CreateTrainingJobRequest(
        **{"parent": PROJECT, "training_job": training_job_pb2.TrainingJob(**{**job, **own}), **wrong}
    )


def refused_job(create, fitted, requested):
    """Ask for a job that must be refused, with and without `validate_only`; no job and no model may come of it."""
    before = [job.name for job in fitted.client.list_jobs()]
    refusal = refused(create, requested)
    requested.validate_only = True
    assert refused(create, requested) == refusal
    assert [job.name for job in fitted.client.list_jobs()] == before
    with pytest.raises(RowmintCallError, match="there is no"):
        fitted.client.get_model("never")
    return refusal


@pytest.mark.parametrize(
    ("config", "field", "words"),
    [
        (Config(), "family", "set one of circuit, ctgan, tvae, independent, auto"),
        (Config(ctgan=Ctgan(batch_size=500, pac=7)), "ctgan.batch_size", "must be divisible by pac, which is 7"),
        (Config(ctgan=Ctgan(batch_size=25, pac=5)), "ctgan.batch_size", "is 25; must be even"),
        (Config(ctgan=Ctgan(epochs=0)), "ctgan.epochs", "is 0; must be 1 to 100,000"),
        (Config(tvae=Tvae(epochs=0)), "tvae.epochs", "is 0; must be 1 to 100,000"),
        (Config(ctgan=Ctgan(generator_dim=[64, 0])), "ctgan.generator_dim[1]", "is 0"),
        (Config(tvae=Tvae(learning_rate=float("nan"))), "tvae.learning_rate", "is nan"),
        (independent(threads=0), "threads", "is 0; must be 1 to 256"),
        (independent(device=9), "device", "9 is not a value"),
        (independent(holdout_fraction=0.7), "holdout_fraction", "is 0.7; must be 0 to 0.5"),
        (independent(primary_key="income"), "primary_key", "'income' is double"),
        (independent(Override(kind=schema_pb2.COLUMN_KIND_ID)), "column_overrides[0].column", "is required"),
        (
            independent(Override(column="age"), Override(column="age")),
            "column_overrides[1].column",
            "'age' is given more than once",
        ),
        (
            independent(Override(column="age"), Override(column="city", kind=schema_pb2.COLUMN_KIND_NUMERICAL)),
            "column_overrides[1].kind",
            "'city' is string and cannot be numerical; it can be categorical, id, ignored",
        ),
        (
            independent(Override(column="age", max_categories=9)),
            "column_overrides[0].max_categories",
            "'age' is numerical; only a categorical column has categories",
        ),
        (independent(Override(column="city", max_modes=3)), "column_overrides[0].max_modes", "only an ordered column"),
        (independent(Override(column="city", max_categories=0)), "column_overrides[0].max_categories", "is 0"),
        (
            independent(Override(column="city", max_categories=5, high_cardinality=3)),
            "column_overrides[0].high_cardinality",
            "column 'city' has 6 values or more, the limit is 5; raise max_categories",
        ),
        (
            independent(Override(column="customer", kind=schema_pb2.COLUMN_KIND_NUMERICAL)),
            "primary_key",
            "'customer' is the primary key and cannot be numerical",
        ),
    ],
)
def test_a_configuration_that_cannot_be(create, fitted, config, field, words):
    refusal = refused_job(create, fitted, request(fitted, config))
    assert refusal.kind == INVALID
    assert refusal.fields == [f"training_job.config.{field}"]
    assert refusal.message.startswith(f"training_job.config.{field}: ")
    assert words in refusal.message


@pytest.mark.parametrize(
    ("config", "column", "near"),
    [
        (independent(Override(column="ciyt")), "ciyt", "city"),
        (independent(primary_key="custmer"), "custmer", "customer"),
    ],
)
def test_an_unknown_column_is_refused_with_similar_names(create, fitted, config, column, near):
    refusal = refused_job(create, fitted, request(fitted, config))
    assert refusal.kind == ("INVALID_ARGUMENT", "COLUMN_NOT_FOUND")
    assert refusal.metadata == {"column": column, "near": near}
    assert refusal.message == f"there is no column {column!r}; did you mean {near!r}?"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(ctgan=Ctgan()), "has 3 rows; ctgan needs at least 10"),
        (independent(holdout_fraction=0.5), "has 3 rows, of which 1 are for training; independent needs at least 2"),
    ],
)
def test_too_few_rows(create, fitted, tiny, config, words):
    refusal = refused_job(create, fitted, request(fitted, config, dataset=tiny))
    assert (refusal.kind, refusal.fields) == (INVALID, ["training_job.dataset"])
    assert words in refusal.message


def test_no_column_left_to_model(create, fitted, tiny):
    ignored = [Override(column=name, kind=schema_pb2.COLUMN_KIND_IGNORED) for name in "ab"]
    refusal = refused_job(create, fitted, request(fitted, independent(*ignored), dataset=tiny))
    assert (refusal.kind, refusal.fields) == (INVALID, ["training_job.config.column_overrides"])


@pytest.mark.parametrize(
    ("wrong", "kind", "field"),
    [
        ({"parent": "bad-input"}, INVALID, "parent"),
        ({"parent": "projects/other"}, INVALID, "training_job"),
        ({"training_job_id": "Job 1"}, INVALID, "training_job_id"),
        ({"request_id": "once"}, INVALID, "request_id"),
        ({"dataset": ""}, INVALID, "training_job.dataset"),
        ({"dataset": "customers"}, INVALID, "training_job.dataset"),
        ({"dataset": f"{PROJECT}/datasets/none"}, NOT_FOUND, None),
        ({"model": ""}, INVALID, "training_job.model"),
        ({"model": f"{PROJECT}/models/never@latest"}, INVALID, "training_job.model"),
        ({"model": f"{PROJECT}/models/never/versions/1"}, INVALID, "training_job.model"),
    ],
)
def test_names_and_ids_of_a_job(create, fitted, wrong, kind, field):
    refusal = refused_job(create, fitted, request(fitted, independent(), **wrong))
    assert refusal.kind == kind
    assert refusal.fields == ([] if field is None else [field])
    if field is None:
        assert refusal.metadata == {"name": wrong["dataset"]}


def test_a_job_waits_for_a_finished_dataset(create, fitted):
    name = fitted.client.create_dataset(format="csv").name
    requested = request(fitted, independent(), dataset=name)
    refusal = refused_job(create, fitted, requested)
    assert refusal.kind == ("FAILED_PRECONDITION", "WRONG_STATE")
    assert refusal.metadata == {"state": "UPLOADING"}
    assert f"{name} is UPLOADING; a job needs it READY: finish the upload" in refusal.message
    fitted.client.delete_dataset(name)


def test_a_job_that_fails_says_why_and_publishes_nothing(create, fitted):
    # Whether few enough values are left for training is seen only by the worker, which holds the rows.
    refuse = Override(column="city", max_categories=2, high_cardinality=3)
    job = create(request(fitted, independent(refuse, holdout_fraction=0.1))).training_job
    with pytest.raises(TrainingFailedError, match="column 'city' has 6 values, the limit is 2; raise max_categories"):
        fitted.client.wait_job(job)
    failed = fitted.client.get_job(job.name)
    assert (failed.state, failed.error.reason) == (training_job_pb2.JOB_STATE_FAILED, "INVALID_FIELD")
    assert not failed.model_version
    with pytest.raises(RowmintCallError, match="there is no"):
        fitted.client.get_model("never")


def test_a_repeated_request_is_one_job_and_another_body_is_refused(create, fitted):
    # No seed is set: the one drawn for the first answer stays.
    requested = request(fitted, independent(), model="repeated", request_id=str(uuid.uuid4()))
    job = create(requested).training_job
    again = create(requested).training_job
    assert (again.name, again.config) == (job.name, job.config)
    before = [job.name for job in fitted.client.list_jobs()]
    for change in ({"threads": 3}, {"seed": job.config.seed}):
        other = request(fitted, independent(**change), model="repeated", request_id=requested.request_id)
        refusal = refused(create, other)
        assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
        assert requested.request_id in refusal.message
    taken = request(fitted, independent(), training_job_id=job.name.rsplit("/", 1)[1])
    exists = refused(create, taken)
    assert (exists.kind, exists.metadata) == (("ALREADY_EXISTS", "RESOURCE_EXISTS"), {"name": job.name})
    assert [job.name for job in fitted.client.list_jobs()] == before
    done = fitted.client.wait_job(job)
    assert done.model_version == f"{PROJECT}/models/repeated/versions/1"
    assert len(list(fitted.client.list_versions("repeated"))) == 1


def test_jobs_that_are_not_there_or_have_ended(channel, fitted):
    stub = TrainingServiceStub(channel)
    name = f"{PROJECT}/trainingJobs/none"
    ended = fitted.client.get_version(fitted.version).training_job
    calls = [
        (stub.GetTrainingJob, training_service_pb2.GetTrainingJobRequest),
        (stub.CancelTrainingJob, training_service_pb2.CancelTrainingJobRequest),
        (lambda requested: list(stub.WatchTrainingJob(requested)), training_service_pb2.WatchTrainingJobRequest),
    ]
    for call, requested in calls:
        missing = refused(call, requested(name=name))
        assert (missing.kind, missing.metadata) == (NOT_FOUND, {"name": name})
        malformed = refused(call, requested(name=f"{PROJECT}/jobs/none"))
        assert (malformed.kind, malformed.fields) == (INVALID, ["name"])
    negative = refused(calls[2][0], training_service_pb2.WatchTrainingJobRequest(name=ended, after_sequence=-1))
    assert (negative.kind, negative.fields) == (INVALID, ["after_sequence"])
    late = refused(stub.CancelTrainingJob, training_service_pb2.CancelTrainingJobRequest(name=ended))
    assert (late.kind, late.metadata) == (("FAILED_PRECONDITION", "WRONG_STATE"), {"state": "SUCCEEDED"})


CUSTOMERS = f"{PROJECT}/models/customers"


@pytest.mark.parametrize(
    ("requested", "kind", "fields", "words"),
    [
        (Alias(model=CUSTOMERS, alias="latest", version=1), INVALID, ["alias"], "moved by publishing only"),
        (Alias(model=CUSTOMERS, alias="latest"), INVALID, ["alias"], "moved by publishing only"),
        (Alias(model=CUSTOMERS, alias="Best!", version=1), INVALID, ["alias"], "'Best!' is not an id"),
        (Alias(model=CUSTOMERS, version=1), INVALID, ["alias"], "'' is not an id"),
        (Alias(model=f"{CUSTOMERS}@latest", alias="best", version=1), INVALID, ["model"], "is not of the form"),
        (Alias(model=CUSTOMERS, alias="best", version=77), NOT_FOUND, [], f"there is no {CUSTOMERS}/versions/77"),
        (Alias(model=CUSTOMERS, alias="best", version=0), NOT_FOUND, [], f"there is no {CUSTOMERS}/versions/0"),
        (Alias(model=f"{PROJECT}/models/none", alias="best", version=1), NOT_FOUND, [], "there is no projects/"),
    ],
)
def test_an_alias_that_cannot_be_set(channel, fitted, *, requested, kind, fields, words):
    refusal = refused(ModelAdminServiceStub(channel).SetModelAlias, requested)
    assert (refusal.kind, refusal.fields) == (kind, fields)
    assert words in refusal.message
    assert dict(fitted.client.get_model("customers").aliases) == {"latest": 1}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{CUSTOMERS}@latest", INVALID),
        (f"{CUSTOMERS}@sha256:{'0' * 64}", INVALID),
        (CUSTOMERS, INVALID),
        (f"{CUSTOMERS}/versions/0", INVALID),
        (f"{CUSTOMERS}/versions/2", NOT_FOUND),
    ],
)
def test_a_version_is_deleted_by_its_number_only(channel, fitted, name, kind):
    requested = model_admin_service_pb2.DeleteModelVersionRequest(name=name)
    refusal = refused(ModelAdminServiceStub(channel).DeleteModelVersion, requested)
    assert refusal.kind == kind
    assert refusal.fields == (["name"] if kind == INVALID else [])
    assert name in refusal.message
    assert fitted.client.get_version("customers").name == fitted.version


def test_a_version_with_an_alias_is_not_deleted(channel, fitted):
    fitted.client.set_alias("customers", "kept", 1)
    requested = model_admin_service_pb2.DeleteModelVersionRequest(name=fitted.version)
    refusal = refused(ModelAdminServiceStub(channel).DeleteModelVersion, requested)
    assert (refusal.kind, refusal.metadata) == (("FAILED_PRECONDITION", "WRONG_STATE"), {"aliases": "kept"})
    assert "move or remove it first" in refusal.message
    fitted.client.set_alias("customers", "kept", None)
    assert fitted.client.get_version("customers").name == fitted.version


@pytest.mark.parametrize("service", [0, 1])
@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("customers", INVALID, "is not of the form"),
        (f"{CUSTOMERS}/versions/0", INVALID, "is not of the form"),
        (f"{CUSTOMERS}@sha256:12", INVALID, "64 hex digits"),
        (f"{CUSTOMERS}/versions/2", NOT_FOUND, "there is no"),
        (f"{CUSTOMERS}@best", NOT_FOUND, "has no alias 'best'; its aliases: "),
        (f"{CUSTOMERS}@sha256:{'0' * 64}", NOT_FOUND, "there is no"),
        (f"{PROJECT}/models/none", NOT_FOUND, "there is no"),
    ],
)
def test_a_version_that_is_not_there(shared_services, fitted, name, kind, words, *, service):
    with grpc.insecure_channel(shared_services.started[service].address) as channel:
        stub = ModelServiceStub(channel)
        refusal = refused(stub.GetModelVersion, model_service_pb2.GetModelVersionRequest(name=name))
    assert refusal.kind == kind
    assert refusal.fields == (["name"] if kind == INVALID else [])
    assert name in refusal.message.replace(" has no alias 'best'", "@best")
    assert words in refusal.message


def test_pages_that_cannot_be(channel, fitted):
    jobs, models = TrainingServiceStub(channel), ModelServiceStub(channel)
    fine = jobs.ListTrainingJobs(training_service_pb2.ListTrainingJobsRequest(parent=PROJECT, page_size=1000))
    assert fine.training_jobs
    lists = [
        (jobs.ListTrainingJobs, training_service_pb2.ListTrainingJobsRequest, PROJECT),
        (models.ListModels, model_service_pb2.ListModelsRequest, PROJECT),
        (models.ListModelVersions, model_service_pb2.ListModelVersionsRequest, CUSTOMERS),
    ]
    for call, requested, parent in lists:
        for wrong in ({"page_size": 0}, {"page_size": 1001}, {"page_token": "x"}, {"parent": "?"}):
            refusal = refused(call, requested(**{"parent": parent, **wrong}))
            assert (refusal.kind, refusal.fields) == (INVALID, list(wrong))
