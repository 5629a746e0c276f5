"""How a service writes its log: one line an event, on standard error, times in UTC.

Lines are for people, or JSON for machines. What libraries log goes the same way. Whoever writes an event must not put
into it a value of a cell, a secret or a path: the log is read by others than the data.
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
    """Set up the log of this process.

    Tracebacks show where and of which kind an error is, not its text, nor any variable: cells and credentials may be
    in either.

    Args:
        service: Who writes, such as ``trainer``; told in JSON.
        log_format: ``console``, or ``json`` for one object a line: `timestamp`, `level`, `event`, `service`, `trace_id`
            and `span_id` where there is a span, and what else there is to say.
        level: ``debug``, ``info``, ``warning`` or ``error``: what is below is left out.
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
    # What libraries tell below a warning is for whoever works on them.
    root.setLevel(max(lowest, logging.WARNING))
    # What Python writes by itself would be lines that are no JSON.
    logging.captureWarnings(as_json)
    if as_json:
        threading.excepthook = _log_dead_thread


def _traceback(exc_info: ExcInfo) -> str:
    """Return a traceback of an error and of what led to it."""
    lines = []
    error: traceback.TracebackException | None = traceback.TracebackException(*exc_info)
    while error is not None:
        kind = "an error" if error.exc_type is None else f"{error.exc_type.__module__}.{error.exc_type.__qualname__}"
        lines.append("".join(["Traceback (most recent call last):\n", *error.stack.format(), kind]))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\n".join(reversed(lines))


def _log_dead_thread(died: threading.ExceptHookArgs) -> None:
    name = None if died.thread is None else died.thread.name
    structlog.get_logger(__name__).error("a thread died", thread=name, exc_info=died.exc_value)


def _add_span(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Say which span the event belongs to, if it does to one."""
    trace = loaded_trace()
    if trace is not None:
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event["trace_id"] = f"{span.trace_id:032x}"
            event["span_id"] = f"{span.span_id:016x}"
    return event
