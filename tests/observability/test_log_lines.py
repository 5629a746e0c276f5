"""The services' logs as machines read them."""

import re

from tests.observability.conftest import CITY, PROJECT, Watched, lines


def test_every_line_is_an_object_that_says_when_what_and_who(watched: Watched):
    for service, name in ((watched.trainer, "trainer"), (watched.sampler, "sampler")):
        found = lines(service)
        assert found
        for line in found:
            assert {"timestamp", "level", "event", "service"} <= line.keys(), line
            assert line["service"] == name
            assert line["timestamp"].endswith("Z")


def test_log_lines_of_calls_have_their_trace(watched: Watched):
    calls = [line for line in lines(watched.sampler) if line["event"] == "call"]
    sampled = [line for line in calls if line["method"] == "rowmint.v1.SamplingService/Sample"]
    assert {line["status"] for line in sampled} >= {"INVALID_ARGUMENT"}
    traces = {span.trace for span in watched.collector.wait(lambda spans: spans, "spans")}
    assert {line["trace_id"] for line in sampled} <= traces
    assert all(len(line["span_id"]) == 16 for line in sampled)
    (refused,) = [line for line in sampled if line["status"] == "INVALID_ARGUMENT"]
    assert (refused["level"], refused["reason"]) == ("info", "VALUE_NOT_FOUND")
    assert refused["seconds"] >= 0
    assert {line["level"] for line in calls if line["status"] == "OK"} == {"debug"}


def test_no_line_holds_a_cell(watched: Watched):
    text = watched.trainer.log.read_text() + watched.sampler.log.read_text()
    assert PROJECT in text or "CreateTrainingJob" in text
    for cell in (CITY, "Samarkand", "Lisbon", "Oslo", "basic", "2015-"):
        assert cell not in text, cell
    # As a number of its own: ids of calls and spans are long enough to hold any six digits.
    assert re.search("(?<![0-9a-f.])100001(?![0-9a-f])", text) is None
