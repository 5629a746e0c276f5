"""A line of the log for each call."""

import re

import structlog

from rowmint.observability.calls import Call

_log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class CallLog:
    """Writes a line for each call, failures at info and others at debug: method, status, seconds, why it failed."""

    def begun(self, call: Call) -> None:
        """Let every event of the call tell its request id, where a proxy or client has given it one that is no text."""
        given = dict(call.metadata).get("x-request-id")
        if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
            structlog.contextvars.bind_contextvars(request_id=given)

    def ended(self, call: Call) -> None:
        """Write the line."""
        told: dict[str, str | float] = {"method": call.method, "status": call.status, "seconds": round(call.seconds, 6)}
        if call.status == "OK":
            _log.debug("call", **told)
        elif call.reason:
            _log.info("call", **told, reason=call.reason)
        else:
            _log.info("call", **told)
