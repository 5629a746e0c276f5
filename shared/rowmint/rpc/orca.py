"""Load reports for balancers (ORCA, gRFC A51): what a server tells of itself, asked for or at the end of a call.

The messages are those of `xds.data.orca.v3` and `xds.service.orca.v3`, of which the fields used here are described
below; they live in a pool of their own, so that whoever loads the full ones into the default pool is not disturbed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.duration_pb2 import DESCRIPTOR as DURATION

from rowmint.rpc.server import Service

SERVICE = "xds.service.orca.v3.OpenRcaService"
TRAILER = "endpoint-load-metrics-bin"
"""Trailing metadata that carries the report of one call."""

_SHORTEST_SECONDS = 0.1  # between two reports, however often a client asks for them
_DEFAULT_SECONDS = 1.0


@dataclass(frozen=True)
class LoadReport:
    """How busy a server is.

    Attributes:
        utilization: Of what the server is limited by; 1 where it is fully at work, more where work waits.
        rate: Units of work done, a second. A balancer gives weight to rate divided by utilization.
        errors: Calls it turned away, a second.
    """

    utilization: float
    rate: float
    errors: float = 0.0


def _messages() -> tuple[Any, Any]:
    kinds = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(DURATION.serialized_pb)
    report = descriptor_pb2.FileDescriptorProto(
        name="rowmint/orca_report.proto", package="xds.data.orca.v3", syntax="proto3"
    )
    message = report.message_type.add(name="OrcaLoadReport")
    for number, name in ((6, "rps_fractional"), (7, "eps"), (9, "application_utilization")):
        message.field.add(name=name, number=number, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    request = descriptor_pb2.FileDescriptorProto(
        name="rowmint/orca_request.proto", package="xds.service.orca.v3", syntax="proto3", dependency=[DURATION.name]
    )
    asked = request.message_type.add(name="OrcaLoadReportRequest")
    asked.field.add(
        name="report_interval",
        number=1,
        type=kinds.TYPE_MESSAGE,
        type_name=".google.protobuf.Duration",
        label=kinds.LABEL_OPTIONAL,
    )
    for file in (report, request):
        pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"{file.package}.{file.message_type[0].name}") for file in (report, request))
    report_class, request_class = (message_factory.GetMessageClass(descriptor) for descriptor in found)
    return report_class, request_class


_Report, _Request = _messages()


def serialized(report: LoadReport) -> bytes:
    """Return the bytes of an `OrcaLoadReport`."""
    message = _Report(rps_fractional=report.rate, eps=report.errors, application_utilization=report.utilization)
    return bytes(message.SerializeToString(deterministic=True))


def trailer(report: LoadReport) -> tuple[str, bytes]:
    """Return the trailing metadata that tells a call's client of the server's load."""
    return TRAILER, serialized(report)


def load_service(report: Callable[[], LoadReport]) -> Service:
    """Return the service that tells clients of the load, again and again, until they hang up.

    Args:
        report: Says what the load is now.
    """

    async def stream_core_metrics(request: Any, _: Any) -> AsyncIterator[bytes]:
        asked = request.report_interval.ToMicroseconds() / 1e6 if request.HasField("report_interval") else 0.0
        seconds = max(asked or _DEFAULT_SECONDS, _SHORTEST_SECONDS)
        while True:
            yield serialized(report())
            await asyncio.sleep(seconds)

    def register(server: grpc.aio.Server) -> None:
        handler: Any = grpc.unary_stream_rpc_method_handler(
            stream_core_metrics, request_deserializer=_Request.FromString, response_serializer=None
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"StreamCoreMetrics": handler}),)
        )

    return Service(SERVICE, register, reflected=False)
