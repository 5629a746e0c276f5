"""Audit logs of which the end was removed: found by the next start, and by `rowmint audit verify`."""

import asyncio
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from rowmint.cli.app import app
from rowmint.errors import DataLossError, InvalidFieldError, UnavailableError
from rowmint.security import audit
from rowmint.security.audit import AuditEntry, AuditLog, HeadSchedule
from rowmint.security.audit_chain import Head
from rowmint.security.audit_file import AuditFile
from rowmint.security.audit_head import logged_heads, read_head
from rowmint.security.audit_verify import verify
from tests.waiting import PATIENCE, wait_until

NOON = datetime(2025, 3, 1, 12, 0, 0, tzinfo=UTC)
NAME = "sampler-host-1.jsonl"
NAMED = "though its head file names it: it was replaced, or the end was truncated"
UNVOUCHED = ", and no later file, known head or log names its last record: records may have been removed from its end"


def opened(folder):
    return AuditLog(folder, "sampler", "host", lambda: NOON)


def keep(log, *ids):
    async def all_of_them():
        await asyncio.gather(*(log.record(AuditEntry("key:ci", "m", "", "allowed", "", one)) for one in ids))

    asyncio.run(all_of_them())


def lines(folder):
    return (folder / NAME).read_bytes().splitlines(keepends=True)


def killed(log, source, target):
    """Copy what a service leaves that is killed now, and end it in peace."""
    shutil.copytree(source, target)
    log.close()
    return target


@pytest.fixture
def folder(tmp_path):
    """An audit log of two starts, the second killed: records 1 to 3 and 4 to 8."""
    log = opened(tmp_path / "running")
    keep(log, "one")
    keep(log, "two")
    log.close()
    log = opened(tmp_path / "running")
    for one in ("three", "four", "five", "six"):
        keep(log, one)
    return killed(log, tmp_path / "running", tmp_path / "audit")


def problems(path, since=()):
    return [str(problem) for problem in verify(path, since).problems]


def notices(path):
    return [str(notice) for notice in verify(path).notices]


def test_the_head_is_reported_at_the_first_record_each_minute_and_each_thousand():
    schedule = HeadSchedule()
    schedule.reported(1, 100.0, at_start=True)
    assert (schedule.due(1, 100.0), schedule.seconds_left(1, 100.0)) == (False, 60.0)
    assert (schedule.due(1, 900.0), schedule.seconds_left(1, 900.0)) == (False, 60.0)
    assert (schedule.due(2, 900.0), schedule.seconds_left(2, 900.0)) == (True, 0.0)
    schedule.reported(2, 900.0, at_start=False)
    assert (schedule.due(3, 900.0), schedule.seconds_left(3, 900.0)) == (False, 60.0)
    assert (schedule.due(500, 959.0), schedule.seconds_left(500, 959.0)) == (False, 1.0)
    assert (schedule.due(500, 960.0), schedule.seconds_left(500, 960.0)) == (True, 0.0)
    assert (schedule.due(1_001, 901.0), schedule.due(1_002, 901.0)) == (False, True)


def test_the_head_file_and_the_services_log_have_the_start_and_the_first_record(tmp_path):
    with capture_logs() as logs:
        log = opened(tmp_path)
        assert read_head(tmp_path / NAME).head == log.head
        keep(log, "one")
        reported = read_head(tmp_path / NAME)
        assert (reported.start, reported.head, reported.time) == (1, log.head, "2025-03-01T12:00:00.000000Z")
    log.close()
    assert [(one["event"], one["file"], one["start"], one["sequence"]) for one in logs] == [
        ("audit log", NAME, 1, 1),
        ("audit log", NAME, 1, 2),
    ]
    assert [one["hash"] for one in logs] == [json.loads(line)["hash"] for line in lines(tmp_path)]


def test_the_head_is_reported_though_no_further_record_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_HEAD_SECONDS", 0.01)
    log = opened(tmp_path)
    keep(log, "one")
    keep(log, "two")
    wait_until(lambda: read_head(tmp_path / NAME).head == log.head, "the report")
    log.close()


def test_records_cut_from_the_end_are_found_by_verification_and_by_the_next_start(folder):
    whole = lines(folder)
    reported = read_head(folder / NAME).head
    assert (len(whole), reported.sequence) == (8, 5)
    for left in range(len(whole) + 1):
        (folder / NAME).write_bytes(b"".join(whole[:left]))
        # What was written after the last report is what a minute is worth.
        cut = left < reported.sequence
        assert problems(folder) == ([f"{NAME}: record 5 with hash {reported.hash} is missing, {NAMED}"] if cut else [])
        if not cut:
            continue
        with pytest.raises(DataLossError) as caught:
            opened(folder)
        found = f"the file ends with record {left}" if left else "the file was emptied or removed"
        assert caught.value.message == (
            f"the audit log {NAME} was cut: its head file sampler-host-1.head names record 5, and {found}; move both"
            " out of the folder, examine them with `rowmint audit verify`, and start the service again"
        )


