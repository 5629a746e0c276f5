"""The kinds of jobs: what is special to each, in one place. The ledger itself knows none of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from rowmint.errors import DataProblem
from rowmint.names import IngestJobName, TrainingJobName
from rowmint.registry.datasets import fail_dataset
from rowmint.registry.job_rows import JobKind, published_version

JobName = IngestJobName | TrainingJobName


@dataclass(frozen=True)
class KindRules:
    """What is special to a kind of job.

    Attributes:
        name: Class of its name.
        made: Given a transaction and a job's uid, returns the job's outputs where it is done although its row does not
            say so, else None.
        fail: Given a transaction, the row of a job and its error, lets what belongs to the job fail with it.
    """

    name: type[JobName]
    made: Callable[[Connection, str], Mapping[str, Any] | None] = lambda _, __: None
    fail: Callable[[Connection, Row[Any], Mapping[str, str]], None] = lambda _, __, ___: None


def _published(connection: Connection, uid: str) -> Mapping[str, Any] | None:
    version = published_version(connection, uid)
    return None if version is None else {"model_version": version}


def _fail_dataset(connection: Connection, row: Row[Any], error: Mapping[str, str]) -> None:
    fail_dataset(connection, row.dataset_uid, [DataProblem(error["message"])])


RULES: Mapping[JobKind, KindRules] = {
    JobKind.INGEST: KindRules(IngestJobName, fail=_fail_dataset),
    JobKind.TRAIN: KindRules(TrainingJobName, made=_published),
}

_KINDS = {rules.name: kind for kind, rules in RULES.items()}


def job_name(kind: JobKind, project: str, job_id: str) -> JobName:
    """Return the name of a job of a kind."""
    return RULES[kind].name(project, job_id)


def kind_of(name: JobName) -> JobKind:
    """Return the kind of the job that has this name."""
    return _KINDS[type(name)]
