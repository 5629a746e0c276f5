"""A service that does nothing but report its health: what `rowmint serve` starts in tests, as a process."""

import os
import signal
import threading
from concurrent import futures

import grpc

_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"


class Health(grpc.GenericRpcHandler):
    """Answers health checks; kills its process after the first one where `dies`."""

    def __init__(self, *, dies):
        self._dies = dies

    def service(self, handler_call_details):
        return grpc.unary_unary_rpc_method_handler(self.check) if handler_call_details.method == _CHECK else None

    def check(self, _request, context):
        if self._dies:
            context.add_callback(lambda: os.kill(os.getpid(), signal.SIGKILL))
        return _SERVING


def main(role, *, dies=False):
    """Serve at ROWMINT_LISTEN until a signal comes."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Health(dies=dies),))
    server.add_insecure_port(os.environ["ROWMINT_LISTEN"])
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server.start()
    # As a service's log may: it must not end up among what a script reads.
    os.write(1, f"{role} serves\n".encode())
    stopped.wait()
    server.stop(0).wait(5)
