"""Load reports for load balancers (ORCA, gRFC A51): out of band, as a stream, and per call, in trailing metadata.

The messages are those of `xds.data.orca.v3` and `xds.service.orca.v3`, declared below with the fields used here. They
live in a descriptor pool of their own, so that the full definitions can still be loaded into the default pool.
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

_MIN_INTERVAL_SECONDS = 0.1  # lower bound of the report interval that a client can request
_DEFAULT_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class LoadReport:
    """Load of a server.

    Attributes:
        utilization: Utilization of the limiting resource; 1 if fully busy, more if work is queued.
        rate: Units of work done per second. A balancer weights servers by rate divided by utilization.
        errors: Calls rejected per second.
    """

    utilization: float
    rate: float
    errors: float = 0.0


def _messages() -> tuple[Any, Any]:
    field_types = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(DURATION.serialized_pb)
    report = descriptor_pb2.FileDescriptorProto(
        name="rowmint/orca_report.proto", package="xds.data.orca.v3", syntax="proto3"
    )
    message = report.message_type.add(name="OrcaLoadReport")
    for number, name in ((6, "rps_fractional"), (7, "eps"), (9, "application_utilization")):
        message.field.add(name=name, number=number, type=field_types.TYPE_DOUBLE, label=field_types.LABEL_OPTIONAL)
    request = descriptor_pb2.FileDescriptorProto(
        name="rowmint/orca_request.proto", package="xds.service.orca.v3", syntax="proto3", dependency=[DURATION.name]
    )
    message = request.message_type.add(name="OrcaLoadReportRequest")
    message.field.add(
        name="report_interval",
        number=1,
        type=field_types.TYPE_MESSAGE,
        type_name=".google.protobuf.Duration",
        label=field_types.LABEL_OPTIONAL,
    )
    for file in (report, request):
        pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"{file.package}.{file.message_type[0].name}") for file in (report, request))
    report_class, request_class = (message_factory.GetMessageClass(descriptor) for descriptor in found)
    return report_class, request_class


_Report, _Request = _messages()


def serialize(report: LoadReport) -> bytes:
    """Serialize a report as `OrcaLoadReport`."""
    message = _Report(rps_fractional=report.rate, eps=report.errors, application_utilization=report.utilization)
    return bytes(message.SerializeToString(deterministic=True))


def trailer(report: LoadReport) -> tuple[str, bytes]:
    """Return the trailing metadata that reports the server's load to the client of a call."""
    return TRAILER, serialize(report)


def load_service(report: Callable[[], LoadReport]) -> Service:
    """Return the service that streams load reports to clients until they cancel.

    Args:
        report: Returns the current load.
    """

    async def stream_core_metrics(request: Any, _: Any) -> AsyncIterator[bytes]:
        requested = request.report_interval.ToMicroseconds() / 1e6 if request.HasField("report_interval") else 0.0
        seconds = max(requested or _DEFAULT_INTERVAL_SECONDS, _MIN_INTERVAL_SECONDS)
        while True:
            yield serialize(report())
            await asyncio.sleep(seconds)

    def register(server: grpc.aio.Server) -> None:
        handler: Any = grpc.unary_stream_rpc_method_handler(
            stream_core_metrics, request_deserializer=_Request.FromString, response_serializer=None
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"StreamCoreMetrics": handler}),)
        )

    return Service(SERVICE, register, reflected=False)
