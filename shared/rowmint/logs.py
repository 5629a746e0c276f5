"""Logging of the services: one line per event, on standard error, times in UTC.

Lines are readable text, or JSON. Log records of libraries are formatted alike. Events must not contain values of cells,
secrets or paths: people who may not see the data read the log.
"""

import logging
import sys
import threading
import traceback

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from rowmint.spans import loaded_trace

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(service: str, *, log_format: str = "console", level: str = "info") -> None:
    """Set up logging in this process.

    Tracebacks contain the location and type of an error, but not its message or variables, which may contain cells or
    credentials.

    Args:
        service: Name of the service, such as ``trainer``; a field of JSON lines.
        log_format: ``console``, or ``json`` for one object per line: `timestamp`, `level`, `event`, `service`,
            `trace_id` and `span_id` if there is a span, and the fields of the event.
        level: ``debug``, ``info``, ``warning`` or ``error``: lower levels are not logged.
    """

    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    lowest = _LEVELS[level]
    as_json = log_format == "json"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    last: list[Processor] = [structlog.processors.ExceptionRenderer(_traceback)]
    if as_json:
        shared += [add_service, _add_span]
        last.append(structlog.processors.JSONRenderer(default=str))
    else:
        last.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for old in [found for found in root.handlers if isinstance(found.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    # Libraries log at least at level warning: lower levels are for their developers.
    root.setLevel(max(lowest, logging.WARNING))
    # Python itself writes warnings as plain text, not as JSON.
    logging.captureWarnings(as_json)
    if as_json:
        threading.excepthook = _log_dead_thread


def _traceback(exc_info: ExcInfo) -> str:
    """Format the traceback of an error and of its causes, without messages."""
    lines = []
    error: traceback.TracebackException | None = traceback.TracebackException(*exc_info)
    while error is not None:
        kind = (
            "unknown exception"
            if error.exc_type is None
            else f"{error.exc_type.__module__}.{error.exc_type.__qualname__}"
        )
        lines.append("".join(["Traceback (most recent call last):\n", *error.stack.format(), kind]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\n".join(reversed(lines))


def _log_dead_thread(failure: threading.ExceptHookArgs) -> None:
    name = None if failure.thread is None else failure.thread.name
    structlog.get_logger(__name__).error("thread failed", thread=name, exc_info=failure.exc_value)


def _add_span(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add the ids of the current span, if there is one."""
    trace = loaded_trace()
    if trace is not None:
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event["trace_id"] = f"{span.trace_id:032x}"
            event["span_id"] = f"{span.span_id:016x}"
    return event
