"""The services that hostile requests are sent to."""

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from rowmint.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    training_job_pb2,
    training_service_pb2,
)
from tests.acceptance.processes import ServiceProcess, working_child
from tests.hostile.proper_requests import DATASET, ENDED, JOB, METHODS, PARENT
from tests.waiting import wait_until

STREAMS = 16
"""Streams that the sampler serves at once."""


@dataclass
class World:
    """The services that all of it is sent to.

    Attributes:
        home: Their folder.
        trainer: The trainer; its only worker is stopped midway in a fit, so that no other job is taken up.
        sampler: The sampler, which serves few streams: one that leaks is missed soon.
        channels: A channel to each.
        sizes: Bytes of each that were its own when it had answered everything once.
        read: Characters of each log that are known already.
    """

    home: Path
    trainer: ServiceProcess
    sampler: ServiceProcess
    channels: dict[str, grpc.Channel]
    sizes: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)

    def send(self, name: str, request: Message, place: str = "trainer") -> Message:
        """Make a unary call that is to be answered."""
        return next(METHODS[name].call(self.channels[place], [request.SerializeToString()]))

    def responses(self, name: str, *requests: Message) -> list[Any]:
        """Read a stream to its end."""
        place = "sampler" if name.startswith("Sampling") else "trainer"
        return list(METHODS[name].call(self.channels[place], [request.SerializeToString() for request in requests]))

    def write(self, *requests: Message) -> dataset_pb2.Dataset:
        (found,) = self.responses("DatasetService.WriteDataset", *requests)
        return found.dataset

    def create_dataset(self, name: str) -> None:
        """Make a dataset that waits for its bytes, again where there is one."""
        with contextlib.suppress(grpc.RpcError):
            self.send("DatasetService.DeleteDataset", dataset_service_pb2.DeleteDatasetRequest(name=name))
        request = dataset_service_pb2.CreateDatasetRequest(
            parent=PARENT, dataset_id=name.rpartition("/")[2], dataset=dataset_pb2.Dataset(format=DATASET.format)
        )
        self.send("DatasetService.CreateDataset", request)

    def dataset(self, name: str) -> dataset_pb2.Dataset:
        return self.send("DatasetService.GetDataset", dataset_service_pb2.GetDatasetRequest(name=name))

    def cancel(self, name: str) -> int:
        request = training_service_pb2.CancelTrainingJobRequest(name=name)
        return self.send("TrainingService.CancelTrainingJob", request).state


@contextlib.contextmanager
def stopped_worker(world: World) -> Iterator[None]:
    """Keep the trainer's only worker at a job without end that takes no time; others are PENDING meanwhile."""
    create = "TrainingService.CreateTrainingJob"
    live = training_service_pb2.CreateTrainingJobRequest(parent=PARENT, training_job_id="live", training_job=JOB)
    live.training_job.config.ctgan.epochs = 100_000
    world.send(create, live)
    found: list[int] = []

    def taken_up() -> bool:
        with contextlib.suppress(ValueError):  # no worker has it yet
            found.append(working_child(world.trainer.pid))
        return bool(found)

    wait_until(taken_up, "the beginning of the job")
    (pid,) = found
    wait_until(lambda: _stopped_between_writes(pid, world.home), "a stop between two writes")
    try:
        ended = training_service_pb2.CreateTrainingJobRequest(parent=PARENT, training_job_id="ended", training_job=JOB)
        world.send(create, ended)
        assert world.cancel(ENDED) == training_job_pb2.JOB_STATE_CANCELLED
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stopped_between_writes(pid: int, home: Path) -> bool:
    """Stop a worker where it blocks no other writer; else let it continue."""
    os.kill(pid, signal.SIGSTOP)
    for name in ("data.db", "models.db"):
        with contextlib.closing(sqlite3.connect(home / "registry" / name, timeout=0.1)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                return False
    return True
