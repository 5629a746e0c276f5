"""Logging of calls, one event per call."""

import structlog

from rowmint.observability.calls import Call

_log = structlog.get_logger(__name__)


class CallLog:
    """Logs each call with method, caller, status, duration and error reason; failures at info, others at debug."""

    def on_start(self, call: Call) -> None:
        """Bind the request id to every log event of the call."""
        structlog.contextvars.bind_contextvars(request_id=call.request_id)

    def on_end(self, call: Call) -> None:
        """Log the call."""
        fields: dict[str, str | float] = {
            "method": call.method,
            "status": call.status,
            "seconds": round(call.seconds, 6),
        }
        if call.caller:
            fields["caller"] = call.caller
        if call.status == "OK":
            _log.debug("call", **fields)
        elif call.reason:
            _log.info("call", **fields, reason=call.reason)
        else:
            _log.info("call", **fields)
