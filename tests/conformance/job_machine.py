"""The ledgers of training jobs and of models, step by step beside a model in memory."""

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from rowmint.errors import (
    CancelledError,
    FencedError,
    Reason,
    RequestIdReusedError,
    ResourceExistsError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.names import DatasetName, ModelName, ModelVersionName, TrainingJobName
from rowmint.registry import (
    CanonicalTable,
    CheckpointRecord,
    JobKind,
    JobState,
    ModelVersionRecord,
    NewVersion,
    VersionState,
)
from rowmint.registry.job_rows import MAX_ATTEMPTS, exhausted_error
from tests.conformance.job_rows_model import ALIVE, ModelJob
from tests.conformance.ledger_machine import LedgerMachine, Opener, pick
from tests.conformance.registries import new_version
from tests.conformance.upload_machine import NUMBER, OFF, SCHEMA

PROJECTS = ("p", "q")
MODELS = (ModelName("p", "m"), ModelName("p", "n"))
PHASES = ["fetching", "encoding", "fitting", "publishing", "reading"]


@dataclass
class ModelTrain(ModelJob):
    """One training job as it should be.

    Attributes:
        project: Its project.
        name: Last part of its name.
        request: Its request_id and the digest of the request.
        model: What it publishes to.
        published: The version it has published, if any, and whether it was purged since.
    """

    project: str = "p"
    name: str = ""
    request: tuple[str, bytes] = ("", b"")
    model: ModelName = MODELS[0]
    published: ModelVersionRecord | None = None


class JobMachine(LedgerMachine):
    """Creates, claims, works, cancels, publishes, decides and deletes, in any order, by past and present attempts."""

    def __init__(self, opener: Opener) -> None:
        super().__init__(opener)
        self.datasets: dict[str, str] = {}
        self.gone: dict[str, str] = {}
        self.jobs: dict[str, ModelTrain] = {}
        # Projects by when a job of theirs was last claimed, the first being the longest ago.
        self.turns: list[str] = []
        # By number; of a model's versions in whatever state, those that are there, and those deleted with whether they
        # are due.
        self.visible: dict[ModelName, dict[int, ModelVersionRecord]] = {model: {} for model in MODELS}
        self.deleted: dict[ModelName, dict[int, tuple[ModelVersionRecord, bool]]] = {model: {} for model in MODELS}
        self.last: dict[ModelName, int] = {}
        self.models_garbage: set[str] = set()

    @initialize()
    def make_datasets(self):
        for name in "ab":
            uid = self.registry.datasets.create("p", name, data_format={}).uid
            self.registry.datasets.take_writer(DatasetName("p", name))
            self.registry.datasets.finish_upload(uid, 1, 0, b"s" * 32)
            job = self.registry.jobs.claim("w", 600, (JobKind.INGEST,))
            table = CanonicalTable(SCHEMA, {}, 7, f"table/{name}", 1, b"c" * 32, {})
            self.registry.datasets.mark_ready(uid, job.uid, job.epoch, table)
            self.datasets[name] = uid

    def worked_on(self):
        """Some jobs, those at work before others."""
        alive = [job for job in self.jobs.values() if job.state in ALIVE]
        return alive * 3 + list(self.jobs.values())

    @rule(
        project=st.sampled_from(PROJECTS),
        name=st.sampled_from(["", "i", "j", "k"]),
        dataset=st.sampled_from("aab"),
        model=st.sampled_from(MODELS),
        request=st.sampled_from(["", "", "r", "s"]),
        body=st.sampled_from([b"1", b"1", b"2"]),
        number=NUMBER,
        is_part=st.booleans(),
    )
    def create(self, *, project, name, dataset, model, request, body, number, is_part):
        digest = body * 32
        of_project = [job for job in self.jobs.values() if job.project == project]
        earlier = [job for job in of_project if request and job.request[0] == request]
        uid = self.datasets.get(dataset) or self.gone[dataset]
        parent = pick(self.worked_on(), number) if is_part and self.jobs else None

        def call():
            return self.registry.jobs.create(
                JobKind.TRAIN,
                project,
                name,
                inputs={"dataset": f"projects/p/datasets/{dataset}", "model": str(model)},
                config={"x": 1},
                dataset_uid=uid,
                parent=parent and parent.uid,
                request_id=request,
                request_digest=digest,
            )

        if earlier and earlier[0].request[1] != digest:
            self.refused(RequestIdReusedError, call)
        elif earlier:
            assert call().uid == earlier[0].uid
        elif parent and parent.cancel_requested:
            self.refused(CancelledError, call)
        elif parent and parent.state.ended:
            self.refused(WrongStateError, call)
        elif dataset in self.gone:
            self.refused(ResourceNotFoundError, call)
        elif name and any(job.name == name for job in of_project):
            self.refused(ResourceExistsError, call)
        else:
            record = call()
            assert record.uid == self.last_uid
            self.jobs[record.uid] = ModelTrain(
                record.uid,
                JobKind.TRAIN,
                uid,
                parent_uid=parent and parent.uid,
                project=project,
                name=name or f"job-{record.uid[:12]}",
                request=(request, digest),
                model=model,
            )
            assert record.name.job == self.jobs[record.uid].name

    def next_to_claim(self, limit):
        """The job whose turn it is, or None."""

        def claimed(project):
            return [job for job in self.jobs.values() if job.project == project and job.state in ALIVE]

        def rank(job):
            alive = sum(not found.expired for found in claimed(job.project))
            turn = self.turns.index(job.project) if job.project in self.turns else -1
            return alive, turn, job.uid

        waiting = [
            job
            for job in self.jobs.values()
            if job.waits and (job.state is not JobState.PENDING or not limit or len(claimed(job.project)) < limit)
        ]
        return min(waiting, key=rank, default=None)

    @rule(holder=st.sampled_from(["u", "v", "w"]), limit=st.sampled_from([0, 0, 1, 2]))
    def claim(self, holder, limit):
        while (expected := self.next_to_claim(limit)) is not None:
            if expected.state is JobState.CANCELLING:
                self.data_garbage |= expected.end(JobState.CANCELLED)
            elif expected.attempt >= expected.max_attempts:
                error = exhausted_error(expected.attempt)
                self.data_garbage |= expected.fail(error["reason"], error["message"])
            else:
                expected.take(holder)
                self.turns = [project for project in self.turns if project != expected.project] + [expected.project]
                break
        found = self.registry.jobs.claim(holder, 600, (JobKind.TRAIN,), max_project_jobs=limit)
        assert (found and found.uid) == (expected and expected.uid)

    @precondition(lambda self: any(job.state in ALIVE for job in self.jobs.values()))
    @rule(number=NUMBER)
    def expire_lease(self, number):
        self.let_expire(pick([job for job in self.jobs.values() if job.state in ALIVE], number))

    def by(self, number, epoch):
        """A job, the epoch of an attempt at it, and whether that attempt may write."""
        job = pick(self.worked_on(), number)
        return job, job.epoch + epoch, job.accepts(job.epoch + epoch)

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF)
    def heartbeat(self, number, epoch):
        job, taken, accepted = self.by(number, epoch)
        if not accepted:
            self.refused(FencedError, lambda: self.registry.jobs.heartbeat(job.uid, taken))
            return
        assert self.registry.jobs.heartbeat(job.uid, taken) is job.cancel_requested
        job.expired = False

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF)
    def release(self, number, epoch):
        job, taken, accepted = self.by(number, epoch)
        if not accepted:
            self.refused(FencedError, lambda: self.registry.jobs.release(job.uid, taken))
            return
        self.registry.jobs.release(job.uid, taken)
        if job.state is JobState.CANCELLING:
            self.data_garbage |= job.end(JobState.CANCELLED)
            return
        job.state, job.phase, job.holder, job.expired = JobState.PENDING, "", "", False
        job.epoch, job.max_attempts = job.epoch + 1, job.max_attempts + 1
        job.note({"message": "given back by a worker that shut down"})

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER)
    def cancel(self, number):
        job = pick(self.worked_on(), number)
        name = TrainingJobName(job.project, job.name)
        if job.state in (JobState.SUCCEEDED, JobState.FAILED):
            self.refused(WrongStateError, lambda: self.registry.jobs.cancel_request(name))
            return
        found = self.registry.jobs.cancel_request(name)
        self.let_cancel(job)
        assert found.state is job.state

    def let_cancel(self, job):
        """Cancel a job and its parts in the model."""
        job.cancel_requested = True
        if job.state is JobState.PENDING:
            self.data_garbage |= job.end(JobState.CANCELLED)
        elif job.state is JobState.RUNNING:
            job.state = JobState.CANCELLING
            job.note()
        for part in self.jobs.values():
            if part.parent_uid == job.uid and not part.state.ended:
                self.let_cancel(part)

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF)
    def finish_cancelled(self, number, epoch):
        job, taken, accepted = self.by(number, epoch)

        def call():
            self.registry.jobs.finish_cancelled(job.uid, taken)

        if not accepted:
            self.refused(FencedError, call)
        elif job.state is JobState.RUNNING:
            self.refused(WrongStateError, call)
        else:
            call()
            self.data_garbage |= job.end(JobState.CANCELLED)

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF)
    def fail(self, number, epoch):
        job, taken, accepted = self.by(number, epoch)

        def call():
            self.registry.jobs.fail(job.uid, taken, Reason.TRAINING_FAILED, "a loss is nan")

        if not accepted:
            self.refused(FencedError, call)
            return
        call()
        if job.state is JobState.CANCELLING:
            self.data_garbage |= job.end(JobState.CANCELLED)
        else:
            self.data_garbage |= job.fail("TRAINING_FAILED", "a loss is nan")

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF, phase=st.sampled_from([None, *PHASES]), reported=st.integers(0, 9))
    def report(self, number, epoch, phase, reported):
        """Append an event, with a phase or without."""
        job, taken, accepted = self.by(number, epoch)
        payload: dict[str, Any] = {"progress": {"epoch": reported}}

        def call():
            if phase is None:
                return self.registry.jobs.append_event(job.uid, taken, payload)
            return self.registry.jobs.set_phase(job.uid, taken, phase, payload)

        if not accepted:
            self.refused(FencedError, call)
            return
        job.phase = phase or job.phase
        job.note(payload)
        assert call() == len(job.events)

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF, again=st.booleans())
    def save_checkpoint(self, number, epoch, again):
        job, taken, accepted = self.by(number, epoch)
        new = CheckpointRecord(self.new_key("checkpoint"), 5, b"k" * 32, len(job.events))
        checkpoint = job.checkpoint if again and job.checkpoint else new

        def call():
            self.registry.jobs.save_checkpoint(job.uid, taken, checkpoint)

        if not accepted:
            self.refused(FencedError, call)
            return
        if job.state is JobState.CANCELLING:
            self.refused(CancelledError, call)
            return
        call()
        if job.checkpoint not in (None, checkpoint):
            self.data_garbage.add(job.checkpoint.object_key)
        job.checkpoint = checkpoint
        job.max_attempts = max(job.max_attempts, job.attempt + MAX_ATTEMPTS)

    @precondition(lambda self: self.jobs)
    @rule(number=NUMBER, epoch=OFF, staged=st.booleans())
    def publish(self, number, epoch, staged):
        job, taken, accepted = self.by(number, epoch)
        version = version_of(job, taken)

        def call():
            return self.registry.models.publish(job.uid, taken, job.model, version, staged=staged)

        if job.published and job.published.name.version in self.visible[job.model]:
            if job.published.manifest_key == version.manifest_key:
                assert call() == self.visible[job.model][job.published.name.version]
            else:
                self.refused(FencedError, call)
        elif not accepted:
            self.refused(FencedError, call)
        elif job.state is JobState.CANCELLING:
            self.refused(CancelledError, call)
        else:
            record = call()
            expected = self.last.get(job.model, 0) + 1
            assert record.name == ModelVersionName("p", job.model.model, expected)
            assert (record.job_uid, record.manifest_key) == (job.uid, version.manifest_key)
            assert record.state is (VersionState.STAGED if staged else VersionState.PUBLISHED)
            self.last[job.model] = expected
            self.visible[job.model][expected] = job.published = record
            self.data_garbage |= job.end(JobState.SUCCEEDED, {"model_version": expected})

    @precondition(lambda self: self.last)
    @rule(model=st.sampled_from(MODELS), number=NUMBER, promoted=st.booleans())
    def decide(self, model, number, promoted):
        version = number % 3 + 1
        name = ModelVersionName("p", model.model, version)
        wanted = VersionState.PUBLISHED if promoted else VersionState.REJECTED

        def call():
            if promoted:
                return self.registry.models.promote(name)
            return self.registry.models.reject(name, f"reason {number}")

        found = self.visible[model].get(version)
        if found is None:
            self.refused(ResourceNotFoundError, call)
        elif found.state not in (VersionState.STAGED, wanted):
            self.refused(WrongStateError, call)
        elif found.state is wanted:
            assert call() == found
        else:
            record = call()
            reason = "" if promoted else f"reason {number}"
            decided = {"state": wanted, "rejection_reason": reason, "decide_time": record.decide_time}
            assert record == replace(found, **decided)
            self.visible[model][version] = record

    @precondition(lambda self: self.last)
    @rule(model=st.sampled_from(MODELS), number=NUMBER, keep=st.sampled_from([0.0, 3600.0]))
    def delete_version(self, model, number, keep):
        version = number % 3 + 1
        name = ModelVersionName("p", model.model, version)

        def call():
            self.registry.models.delete_version(name, keep)

        if version not in self.visible[model]:
            self.refused(ResourceNotFoundError, call)
            return
        call()
        self.deleted[model][version] = self.visible[model].pop(version), keep == 0

    @precondition(lambda self: self.last)
    @rule(model=st.sampled_from(MODELS), number=NUMBER)
    def undelete_version(self, model, number):
        version = number % 3 + 1
        name = ModelVersionName("p", model.model, version)

        def call():
            return self.registry.models.undelete_version(name)

        if version in self.deleted[model]:
            self.visible[model][version], _ = self.deleted[model].pop(version)
        if version in self.visible[model]:
            assert call() == self.visible[model][version]
        else:
            self.refused(ResourceNotFoundError, call)

    @rule()
    def purge(self):
        due = [(model, number) for model in MODELS for number, (_, is_due) in self.deleted[model].items() if is_due]
        assert self.registry.models.purge() == len(due)
        for model, number in due:
            record, _ = self.deleted[model].pop(number)
            self.models_garbage |= {record.manifest_key, record.weights_key}

    @precondition(lambda self: self.models_garbage)
    @rule(number=NUMBER)
    def forget(self, number):
        key = pick(sorted(self.models_garbage), number)
        self.registry.models.forget([key])
        self.models_garbage.remove(key)

    @precondition(lambda self: len(self.jobs) > 2)
    @rule()
    def delete_dataset(self):
        """Delete the dataset that fewer jobs work on."""
        uid = self.datasets.get("b")
        name = DatasetName("p", "b")

        def call():
            return self.registry.datasets.delete(name)

        if uid is None:
            self.refused(ResourceNotFoundError, call)
        elif any(job.dataset_uid == uid and not job.state.ended for job in self.jobs.values()):
            self.refused(WrongStateError, call)
        else:
            assert call() == ("table/b",)
            self.gone["b"] = self.datasets.pop("b")
            self.data_garbage.add("table/b")

    @invariant()
    def every_job_is_as_it_should_be(self):
        listed = [record for name in PROJECTS for record in self.registry.jobs.list(JobKind.TRAIN, name).items]
        found = {record.uid: record for record in listed}
        assert sorted(found) == sorted(self.jobs)
        for uid, job in self.jobs.items():
            job.check(found[uid])
            assert found[uid].name == TrainingJobName(job.project, job.name)
            if len(job.read) != len(job.events):
                job.check_events(self.registry)

    @invariant()
    def every_version_is_as_it_should_be(self):
        listed = self.registry.models.list("p").items
        assert [record.name for record in listed] == sorted(self.last, key=lambda model: model.model)
        for record in listed:
            versions = self.visible[record.name]
            ordered = tuple(versions[number] for number in sorted(versions, reverse=True))
            published = tuple(version for version in ordered if version.state is VersionState.PUBLISHED)
            assert record.aliases == ({"latest": published[0].name.version} if published else {})
            assert self.registry.models.list_versions(record.name).items == published
            assert self.registry.models.list_versions(record.name, unpublished=True).items == ordered
        kept = [version for versions in self.visible.values() for version in versions.values()]
        kept += [version for versions in self.deleted.values() for version, _ in versions.values()]
        assert len({version.job_uid for version in kept}) == len(kept)

    @invariant()
    def garbage_is_what_nothing_refers_to_any_more(self):
        self.check_data_garbage()
        assert sorted(self.registry.models.garbage()) == sorted(self.models_garbage)


def version_of(job: ModelTrain, epoch: int) -> NewVersion:
    """What an attempt publishes, its files under keys of its own."""
    made = new_version(f"p/{job.model.model}/{job.uid}-{epoch}")
    return replace(made, training_job=f"projects/{job.project}/trainingJobs/{job.name}", schema=SCHEMA)
