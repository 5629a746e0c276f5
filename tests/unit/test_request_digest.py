"""Digests by which repeated creates are recognised: frozen, the same with every library, and those of old releases."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from rowmint.rpc.request_digest import request_digest
from rowmint.v1 import dataset_service_pb2, training_job_pb2, training_service_pb2, value_pb2
from trainer_service.converters.request_digests import (
    IGNORED_OF_DATASETS,
    IGNORED_OF_JOBS,
    dataset_digests,
    job_digests,
)

ROOT = Path(__file__).parents[2]

PLAIN = 'parent: "projects/p" dataset_id: "d" dataset { format { csv {} } }'
CELLS = """
parent: "projects/p"
request_id: "11111111-1111-1111-1111-111111111111"
dataset {
  name: "x"
  state: DATASET_STATE_READY
  format { csv { delimiter: ";" quote: "'" encoding: "latin-1" null_values: "" null_values: "NA" } }
  column_overrides {
    name: "c"
    kind: COLUMN_KIND_CATEGORICAL
    domain {
      categories { string_value: "x" }
      categories { int64_value: -1 }
      categories { bool_value: true }
      categories { double_value: 0.1 }
      categories { decimal_value: "-12.50" }
      categories { date_value: "2020-01-31" }
      categories { timestamp_value: "2013-01-01T05:00:00" }
      categories { timestamp_value: "2013-01-01T05:00:00.25Z" }
      categories { null_value: true }
      nullable: false
    }
  }
  column_overrides {
    name: "n"
    kind: COLUMN_KIND_NUMERICAL
    data_type: DATA_TYPE_DOUBLE
    domain { minimum { int64_value: 0 } maximum { double_value: 1e300 } decimals: 0 }
  }
}
"""
# What the release before request_digest.py kept in the registry, computed by its own code.
FORMER_DATASETS = {
    PLAIN: "0e2be38a66b275d5c0d6a7b6a310bbdaf1cc3d5c47ce76e0b233bebfbf485623",
    'parent: "projects/p" dataset { format { json {} } primary_key: "k" }': (
        "09fd861f3d457b18bca0549449005963823e7192bf6f95ed84bd123da17ee900"
    ),
    """parent: "projects/p" dataset { format { parquet {} } column_overrides {
    name: "a" kind: COLUMN_KIND_ID data_type: DATA_TYPE_STRING id_pattern: "N[0-9]{5}" } }""": (
        "55dbe435f699d7569b7c8a5c0d827702959fdce59d2b125f8f3afb474166f0ea"
    ),
    """parent: "projects/p" dataset { format { arrow_stream {} } column_overrides { name: "caf\\303\\251's" }
    column_overrides {
    name: "t" kind: COLUMN_KIND_DATETIME datetime_format: "%d/%m/%Y" time_zone: "UTC" } }""": (
        "7a8e2db38c89aac91e0f76fd6cd992202c5bc69567c37daf7755053268043ad5"
    ),
    CELLS: "056f977f75a81cc8e18366aa490153396b0b291089ad1f8ebbb776029489c24a",
}
JOB = """
parent: "projects/p"
training_job_id: "j"
request_id: "u"
training_job {
  name: "n"
  dataset: "projects/p/datasets/d"
  model: "projects/p/models/m"
  config { independent {} }
  state: JOB_STATE_RUNNING
}
"""
FORMER_JOBS = {
    JOB: "4d94bfc9fd45f06196536b43f0875b3095177815971e092ac29bacfab70673e9",
    """parent: "projects/p" training_job {
    dataset: "projects/p/datasets/d" model: "projects/p/models/m" staged: true
    config {
      ctgan { epochs: 3 generator_dim: 64 generator_dim: 32 generator_lr: 2e-4 log_frequency: false }
      seed: 18446744073709551615 device: DEVICE_CPU threads: 2 holdout_fraction: 0.0 primary_key: "" keep_best: false
      column_overrides { column: "a" high_cardinality: HIGH_CARDINALITY_OTHER max_categories: 7 }
    } }""": "cfada3b5d94328535821d28000bfaeec74031540a0a028944bd2b29c41caa10b",
}


def dataset(text: str) -> dataset_service_pb2.CreateDatasetRequest:
    return text_format.Parse(text, dataset_service_pb2.CreateDatasetRequest())


def job(text: str) -> training_service_pb2.CreateTrainingJobRequest:
    return text_format.Parse(text, training_service_pb2.CreateTrainingJobRequest())


@pytest.mark.parametrize(("text", "digest"), FORMER_DATASETS.items())
def test_a_dataset_of_the_release_before_is_recognised(text: str, digest: str):
    assert dataset_digests(dataset(text))[1].hex() == digest


@pytest.mark.parametrize(("text", "digest"), FORMER_JOBS.items())
def test_a_job_of_the_release_before_is_recognised(text: str, digest: str):
    assert job_digests(job(text))[1].hex() == digest


@pytest.mark.parametrize(
    "addition",
    [
        "dataset { no_primary_key: true }",
        "dataset { infinite: INFINITE_POLICY_MISSING }",
        'dataset { format { csv { comment: "#" } } }',
        "dataset { format { json { orient: JSON_ORIENT_SPLIT } } }",
        "dataset { format { arrow_file {} } }",
        'dataset { column_overrides { name: "c" null_values: "-" } }',
        'dataset { column_overrides { name: "c" written_form { pad_width: 3 } } }',
    ],
)
def test_what_the_release_before_could_not_read_is_another_request(addition: str):
    changed = dataset(PLAIN)
    text_format.Merge(addition, changed)
    (digest,) = dataset_digests(changed)
    assert digest not in dataset_digests(dataset(PLAIN))


FROZEN = {
    PLAIN: "619b3df7b754ac421f4af6aafe279cfac7512f9f39760b35c6495c78a6503db8",
    CELLS: "4b74ded90702334eba6a5101b5d461261f647d43ab1895439b4e5d9ef0f6117d",
    JOB: "648a5ced2a94659a6a954937ab0925a7f25f60f6f5a03273345bf06568ead2de",
}


def digests() -> list[str]:
    """Return the digests of the requests in `FROZEN`, in order."""
    return [dataset_digests(dataset(text))[0].hex() for text in (PLAIN, CELLS)] + [job_digests(job(JOB))[0].hex()]


def test_the_digests_are_frozen():
    assert digests() == list(FROZEN.values())


def test_every_implementation_of_protobuf_gives_the_same_digests():
    program = "from tests.unit.test_request_digest import digests; print(*digests())"
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(FROZEN.values())


def test_what_does_not_count_changes_nothing():
    one, other = dataset(PLAIN), dataset(PLAIN)
    other.request_id, other.dataset.name, other.dataset.row_count = "r", "projects/p/datasets/d", 7
    other.dataset.create_time.seconds = 1
    other.dataset.errors.add(message="m")
    assert dataset_digests(one) == dataset_digests(other)
    train, again = job(JOB), job(JOB)
    again.request_id, again.training_job.attempt, again.training_job.model_version = "r", 3, "v"
    again.training_job.progress.losses["loss"] = 1.5
    assert job_digests(train) == job_digests(again)


def output_only(file: str, message: str) -> set[str]:
    """Return the fields of a message that clients do not set, by the comments of its proto."""
    text = (ROOT / "protos" / "rowmint" / "v1" / file).read_text(encoding="utf-8")
    (body,) = re.findall(rf"^message {message} {{\n(.*?)^}}", text, re.MULTILINE | re.DOTALL)
    fields = re.findall(r"((?:  //.*\n)+)  (?:repeated |optional )?[\w.]+ (\w+) = ", body)
    return {name for comment, name in fields if "Output only." in comment or "Resource name" in comment}


def test_exactly_the_output_of_the_service_is_left_out():
    of_datasets = {f"dataset.{name}" for name in output_only("dataset.proto", "Dataset")}
    assert of_datasets | {"request_id"} == IGNORED_OF_DATASETS
    of_jobs = {f"training_job.{name}" for name in output_only("training_job.proto", "TrainingJob")}
    assert of_jobs | {"request_id"} == IGNORED_OF_JOBS


def message_class(*numbers: int) -> Any:
    """Return a message type, always of one name, with an integer field of each number."""
    file = FileDescriptorProto(name="later.proto", package="later", syntax="proto3")
    message = file.message_type.add(name="Request")
    for number in numbers:
        message.field.add(
            name=f"field_{number}",
            number=number,
            type=FieldDescriptorProto.TYPE_INT64,
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("later.Request"))


def test_a_field_that_a_later_release_adds_counts_once_it_is_set():
    today, later = message_class(1), message_class(1, 2)
    assert request_digest(today(field_1=5)) == request_digest(later(field_1=5))
    assert request_digest(today(field_1=5)) != request_digest(later(field_1=5, field_2=1))
    newer = later(field_1=5, field_2=1).SerializeToString()
    assert request_digest(today.FromString(newer)) == request_digest(today(field_1=5))


def test_every_kind_of_value_counts():
    progress = training_job_pb2.TrainingProgress
    values = [
        progress(losses={"a": 1.0, "b": 2.0}),
        progress(losses={"a": 2.0, "b": 1.0}),
        progress(losses={"a": -0.0}),
        progress(losses={"a": 0.0}),
        progress(probe={"a": 1.0}),
        progress(epoch=1),
        progress(epochs=1),
        progress(),
    ]
    assert len({request_digest(value) for value in values}) == len(values)
    assert request_digest(progress(losses={"b": 2.0, "a": 1.0})) == request_digest(values[0])
    kinds = [
        value_pb2.Value(int64_value=1),
        value_pb2.Value(bool_value=True),
        value_pb2.Value(string_value="1"),
        value_pb2.Value(double_value=1.0),
    ]
    assert len({request_digest(kind) for kind in kinds}) == len(kinds)
