"""Which calls are admitted, how others are refused, and that everything is given back."""

import pytest

from rowmint.errors import LimitError, UnavailableError
from sampler_service.admission import Admission, Allowance


def test_a_project_past_its_share_is_over_quota_and_others_are_not():
    shed = []
    admission = Admission(Allowance(10, 0), Allowance(2, 0), shed.append)
    first, _ = admission.enter("a"), admission.enter("a")
    with pytest.raises(
        LimitError, match=r"projects/a has as many streams as it may \(2\).*MAX_PROJECT_STREAMS"
    ) as raised:
        admission.enter("a")
    assert (raised.value.retry_after, raised.value.metadata["limit"]) == (1.0, "2")
    admission.enter("b")
    first.close()
    admission.enter("a")
    assert (shed, admission.streams) == (["project_streams"], 3)


def test_a_full_process_is_overloaded_for_every_project():
    shed = []
    admission = Admission(Allowance(2, 0), Allowance(0, 0), shed.append)
    first, _ = admission.enter("a"), admission.enter("b")
    for project in "ab":
        with pytest.raises(
            UnavailableError, match=r"as many streams as it carries \(2\).*ROWMINT_MAX_STREAMS"
        ) as raised:
            admission.enter(project)
        assert raised.value.retry_after == pytest.approx(0.1)
    first.close()
    admission.enter("b")
    assert shed == ["process_streams"] * 2


def test_rows_in_flight_are_bounded_and_one_stream_alone_may_always_run():
    shed = []
    admission = Admission(Allowance(0, 100), Allowance(0, 60), shed.append)
    huge = admission.enter("a")
    huge.hold(1000)
    other = admission.enter("b")
    with pytest.raises(UnavailableError, match=r"rows in flight as it carries \(100\).*ROWMINT_MAX_ROWS_IN_FLIGHT"):
        other.hold(1)
    huge.close()
    assert (admission.streams, admission.rows) == (1, 0)
    other.hold(50)
    third = admission.enter("b")
    with pytest.raises(LimitError, match=r"rows in flight as it may \(60\).*MAX_PROJECT_ROWS_IN_FLIGHT"):
        third.hold(20)
    third.hold(10)
    assert admission.rows == 60
    assert shed == ["process_rows", "project_rows"]


def test_what_is_given_back_twice_counts_once_and_nothing_is_left_of_it():
    admission = Admission(Allowance(1, 10), Allowance(1, 10))
    ticket = admission.enter("a")
    ticket.hold(10)
    ticket.close()
    ticket.close()
    # Its call has ended meanwhile: no call is left to hold rows for.
    ticket.hold(10)
    assert (admission.streams, admission.rows) == (0, 0)
    assert not admission._streams
    assert not admission._rows


def test_bytes_at_work_are_bounded_and_one_call_past_them_can_never_be():
    shed = []
    admission = Admission(Allowance(0, 0, 100), Allowance(0, 0), shed.append)
    first, second = admission.enter("a"), admission.enter("b")
    first.hold_bytes(60)
    first.hold_bytes(40)  # less than it has
    first.hold_bytes(70)
    assert admission.bytes == 70
    with pytest.raises(UnavailableError, match=r"bytes at work as it carries \(100\).*ROWMINT_MAX_WORK_BYTES"):
        second.hold_bytes(31)
    second.hold_bytes(30)
    with pytest.raises(LimitError, match=r"takes 101 bytes.*\(100\).*ROWMINT_MAX_WORK_BYTES") as raised:
        second.hold_bytes(101)
    assert raised.value.metadata == {"limit": "100", "setting": "ROWMINT_MAX_WORK_BYTES"}
    first.close()
    second.hold_bytes(100)
    second.close()
    second.hold_bytes(100)
    assert (admission.bytes, shed) == (0, ["process_bytes"])


def test_what_several_calls_hold_counts_once():
    shed, tables, others = [], object(), object()
    admission = Admission(Allowance(0, 0, 100), Allowance(0, 0), shed.append)
    first, second, third = (admission.enter("a") for _ in range(3))
    first.hold_shared(tables, 60)
    second.hold_shared(tables, 60)
    assert admission.bytes == 60
    with pytest.raises(UnavailableError, match=r"bytes at work as it carries \(100\)"):
        third.hold_shared(others, 41)
    with pytest.raises(LimitError, match=r"meeting these conditions takes 101 bytes.*ROWMINT_MAX_WORK_BYTES"):
        third.hold_shared(others, 101)
    first.close()
    assert admission.bytes == 60
    third.hold_bytes(40)
    second.close()
    second.close()
    assert (admission.bytes, shed) == (40, ["process_bytes"])
    third.hold_shared(others, 41)
    third.close()
    third.hold_shared(others, 41)
    assert admission.bytes == 0


def test_nothing_begins_while_draining():
    shed = []
    admission = Admission(Allowance(0, 0), Allowance(0, 0), shed.append)
    ticket = admission.enter("a")
    admission.drain()
    with pytest.raises(UnavailableError, match="is draining") as raised:
        admission.enter("a")
    assert raised.value.retry_after == pytest.approx(0.1)
    ticket.close()
    assert (shed, admission.streams) == (["draining"], 0)
