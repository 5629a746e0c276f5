"""What fake replicas report of themselves: their health and their load."""

import struct
import threading

import grpc


class Health(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        if handler_call_details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"\x08\x01")
        return None


class ReplicaReports(grpc.GenericRpcHandler):
    """What a replica reports to balancers: whether it serves (grpc.health.v1), and its load (ORCA)."""

    def __init__(self, utilization=0.5, rate=10.0):
        self.report = b"\x49" + struct.pack("<d", utilization) + b"\x31" + struct.pack("<d", rate)
        self.watches = []
        self.changed = threading.Condition()
        self.serving = True

    def service(self, handler_call_details):
        if handler_call_details.method == "/grpc.health.v1.Health/Watch":
            return grpc.unary_stream_rpc_method_handler(self.watch)
        if handler_call_details.method == "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics":
            return grpc.unary_stream_rpc_method_handler(self.load)
        return None

    def turn(self, *, serving):
        with self.changed:
            self.serving = serving
            self.changed.notify_all()

    def watch(self, request, context):
        self.watches.append(request)
        context.add_callback(self.wake)
        while context.is_active():
            serving = self.serving
            yield b"\x08\x01" if serving else b"\x08\x02"
            with self.changed:
                self.changed.wait_for(lambda serving=serving: self.serving != serving or not context.is_active())

    def load(self, _request, context):
        context.add_callback(self.wake)
        while context.is_active():
            yield self.report
            with self.changed:
                self.changed.wait_for(lambda: not context.is_active(), timeout=0.2)

    def wake(self):
        with self.changed:
            self.changed.notify_all()
