"""A replica that fails as its file says: fake_replica.py ADDRESS FILE BEHAVIOUR.

Its health checks succeed. Each call of another method becomes a line of the file, the method's name,
before it is answered:

    good           with an empty message
    unavailable    with UNAVAILABLE, as a proxy in between would
    full           with UNAVAILABLE and when to come again, as a replica does that has no room
    quota          with RESOURCE_EXHAUSTED and when to come again
    late           with one empty message, and then UNAVAILABLE
    dead           with the end of the process
    dying          likewise, and another takes its place at once
    @FILE          as the file says at each call, which holds one of the words above but the last
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_AGAIN = (("grpc-retry-pushback-ms", "1000"),)


class _Health(health_pb2_grpc.HealthServicer):
    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, calls: Path, behaviour: str) -> None:
        self._calls = calls
        self._behaviour = behaviour

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = str(handler_call_details.method)
        if method.startswith("/grpc.health."):
            return None

        async def answer(requests: Any, context: Any) -> Any:
            with self._calls.open("a") as file:
                file.write(f"{method.rpartition('/')[2]}\n")
            code, trailers = grpc.StatusCode.UNAVAILABLE, ()
            behaviour = self._now()
            match behaviour:
                case "dead" | "dying":
                    os._exit(1)
                case "full":
                    trailers = _AGAIN
                case "quota":
                    code, trailers = grpc.StatusCode.RESOURCE_EXHAUSTED, _AGAIN
                case "good" | "late":
                    async for _ in requests:
                        pass
                    yield b""
            if behaviour != "good":
                await context.abort(code, behaviour, trailers)

        return grpc.stream_stream_rpc_method_handler(answer)

    def _now(self) -> str:
        return Path(self._behaviour[1:]).read_text() if self._behaviour.startswith("@") else self._behaviour


async def main(address: str, calls: str, behaviour: str) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(_Health(), server)
    server.add_generic_rpc_handlers((_Everything(Path(calls), behaviour),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    # One whose life does not matter serves as a child: the parent continues with the next.
    while sys.argv[3] == "dying" and (child := os.fork()):
        signal.signal(signal.SIGTERM, lambda *_: (os.kill(child, signal.SIGKILL), os._exit(0)))
        os.waitpid(child, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(main(*sys.argv[1:]))
