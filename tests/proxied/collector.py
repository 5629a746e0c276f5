"""A collector of OpenTelemetry's spans: collector.py ADDRESS FILE. Each span becomes a line of the file, as JSON.

The file is there when the collector listens.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, file: Path) -> None:
        self._file = file

    def listens(self) -> None:
        self._file.touch()

    async def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:  # noqa: N802
        lines = []
        for resource in request.resource_spans:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                lines += [
                    {
                        "service": named.get("service.name"),
                        "name": span.name,
                        "kind": span.kind,
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                    }
                    for span in scope.spans
                ]
        with self._file.open("a") as file:
            file.write("".join(f"{json.dumps(line)}\n" for line in lines))
        return trace_service_pb2.ExportTraceServiceResponse()


async def main(address: str, file: str) -> None:
    collector = _Collector(Path(file))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    server.add_insecure_port(address)
    await server.start()
    collector.listens()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
