"""How events are written: for people and for machines, ours and those of libraries."""

import json
import os
import subprocess
import sys

import pytest

SETUP = "from rowmint.logs import configure_logs\nimport structlog, logging, warnings\n"


def written(code: str, **options: str) -> str:
    """Return what a process writes to standard error."""
    configure = f"configure_logs('trainer', **{options!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", SETUP + configure + "log = structlog.get_logger()\n" + code],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_is_one_object_a_line():
    found = objects(written("log.info('serving', port=7401); log.warning('two\\nlines', job='j')", log_format="json"))
    assert [line.pop("timestamp")[-1] for line in found] == ["Z", "Z"]
    assert found == [
        {"level": "info", "event": "serving", "service": "trainer", "port": 7401},
        {"level": "warning", "event": "two\nlines", "service": "trainer", "job": "j"},
    ]


def test_the_console_is_for_people():
    text = written("log.info('serving', port=7401); logging.getLogger('grpc').error('lost %s', 'it')")
    first, second = text.splitlines()
    assert "serving" in first
    assert "port=7401" in first
    assert "lost it" in second
    assert "error" in second


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["d", "i", "w", "e", "lib w", "lib e"]),
        ("info", ["i", "w", "e", "lib w", "lib e"]),
        ("warning", ["w", "e", "lib w", "lib e"]),
        ("error", ["e", "lib e"]),
    ],
)
def test_what_is_below_the_level_is_left_out(level, expected):
    code = (
        "log.debug('d'); log.info('i'); log.warning('w'); log.error('e')\n"
        "other = logging.getLogger('a.library')\n"
        "other.debug('lib d'); other.info('lib i'); other.warning('lib w'); other.error('lib e')"
    )
    assert [line["event"] for line in objects(written(code, log_format="json", level=level))] == expected


def test_libraries_and_warnings_go_the_same_way():
    code = "logging.getLogger('grpc.aio').warning('gone: %d', 4)\nwarnings.warn('old', stacklevel=1)"
    first, second = objects(written(code, log_format="json"))
    assert (first["event"], first["logger"], first["service"], first["level"]) == (
        "gone: 4",
        "grpc.aio",
        "trainer",
        "warning",
    )
    assert "old" in second["event"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_neither_variables_nor_what_the_error_says(log_format):
    code = (
        "def work():\n    cell = 'secret' + str(4711)\n    raise ValueError(cell)\n"
        "try:\n    work()\nexcept ValueError:\n    log.exception('failed')\n"
        "    logging.getLogger('x').exception('failed there')"
    )
    text = written(code, log_format=log_format)
    assert "secret4711" not in text
    assert text.count("in work") == 2
    assert text.count("builtins.ValueError") == 2
    if log_format == "json":
        assert [line["event"] for line in objects(text)] == ["failed", "failed there"]


def test_a_thread_that_dies_is_an_object_too():
    code = "import threading\nthread = threading.Thread(target=lambda: 1 // 0, name='t')\nthread.start(); thread.join()"
    (line,) = objects(written(code, log_format="json"))
    assert (line["event"], line["thread"], line["level"]) == ("thread failed", "t", "error")
    assert "ZeroDivisionError" in line["exception"]


def test_log_lines_have_their_span():
    code = (
        "log.info('before')\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "with TracerProvider().get_tracer('t').start_as_current_span('s') as span:\n"
        "    log.info('within'); logging.getLogger('x').warning('there')\n"
        "log.info('after', trace=format(span.get_span_context().trace_id, '032x'))"
    )
    before, within, there, after = objects(written(code, log_format="json"))
    assert within["trace_id"] == there["trace_id"] == after["trace"]
    assert len(within["span_id"]) == 16
    assert "trace_id" not in before
    assert "trace_id" not in after


def test_to_configure_twice_writes_once():
    code = "configure_logs('worker', log_format='json'); logging.getLogger('x').error('once')"
    (line,) = objects(written(code, log_format="json"))
    assert line["service"] == "worker"
