"""A line of the log for each call."""

import structlog

from rowmint.observability.calls import Call

_log = structlog.get_logger(__name__)


class CallLog:
    """Writes a line for each call, failures at info and others at debug: what, who, status, seconds, why it fails."""

    def begun(self, call: Call) -> None:
        """Let every event of the call tell its request id."""
        structlog.contextvars.bind_contextvars(request_id=call.request_id)

    def ended(self, call: Call) -> None:
        """Write the line."""
        told: dict[str, str | float] = {"method": call.method, "status": call.status, "seconds": round(call.seconds, 6)}
        if call.caller:
            told["caller"] = call.caller
        if call.status == "OK":
            _log.debug("call", **told)
        elif call.reason:
            _log.info("call", **told, reason=call.reason)
        else:
            _log.info("call", **told)
