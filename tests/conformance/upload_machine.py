"""The ledger of datasets, step by step beside a model in memory."""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from rowmint.errors import (
    DataProblem,
    DigestMismatchError,
    FencedError,
    Reason,
    RequestIdReusedError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from rowmint.names import DatasetName
from rowmint.registry import CanonicalTable, DatasetState, JobKind, JobState, SegmentRecord
from rowmint.registry.job_rows import exhausted_error
from rowmint.schema import ColumnKind, ColumnSpec, DataType, TableSchema
from tests.conformance.job_rows_model import ModelJob
from tests.conformance.ledger_machine import LedgerMachine, Opener, pick

SCHEMA = TableSchema((ColumnSpec("a", ColumnKind.NUMERICAL, DataType.INT64),))
NUMBER = st.integers(0, 11)
# Mostly the right one: long runs are made of steps that succeed.
OFF = st.sampled_from([0, 0, 0, 0, -1, 1])
RIGHT = st.sampled_from([True, True, True, False])


@dataclass
class ModelDataset:
    """One dataset as it should be."""

    uid: str
    name: DatasetName
    request: tuple[str, bytes]
    state: DatasetState = DatasetState.UPLOADING
    epoch: int = 0
    segment_count: int = 0
    committed: int = 0
    finished: tuple[int, bytes] | None = None
    table_key: str | None = None
    problems: tuple[str, ...] = ()
    segments: list[SegmentRecord] = field(default_factory=list)
    job: ModelJob | None = None


class UploadMachine(LedgerMachine):
    """Creates, writes, finishes, ingests and deletes, in any order and by the current or an earlier attempt."""

    def __init__(self, opener: Opener) -> None:
        super().__init__(opener)
        self.datasets: dict[DatasetName, ModelDataset] = {}
        self.known: list[ModelDataset] = []

    def some(self, number: int) -> ModelDataset:
        """Return a dataset that there is or was."""
        return pick(self.known, number)

    def exists(self, dataset: ModelDataset) -> bool:
        return self.datasets.get(dataset.name) is dataset

    @rule(name=st.sampled_from("abc"), request=st.sampled_from(["", "", "r", "s"]), body=st.sampled_from([b"1", b"2"]))
    def create(self, name, request, body):
        full, digest = DatasetName("p", name), body * 32
        earlier = [other for other in self.datasets.values() if request and other.request[0] == request]

        def call():
            return self.registry.datasets.create(
                "p", name, data_format={"csv": {}}, request_id=request, request_digest=digest
            )

        if earlier and earlier[0].request[1] != digest:
            self.refused(RequestIdReusedError, call)
        elif earlier:
            assert call().uid == earlier[0].uid
        elif full in self.datasets:
            self.refused(ResourceExistsError, call)
        else:
            made = ModelDataset(call().uid, full, (request, digest))
            self.datasets[full] = made
            self.known.append(made)

    @precondition(lambda self: self.known)
    @rule(number=NUMBER)
    def take_writer(self, number):
        dataset = self.some(number)
        found = self.datasets.get(dataset.name)
        if found is None:
            self.refused(ResourceNotFoundError, lambda: self.registry.datasets.take_writer(dataset.name))
            return
        found.epoch += found.state is DatasetState.UPLOADING
        assert self.registry.datasets.take_writer(dataset.name).writer_epoch == found.epoch

    @precondition(lambda self: self.known)
    @rule(number=NUMBER, epoch=OFF, index=OFF, offset=OFF, size=st.integers(1, 9))
    def commit_segment(self, number, epoch, index, offset, size):
        dataset = self.some(number)
        segment = SegmentRecord(
            dataset.segment_count + index,
            dataset.committed + offset,
            size,
            bytes([size]) * 32,
            self.new_key("raw"),
        )

        def call():
            return self.registry.datasets.commit_segment(dataset.uid, dataset.epoch + epoch, segment)

        writable = self.exists(dataset) and dataset.state is DatasetState.UPLOADING
        if not writable or (epoch, index, offset) != (0, 0, 0):
            self.refused(FencedError, call)
            return
        dataset.segments.append(segment)
        dataset.segment_count += 1
        dataset.committed += size
        assert call() == dataset.committed

    @precondition(lambda self: self.known)
    @rule(number=NUMBER, epoch=OFF, size=OFF, body=st.sampled_from([b"s", b"s", b"t"]))
    def finish(self, number, epoch, size, body):
        dataset = self.some(number)
        total, digest = dataset.committed + size, body * 32

        def call():
            return self.registry.datasets.finish_upload(dataset.uid, dataset.epoch + epoch, total, digest)

        if not self.exists(dataset):
            self.refused(FencedError, call)
        elif dataset.state is not DatasetState.UPLOADING:
            if dataset.finished == (total, digest):
                assert call().state is dataset.state
            else:
                self.refused(DigestMismatchError, call)
        elif epoch:
            self.refused(FencedError, call)
        elif size:
            self.refused(DigestMismatchError, call)
        else:
            assert call().state is DatasetState.INGESTING
            dataset.state, dataset.finished = DatasetState.INGESTING, (total, digest)
            dataset.job = self.jobs[self.last_uid] = ModelJob(self.last_uid, JobKind.INGEST, dataset.uid)

    @rule(holder=st.sampled_from(["v", "w"]))
    def claim(self, holder):
        expected = None
        for job in self.jobs.values():
            if job.waits and job.attempt < job.max_attempts:
                job.take(holder)
                expected = job
                break
            if job.waits:
                error = exhausted_error(job.attempt)
                self.fail(job, error["reason"], error["message"])
        found = self.registry.jobs.claim(holder, 600, (JobKind.INGEST,))
        assert (found and found.uid) == (expected and expected.uid)

    def fail(self, job, reason, *problems):
        """Fail a job as it should be, and its dataset."""
        job.fail(reason, problems[0])
        dataset = next(known for known in self.known if known.job is job)
        dataset.state, dataset.problems = DatasetState.FAILED, problems

    @precondition(lambda self: any(job.state is JobState.RUNNING for job in self.jobs.values()))
    @rule(number=NUMBER)
    def expire_lease(self, number):
        self.let_expire(pick([job for job in self.jobs.values() if job.state is JobState.RUNNING], number))

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF)
    def give_back(self, number, epoch):
        job = pick(self.jobs.values(), number)
        taken = job.epoch + epoch

        def call():
            return self.registry.jobs.release(job.uid, taken)

        if not job.accepts(taken):
            self.refused(FencedError, call)
            return
        call()
        job.state, job.holder, job.expired = JobState.PENDING, "", False
        job.epoch, job.max_attempts = job.epoch + 1, job.max_attempts + 1
        job.note({"message": "given back by a worker that shut down"})

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF)
    def mark_ready(self, number, epoch):
        dataset = pick([known for known in self.known if known.job], number)
        job = dataset.job
        table = CanonicalTable(SCHEMA, {"tables": {}}, 7, self.new_key("table"), 100, b"c" * 32, {})
        taken = job.epoch + epoch

        def call():
            return self.registry.datasets.mark_ready(dataset.uid, job.uid, taken, table)

        if not job.accepts(taken):
            self.refused(FencedError, call)
            return
        raw = tuple(segment.object_key for segment in dataset.segments)
        assert call() == raw
        self.data_garbage |= set(raw)
        dataset.segments, dataset.state, dataset.table_key = [], DatasetState.READY, table.object_key
        job.end(JobState.SUCCEEDED)

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF, problems=st.sampled_from([("row 1",), ("row 1", "row 2")]))
    def mark_failed(self, number, epoch, problems):
        dataset = pick([known for known in self.known if known.job], number)
        job = dataset.job
        taken = job.epoch + epoch

        def call():
            found = [DataProblem(problem) for problem in problems]
            self.registry.datasets.mark_failed(dataset.uid, job.uid, taken, found)

        if not job.accepts(taken):
            self.refused(FencedError, call)
            return
        call()
        self.fail(job, "INVALID_DATA", *problems)

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF)
    def fail_job(self, number, epoch):
        job = pick(self.jobs.values(), number)
        taken = job.epoch + epoch

        def call():
            self.registry.jobs.fail(job.uid, taken, Reason.DATA_LOSS, "an object is missing")

        if not job.accepts(taken):
            self.refused(FencedError, call)
            return
        call()
        self.fail(job, "DATA_LOSS", "an object is missing")

    @precondition(lambda self: self.known)
    @rule(number=NUMBER)
    def delete(self, number):
        dataset = self.some(number)
        found = self.datasets.pop(dataset.name, None)

        def call():
            return self.registry.datasets.delete(dataset.name)

        if found is None:
            self.refused(ResourceNotFoundError, call)
            return
        keys = [segment.object_key for segment in found.segments]
        keys += [found.table_key] if found.table_key else []
        assert call() == tuple(keys)
        self.data_garbage |= set(keys)
        if found.job and not found.job.state.ended:
            found.job.end(JobState.CANCELLED)

    @rule(idle=st.sampled_from([0.0, 3600.0, 3600.0]))
    def expire_uploads(self, idle):
        waiting = [dataset for dataset in self.datasets.values() if dataset.state is DatasetState.UPLOADING]
        expired = waiting if idle == 0 else []
        assert self.registry.datasets.expire(idle) == len(expired)
        for dataset in expired:
            self.data_garbage |= {segment.object_key for segment in dataset.segments}
            problem = self.registry.datasets.get(dataset.name).errors[0].message
            assert problem.startswith(f"the upload was abandoned: {dataset.committed} bytes were received")
            dataset.state, dataset.problems = DatasetState.FAILED, (problem,)
            dataset.segments, dataset.segment_count, dataset.committed = [], 0, 0

    @precondition(lambda self: self.data_garbage)
    @rule(number=NUMBER)
    def forget(self, number):
        key = pick(sorted(self.data_garbage), number)
        self.registry.datasets.forget([key, "never/there"])
        self.data_garbage.remove(key)

    @invariant()
    def every_dataset_is_as_it_should_be(self):
        found = self.registry.datasets.list("p").items
        assert [(record.create_time, record.uid) for record in found] == sorted(
            ((record.create_time, record.uid) for record in found), reverse=True
        )
        assert sorted(record.uid for record in found) == sorted(dataset.uid for dataset in self.datasets.values())
        for record in found:
            dataset = self.datasets[record.name]
            assert (
                record.uid,
                record.state,
                record.writer_epoch,
                record.segment_count,
                record.committed_size,
                (record.total_size, record.sha256),
                record.canonical_key,
                tuple(problem.message for problem in record.errors),
            ) == (
                dataset.uid,
                dataset.state,
                dataset.epoch,
                dataset.segment_count,
                dataset.committed,
                dataset.finished or (None, None),
                dataset.table_key,
                dataset.problems,
            )
            assert self.registry.datasets.segments(record.uid) == tuple(dataset.segments)

    @invariant()
    def every_ingest_is_as_it_should_be(self):
        for job in self.jobs.values():
            job.check(self.registry.jobs.get_by_uid(job.uid))

    @invariant()
    def garbage_is_what_nothing_refers_to_any_more(self):
        self.check_data_garbage()