def test_a_removed_file_is_found_by_verification_and_by_the_next_start(folder):
    (folder / NAME).unlink()
    assert problems(folder) == [f"{NAME}: is missing: its head file is there; it was removed, or moved alone"]
    with pytest.raises(DataLossError, match="the file was emptied or removed"):
        opened(folder)
    # And again, until an operator has looked.
    with pytest.raises(DataLossError, match="the file was emptied or removed"):
        opened(folder)


def test_a_file_that_was_replaced_by_another_chain_is_found_by_the_next_start(folder, tmp_path):
    log = opened(tmp_path / "forged")
    keep(log, *(f"{number}" for number in range(20)))
    log.close()
    shutil.copy(tmp_path / "forged" / NAME, folder / NAME)
    with pytest.raises(DataLossError, match="names record 5, and the file has another one"):
        opened(folder)
    assert len(problems(folder)) == 1


def test_a_removed_head_file_is_found_before_and_after_the_next_start(folder):
    (folder / NAME).write_bytes(b"".join(lines(folder)[:6]))
    (folder / "sampler-host-1.head").unlink()
    assert problems(folder) == [
        f"{NAME}: its head file sampler-host-1.head is missing{UNVOUCHED}",
    ]
    with capture_logs() as logs:
        opened(folder).close()
    assert logs[0]["event"] == "the audit log has no head file: a release before wrote it, or it was removed"
    assert problems(folder) == [
        f"{NAME}, line 7: start 1 comes after start 2: records or its head file were removed",
    ]


def test_a_damaged_head_file_is_found(folder):
    (folder / "sampler-host-1.head").write_bytes(b"{}")
    said = "sampler-host-1.head: is not the head file of an audit log"
    assert problems(folder)[0] == f"{NAME}: {said}"
    with pytest.raises(DataLossError, match=said):
        opened(folder)


def test_an_emptied_file_without_its_head_file_is_found_by_the_services_log_alone(folder, tmp_path):
    last = json.loads(lines(folder)[-1])
    line = {"event": "audit log", "sequence": last["sequence"], "hash": last["hash"], "start": 2, "file": NAME}
    log = tmp_path / "sampler.log"
    log.write_text(f"not JSON\n{json.dumps(line)}\n")
    (folder / NAME).write_bytes(b"")
    (folder / "sampler-host-1.head").unlink()
    assert (problems(folder), notices(folder)) == (
        [],
        [f"{NAME}: is empty: its service ended before it wrote a record, or it was emptied"],
    )
    done = CliRunner().invoke(app, ["audit", "verify", str(folder), "--log", str(log)])
    assert done.exit_code == 1
    assert f"record 8 with hash {last['hash']} is missing: it was replaced" in done.stderr
    assert "is empty: its service ended before it wrote a record" in done.stderr


REPORTING = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from rowmint.logs import configure_logs
from rowmint.security.audit import AuditEntry, AuditLog

configure_logs("sampler", log_format=sys.argv[2])
folder = Path(sys.argv[1])
log = AuditLog(folder, "sampler", "host", lambda: datetime.now(UTC))
asyncio.run(log.record(AuditEntry("key:ci", "m", "", "allowed", "", "one")))
(folder / "sampler-host-1.jsonl").rename(folder / "rotated.jsonl")
asyncio.run(log.record(AuditEntry("key:ci", "m", "", "allowed", "", "two")))
log.close()
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_heads_are_read_from_the_log_as_the_services_write_it(tmp_path, log_format):
    path = tmp_path / "sampler.log"
    with path.open("wb") as output:
        subprocess.run(
            [sys.executable, "-c", REPORTING, tmp_path, log_format], stderr=output, check=True, timeout=PATIENCE
        )
    written = [
        json.loads(line) for name in ("rotated.jsonl", NAME) for line in (tmp_path / name).read_bytes().splitlines()
    ]
    first_start, one, second_start, two = [Head(record["sequence"], record["hash"]) for record in written]
    # The last of the file that was moved, and that of each start and first record and of the end.
    assert logged_heads(path) == [first_start, one, one, second_start, two, two]
    assert CliRunner().invoke(app, ["audit", "verify", str(tmp_path), "--log", str(path)]).exit_code == 0


def test_a_log_without_heads_is_refused(tmp_path):
    (tmp_path / "sampler.log").write_text('{"event": "call"}\n{"event": "audit log"\naudit log sequence=1\n')
    with pytest.raises(InvalidFieldError, match="reports no head of an audit log"):
        logged_heads(tmp_path / "sampler.log")


