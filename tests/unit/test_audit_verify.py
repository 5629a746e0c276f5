"""Audit logs that were modified."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rowmint.cli.app import app
from rowmint.errors import InvalidFieldError
from rowmint.security.audit_chain import (
    GENESIS,
    MAX_LINE_BYTES,
    Head,
    InvalidRecord,
    canonical,
    make_record,
    parse_head,
    read_record,
    sanitised,
)
from rowmint.security.audit_verify import verify

BEGIN = datetime(2025, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
RECORDS = 8


def values(number, **others):
    time = (BEGIN + timedelta(seconds=number)).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    fields = {
        "time": time,
        "who": "key:ci",
        "method": "rowmint.v1.SamplingService/Sample",
        "resource": f"{number:064x}",
        "decision": "allowed",
        "reason": "",
        "request_id": f"request-{number}",
    }
    return {**fields, **others}


def chain(count=RECORDS, **others):
    """Return the lines of a log and its head."""
    lines, head = [], Head()
    for number in range(1, count + 1):
        line, head = make_record(head, values(number, **others))
        lines.append(line)
    return lines, head


LINES, HEAD = chain()
TEXT = b"".join(LINES)


def judged(tmp_path, text, since=()):
    path = tmp_path / "sampler-host-1.jsonl"
    path.write_bytes(text)
    return verify(path, since)


def reported(verdict):
    return [str(problem) for problem in verdict.problems]


def test_an_unmodified_log_is_reported_as_sound(tmp_path):
    verdict = judged(tmp_path, TEXT, [HEAD])
    assert reported(verdict) == []
    (report,) = verdict.files
    assert (report.file, report.records, report.head, report.torn_bytes) == ("sampler-host-1.jsonl", RECORDS, HEAD, 0)
    assert (report.first_time, report.last_time) == ("2025-03-01T12:00:01.250000Z", "2025-03-01T12:00:08.250000Z")


def test_an_empty_log_is_one(tmp_path):
    verdict = judged(tmp_path, b"")
    assert reported(verdict) == []
    assert (verdict.files[0].records, verdict.files[0].head) == (0, Head())


@given(st.fixed_dictionaries({name: st.text() for name in values(1)}), st.integers(1, 2**53 - 1))
def test_records_are_hashed_in_the_form_of_rfc_8785(texts, sequence):
    record = {**{name: sanitised(text) for name, text in texts.items()}, "sequence": sequence}
    assert canonical(record) == rfc8785.dumps(record)


@given(st.text(max_size=2_000))
def test_what_a_caller_sends_becomes_a_record_that_is_read_again(text):
    fields = {name: sanitised(text) for name in ("who", "method", "reason", "request_id")}
    line, head = make_record(Head(4, "a" * 64), values(1, **fields), torn="b" * 64)
    assert line.count(b"\n") == 1
    assert len(line) <= MAX_LINE_BYTES
    record = read_record(line[:-1])
    assert (record.head, record.previous, record.torn) == (head, "a" * 64, "b" * 64)


def test_no_character_of_a_terminal_is_kept():
    assert sanitised("a\x1b[2J\x00\n\x9b\ud800é") == "a?[2J????é"


def test_the_longest_texts_make_a_record_that_is_short_enough():
    for character in ('"', "\\", "\U0001f600", "\x01"):
        longest = {name: sanitised(character * 999) for name in ("who", "method", "reason", "request_id")}
        line, _ = make_record(Head(2**53 - 2, GENESIS), values(1, **longest), torn="b" * 64)
        assert len(line) <= MAX_LINE_BYTES


@st.composite
def changes(draw):
    """A log to which one thing was done that leaves other bytes."""
    kind = draw(st.sampled_from(["replace", "delete", "insert", "swap", "repeat", "remove", "cut"]))
    if kind in ("swap", "repeat", "remove"):
        lines = list(LINES)
        one = draw(st.integers(0, RECORDS - 1))
        other = draw(st.integers(0, RECORDS - 1).filter(lambda number: number != one))
        if kind == "swap":
            lines[one], lines[other] = lines[other], lines[one]
        elif kind == "repeat":
            lines.insert(other, lines[one])
        else:
            del lines[one]
        return b"".join(lines)
    place = draw(st.integers(0, len(TEXT) - 1))
    if kind == "cut":
        return TEXT[:place]
    if kind == "replace":
        return TEXT[:place] + draw(st.binary(min_size=1, max_size=80)) + TEXT[place + draw(st.integers(0, 80)) :]
    if kind == "delete":
        return TEXT[:place] + TEXT[place + draw(st.integers(1, 900)) :]
    place = draw(st.integers(0, len(TEXT)))
    return TEXT[:place] + draw(st.binary(min_size=1, max_size=80)) + TEXT[place:]


@given(changes())
def test_any_single_change_is_found_with_the_known_head(tmp_path_factory, text):
    if text == TEXT:
        return
    verdict = judged(tmp_path_factory.mktemp("log"), text, [HEAD])
    # Bytes that follow the last record may be a write in progress; they take nothing away.
    appended = text.startswith(TEXT) and verdict.files[0].torn_bytes == len(text) - len(TEXT)
    assert reported(verdict) != [] or appended


def test_every_byte_counts(tmp_path):
    lines, head = chain(2)
    text = b"".join(lines)
    for place in range(len(text)):
        changed = text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]
        assert reported(judged(tmp_path, changed, [head])) != [], place


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda lines: [*lines[:2], lines[2].replace(b"key:ci", b"key:me"), *lines[3:]],
            "line 3: edited: record 3 does not match its hash",
        ),
        (
            lambda lines: [*lines[:2], lines[2].replace(b":", b": ", 1), *lines[3:]],
            "line 3: edited: record 3 is not in canonical form",
        ),
        (lambda lines: [*lines[:2], *lines[3:]], "line 3: record 3 is missing before record 4"),
        (lambda lines: [*lines[:2], *lines[5:]], "line 3: records 3 to 5 are missing before record 6"),
        (lambda lines: lines[2:], "line 1: records 1 to 2 are missing before record 3"),
        (
            lambda lines: [*lines[:3], lines[1], *lines[3:]],
            "line 4: record 2 comes after record 3: it was inserted or moved",
        ),
        (lambda lines: [*lines[:3], b"\n", *lines[3:]], "line 4: not a record: it is not JSON"),
        (lambda lines: [*lines[:3], b"7\n", *lines[3:]], "line 4: not a record: it is not a JSON object"),
        (lambda lines: [*lines[:3], b"{}\n", *lines[3:]], "line 4: not a record: its fields are not those of a record"),
        (lambda lines: [*lines[:3], b"[" * 7_000 + b"\n", *lines[3:]], "line 4: not a record: it is not JSON"),
        (lambda lines: [*lines[:3], b"x" * 99_999 + b"\n", *lines[3:]], "line 4: not a record: it is too long"),
        (
            lambda lines: [*lines[:3], make_record(Head(3, GENESIS), values(4))[0], *lines[4:]],
            "line 4: record 4 does not match the hash of the previous record: one was replaced",
        ),
    ],
)
def test_completed_work_is_reported_with_the_error(tmp_path, change, expected):
    assert reported(judged(tmp_path, b"".join(change(LINES))))[0] == f"sampler-host-1.jsonl, {expected}"


def test_a_record_that_was_edited_with_its_hash_breaks_the_next(tmp_path):
    forged, _ = make_record(Head(2, json.loads(LINES[1])["hash"]), values(3, decision="denied"))
    found = reported(judged(tmp_path, b"".join([*LINES[:2], forged, *LINES[3:]])))
    assert found == [
        "sampler-host-1.jsonl, line 4: record 4 does not match the hash of the previous record: one was replaced"
    ]


def test_a_whole_chain_written_from_scratch_is_found_with_a_known_head(tmp_path):
    forged = b"".join(chain(who="key:other")[0])
    assert reported(judged(tmp_path, forged)) == []
    (found,) = reported(judged(tmp_path, forged, [HEAD]))
    assert found == (
        f"sampler-host-1.jsonl: record 8 with hash {HEAD.hash} is missing: it was replaced, or the end of its file"
        " was truncated"
    )


def test_a_cut_tail_is_found_with_a_head_in_it(tmp_path):
    cut = b"".join(LINES[:5])
    early = Head(4, json.loads(LINES[3])["hash"])
    assert reported(judged(tmp_path, cut, [early])) == []
    assert len(reported(judged(tmp_path, cut, [early, HEAD]))) == 1


def test_a_torn_write_is_reported_until_the_next_record_names_it(tmp_path):
    torn = LINES[5][:40]
    verdict = judged(tmp_path, b"".join(LINES[:5]) + torn)
    assert reported(verdict) == []
    assert (verdict.files[0].records, verdict.files[0].torn_bytes) == (5, 40)


def test_a_record_with_fields_of_a_wrong_type_is_malformed():
    invalid = InvalidRecord("not a record: its fields are not those of a record", tampered=True)
    good = json.loads(LINES[0])
    assert read_record(LINES[0][:-1]) != invalid
    for wrong in (
        {"sequence": True},
        {"sequence": 0},
        {"sequence": 1.0},
        {"sequence": 2**53},
        {"who": None},
        {"time": "yesterday"},
        {"resource": "projects/p"},
        {"decision": "maybe"},
        {"previous": "A" * 64},
        {"torn": ""},
        {"extra": ""},
    ):
        line = json.dumps({**good, **wrong}).encode()
        assert read_record(line) == invalid, wrong


def test_ten_of_many_problems_are_reported(tmp_path):
    lines, _ = chain(60)
    assert len(reported(judged(tmp_path, b"".join(lines[::2])))) == 10


def test_a_folder_is_all_its_files_and_a_head_may_be_in_any(tmp_path):
    (tmp_path / "sampler-a-1.jsonl").write_bytes(TEXT)
    (tmp_path / "sampler-a-2.jsonl").write_bytes(b"".join(LINES[1:]))
    (tmp_path / "other.txt").write_text("not ours")
    verdict = verify(tmp_path, [HEAD])
    assert [report.file for report in verdict.files] == ["sampler-a-1.jsonl", "sampler-a-2.jsonl"]
    assert reported(verdict) == ["sampler-a-2.jsonl, line 1: record 1 is missing before record 2"]


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(InvalidFieldError, match="ROWMINT_AUDIT_LOG"):
        verify(tmp_path)


@pytest.mark.parametrize("text", ["", "1", "x:" + GENESIS, "1:" + "g" * 64, "1:abc", f"-1:{GENESIS}", f"²:{GENESIS}"])
def test_what_is_not_a_head_is_refused(text):
    with pytest.raises(InvalidFieldError, match="SEQUENCE:HASH"):
        parse_head(text)


def run(*arguments):
    return CliRunner().invoke(app, ["audit", "verify", *arguments])


def test_the_command_reports_records_times_and_head(tmp_path):
    (tmp_path / "sampler-a-1.jsonl").write_bytes(TEXT + b'{"dec')
    done = run(str(tmp_path), "--since", str(HEAD))
    assert done.exit_code == 0, done.output
    _, row = done.stdout.splitlines()
    assert row.split() == [
        "sampler-a-1.jsonl",
        "8",
        "2025-03-01T12:00:01.250000Z",
        "2025-03-01T12:00:08.250000Z",
        str(HEAD),
    ]
    assert done.stderr == (
        "sampler-a-1.jsonl: 5 bytes after the last record are incomplete: a write is in progress, or was interrupted\n"
    )
    assert json.loads(run(str(tmp_path), "--json").stdout) == {
        "files": [
            {
                "file": "sampler-a-1.jsonl",
                "records": 8,
                "first_time": "2025-03-01T12:00:01.250000Z",
                "last_time": "2025-03-01T12:00:08.250000Z",
                "head": str(HEAD),
                "torn_bytes": 5,
            }
        ],
        "problems": [],
        "notices": [],
    }


def test_the_command_fails_where_something_is_wrong_and_says_where(tmp_path):
    (tmp_path / "sampler-a-1.jsonl").write_bytes(b"".join(LINES[1:]))
    done = run(str(tmp_path))
    assert done.exit_code == 1
    assert done.stderr == "rowmint: sampler-a-1.jsonl, line 1: record 1 is missing before record 2\n"
    done = run(str(tmp_path), "--json")
    assert json.loads(done.stdout)["problems"] == [
        {"file": "sampler-a-1.jsonl", "line": 1, "message": "record 1 is missing before record 2"}
    ]


def test_the_command_says_what_a_head_is(tmp_path):
    (tmp_path / "sampler-a-1.jsonl").write_bytes(TEXT)
    done = run(str(tmp_path), "--since", "last")
    assert (done.exit_code, done.stderr) == (
        1,
        "rowmint: since: 'last' must be SEQUENCE:HASH, as reported in the service's log\n",
    )
