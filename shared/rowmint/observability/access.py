"""A line of the log for each call."""

import re

import structlog

from rowmint.observability.calls import Call

_log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class CallLog:
    """Writes a line for each call, failures at info and others at debug: its method, its status, its seconds."""

    def begun(self, call: Call) -> None:
        """Let every event of the call tell its request id, where a proxy or client has given it one that is no text."""
        given = dict(call.metadata).get("x-request-id")
        if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
            structlog.contextvars.bind_contextvars(request_id=given)

    def ended(self, call: Call) -> None:
        """Write the line."""
        write = _log.debug if call.status == "OK" else _log.info
        write("call", method=call.method, status=call.status, seconds=round(call.seconds, 6))