def test_a_file_moved_while_its_service_runs_ends_with_the_record_that_the_next_names(tmp_path):
    log = opened(tmp_path)
    keep(log, "one")
    (tmp_path / NAME).rename(tmp_path / "rotated.jsonl")
    keep(log, "two")
    log.close()
    assert (problems(tmp_path), notices(tmp_path)) == ([], [])
    rotated = tmp_path / "rotated.jsonl"
    rotated.write_bytes(rotated.read_bytes().splitlines(keepends=True)[0])
    assert problems(tmp_path) == [
        f"rotated.jsonl: its head file rotated.head is missing{UNVOUCHED}",
    ]
    rotated.unlink()
    assert (problems(tmp_path), notices(tmp_path)) == (
        [],
        [f"{NAME}: continues a file that ends with record 2, which is not here"],
    )


def test_a_file_moved_while_its_service_waits_is_followed_at_once_and_at_the_end(tmp_path, monkeypatch):
    log = opened(tmp_path)
    keep(log, "one")
    (tmp_path / NAME).rename(tmp_path / "first.jsonl")
    log.close()
    assert [json.loads(line)["method"] for line in lines(tmp_path)] == ["rowmint.audit/Continue"]
    monkeypatch.setattr(audit, "_HEAD_SECONDS", 0.01)
    log = opened(tmp_path)
    (tmp_path / NAME).rename(tmp_path / "second.jsonl")
    wait_until(lambda: (tmp_path / NAME).exists() and read_head(tmp_path / NAME).head == log.head, "another file")
    log.close()
    assert (problems(tmp_path), notices(tmp_path)) == ([], [])


def test_a_file_moved_with_its_head_file_while_its_service_is_stopped_is_whole(tmp_path):
    log = opened(tmp_path)
    keep(log, "one")
    log.close()
    for kind in ("jsonl", "head"):
        (tmp_path / f"sampler-host-1.{kind}").rename(tmp_path / f"rotated.{kind}")
    opened(tmp_path).close()
    assert (problems(tmp_path), notices(tmp_path)) == ([], [])


def test_an_older_copy_put_in_the_place_of_a_running_services_file_is_not_continued(tmp_path):
    log = opened(tmp_path)
    keep(log, "one")
    shutil.copy(tmp_path / NAME, tmp_path / "older")
    keep(log, *(f"{number}" for number in range(1_300)))
    (tmp_path / "older").rename(tmp_path / NAME)
    with pytest.raises(UnavailableError):
        keep(log, "late")
    log.close()
    assert len(problems(tmp_path)) == 1


@pytest.mark.parametrize("after", ["the head file", "the record of the start"])
def test_a_service_that_is_killed_while_it_starts_leaves_neither_gap_nor_repetition(tmp_path, monkeypatch, after):
    log = opened(tmp_path)
    keep(log, "one")
    log.close()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if after == "the head file":
            patched.setattr(AuditFile, "append", full)
            with pytest.raises(UnavailableError):
                opened(tmp_path)
        else:
            ended = opened(tmp_path)
            patched.setattr(AuditFile, "write_head", full)
            ended.close()
            left = json.loads((tmp_path / "sampler-host-1.head").read_bytes())
            before = {**left, "begun": False, "sequence": 2, "hash": json.loads(lines(tmp_path)[1])["hash"]}
            (tmp_path / "sampler-host-1.head").write_text(json.dumps(before))
    log = opened(tmp_path)
    keep(log, "two")
    log.close()
    starts = [json.loads(line)["request_id"] for line in lines(tmp_path) if b"rowmint.audit/Start" in line]
    assert starts == [f"start-{number}" for number in range(1, len(starts) + 1)]
    assert problems(tmp_path) == []


def test_records_are_kept_though_the_head_file_cannot_be_written(tmp_path, monkeypatch):
    log = opened(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AuditFile, "write_head", full)
    with capture_logs() as logs:
        keep(log, "one")
    log.close()
    assert [(one["event"], one["log_level"]) for one in logs] == [
        ("audit log", "info"),
        ("the head file of the audit log cannot be written", "error"),
    ]
    assert problems(tmp_path) == []


def test_a_file_of_a_release_before_is_continued(tmp_path):
    log = opened(tmp_path / "new")
    keep(log, "one")
    log.close()
    (tmp_path / "old").mkdir()
    # As releases before wrote them: a chain without starts, and no head file.
    old = AuditFile(tmp_path / "old", "sampler-host")
    record = json.loads(lines(tmp_path / "new")[1])
    old.append([{name: record[name] for name in record.keys() - {"sequence", "previous", "hash"}}])
    old.close()
    assert problems(tmp_path / "old") == []
    opened(tmp_path / "old").close()
    assert problems(tmp_path / "old") == []
    assert [json.loads(line)["request_id"] for line in lines(tmp_path / "old")] == ["one", "start-1"]
