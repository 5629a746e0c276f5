"""Fake services over real gRPC, in the test's own process."""

from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from rowmint.v1 import (
    dataset_service_pb2_grpc,
    model_admin_service_pb2_grpc,
    model_service_pb2_grpc,
    sampling_service_pb2_grpc,
    training_service_pb2_grpc,
)
from tests.unit.fake_health import Health
from tests.unit.fake_sampler import FakeSampler
from tests.unit.fake_trainer import FakeTrainer


def start(servicer, address="127.0.0.1:0"):
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4 * 1024 * 1024)],
    )
    if isinstance(servicer, FakeTrainer):
        dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(servicer, server)
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(servicer, server)
        model_admin_service_pb2_grpc.add_ModelAdminServiceServicer_to_server(servicer, server)
    else:
        sampling_service_pb2_grpc.add_SamplingServiceServicer_to_server(servicer, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
        if servicer.reports is not None:
            server.add_generic_rpc_handlers((servicer.reports,))
    server.add_generic_rpc_handlers((Health(),))
    port = server.add_insecure_port(address)
    server.start()
    if isinstance(servicer, FakeSampler):
        servicer.kill = lambda: server.stop(0)
        servicer.address = f"127.0.0.1:{port}"
    return server, f"127.0.0.1:{port}"


@dataclass
class Services:
    trainer: FakeTrainer
    samplers: list[FakeSampler]
    trainer_address: str
    sampler_addresses: list[str]
    waits: list[float] = field(default_factory=list)

    @property
    def sampler_address(self):
        return ",".join(self.sampler_addresses)


@contextmanager
def services(trainer=None, samplers=None):
    trainer = FakeTrainer() if trainer is None else trainer
    samplers = [FakeSampler()] if samplers is None else samplers
    servers = []
    try:
        server, trainer_address = start(trainer)
        servers.append(server)
        addresses = []
        for sampler in samplers:
            server, address = start(sampler)
            servers.append(server)
            addresses.append(address)
        yield Services(trainer, samplers, trainer_address, addresses)
    finally:
        for server in servers:
            server.stop(0).wait(5)
