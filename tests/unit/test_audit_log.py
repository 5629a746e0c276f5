"""The audit log as it is written: beside others, after cut writes, on disks that are full or gone."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rowmint.errors import DataLossError, UnavailableError
from rowmint.security import audit, audit_file
from rowmint.security.audit import AuditEntry, AuditLog
from rowmint.security.audit_chain import GENESIS, Head
from rowmint.security.audit_verify import verify
from tests.waiting import PATIENCE, wait_until

NOON = datetime(2025, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
KINDS = ("head", "jsonl")
MODEL = "projects/flights/models/delays"
MODEL_SHA256 = "4dbe4d9a1fdd9be88f3b9e8eb330cddc188d747efc30192e11d07209304e737a"


def entry(request_id="r", **others):
    fields = {
        "caller": "key:ci",
        "method": "rowmint.v1.SamplingService/Sample",
        "resource": MODEL,
        "decision": "allowed",
    }
    return AuditEntry(**{**fields, "request_id": request_id, **others})


def opened(folder, service="sampler"):
    return AuditLog(folder, service, "host", lambda: NOON)


def keep(log, *entries):
    async def all_of_them():
        await asyncio.gather(*map(log.record, entries))

    asyncio.run(all_of_them())


def records(path):
    """Return all records of a file as JSON values."""
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]


def written(folder, number=1):
    """Return the records of calls in a file, which must be unmodified, as JSON values."""
    path = folder / f"sampler-host-{number}.jsonl"
    assert [str(problem) for problem in verify(path).problems] == []
    return [one for one in records(path) if not one["method"].startswith("rowmint.audit/")]


def test_a_record_has_caller_method_time_and_decision(tmp_path):
    log = AuditLog(tmp_path / "audit", "sampler", "host", lambda: NOON.astimezone(timezone(timedelta(hours=5))))
    keep(log, entry("one"))
    keep(log, entry("", resource="", decision="denied", reason="PERMISSION_DENIED"))
    head = log.head
    log.close()
    start = records(tmp_path / "audit" / "sampler-host-1.jsonl")[0]
    first, second = written(tmp_path / "audit")
    assert first == {
        "sequence": 2,
        "time": "2025-03-01T12:00:00.000005Z",
        "who": "key:ci",
        "method": "rowmint.v1.SamplingService/Sample",
        "resource": MODEL_SHA256,
        "decision": "allowed",
        "reason": "",
        "request_id": "one",
        "previous": start["hash"],
        "hash": first["hash"],
    }
    assert (second["sequence"], second["previous"], second["resource"]) == (3, first["hash"], "")
    assert (second["decision"], second["reason"]) == ("denied", "PERMISSION_DENIED")
    assert head == Head(3, second["hash"])


def test_the_first_record_of_each_start_is_its_number(tmp_path):
    for _ in range(2):
        log = opened(tmp_path)
        keep(log, entry())
        log.close()
    first, _, second, _ = records(tmp_path / "sampler-host-1.jsonl")
    assert first == {
        "sequence": 1,
        "time": "2025-03-01T12:00:00.000005Z",
        "who": "service:sampler",
        "method": "rowmint.audit/Start",
        "resource": "",
        "decision": "allowed",
        "reason": "",
        "request_id": "start-1",
        "previous": GENESIS,
        "hash": first["hash"],
    }
    assert (second["sequence"], second["method"], second["request_id"]) == (3, "rowmint.audit/Start", "start-2")


def test_folder_and_file_are_their_owners_only(tmp_path):
    old = os.umask(0)
    try:
        opened(tmp_path / "audit").close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o700
    for name in ("sampler-host-1.jsonl", "sampler-host-1.head"):
        assert stat.S_IMODE((tmp_path / "audit" / name).stat().st_mode) == 0o600


def test_an_unknown_decision_is_refused():
    with pytest.raises(ValueError, match="'maybe' must be one of allowed, denied, unauthenticated"):
        entry(decision="maybe")


def test_a_restarted_service_continues_its_chain(tmp_path):
    for number in range(3):
        log = opened(tmp_path)
        keep(log, entry(f"{number}"))
        log.close()
    assert [(one["sequence"], one["request_id"]) for one in written(tmp_path)] == [(2, "0"), (4, "1"), (6, "2")]


def test_processes_beside_each_other_have_a_file_each(tmp_path):
    logs = [opened(tmp_path), opened(tmp_path), opened(tmp_path, "trainer")]
    logs[0].close()
    logs.append(opened(tmp_path))
    for number, log in enumerate(logs[1:], 1):
        keep(log, entry(f"{number}"))
        log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}.{kind}"
        for name in ("sampler-host-1", "sampler-host-2", "trainer-host-1")
        for kind in ("head", "jsonl")
    ]
    assert [one["request_id"] for one in written(tmp_path, 1)] == ["3"]
    assert [one["request_id"] for one in written(tmp_path, 2)] == ["1"]


def test_a_host_of_any_name_makes_a_file_name(tmp_path):
    AuditLog(tmp_path, "sampler", "../a b", lambda: NOON).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sampler-.._a_b-1.head", "sampler-.._a_b-1.jsonl"]


class Gate:
    """Stands in for `os.fsync` of audit logs: holds the first caller until it is released."""

    def __init__(self):
        self.calls = 0
        self.reached = threading.Event()
        self.go = threading.Event()

    def __call__(self, file):
        if Path(f"/proc/self/fd/{file}").readlink().suffix != ".jsonl":
            return  # a head file, or the folder
        self.calls += 1
        self.reached.set()
        assert self.go.wait(PATIENCE)


def test_entries_that_wait_for_a_sync_share_the_next_one(tmp_path, monkeypatch):
    log = opened(tmp_path)
    gate = Gate()
    monkeypatch.setattr(audit_file.os, "fsync", gate)

    async def many():
        first = asyncio.create_task(log.record(entry("first")))
        assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
        others = [asyncio.create_task(log.record(entry(f"{number}"))) for number in range(200)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in [first, *others])
        gate.go.set()
        await asyncio.gather(first, *others)

    asyncio.run(many())
    log.close()
    assert gate.calls == 2
    assert [one["request_id"] for one in written(tmp_path)] == ["first", *(f"{number}" for number in range(200))]


def test_an_entry_is_kept_though_its_task_is_cancelled(tmp_path, monkeypatch):
    log = opened(tmp_path)
    gate = Gate()
    monkeypatch.setattr(audit_file.os, "fsync", gate)

    async def given_up():
        task = asyncio.create_task(log.record(entry("given up")))
        assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.go.set()
        await log.record(entry("next"))

    asyncio.run(given_up())
    log.close()
    assert [one["request_id"] for one in written(tmp_path)] == ["given up", "next"]


def test_closing_writes_what_waits_and_refuses_what_comes_later(tmp_path, monkeypatch):
    log = opened(tmp_path)
    gate = Gate()
    monkeypatch.setattr(audit_file.os, "fsync", gate)

    async def late():
        waiting = [asyncio.create_task(log.record(entry(f"{number}"))) for number in range(3)]
        assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
        gate.go.set()
        await asyncio.to_thread(log.close)
        await asyncio.gather(*waiting)
        with pytest.raises(UnavailableError):
            await log.record(entry("late"))

    asyncio.run(late())
    log.close()
    assert [one["request_id"] for one in written(tmp_path)] == ["0", "1", "2"]


def test_too_many_that_wait_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_MAX_PENDING", 2)
    log = opened(tmp_path)
    gate = Gate()
    monkeypatch.setattr(audit_file.os, "fsync", gate)

    async def crowd():
        first = asyncio.create_task(log.record(entry()))
        assert await asyncio.to_thread(gate.reached.wait, PATIENCE)
        waiting = [asyncio.create_task(log.record(entry())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError) as caught:
            await log.record(entry())
        gate.go.set()
        await asyncio.gather(first, *waiting)
        return caught.value.retry_after

    assert asyncio.run(crowd()) == 1.0
    log.close()
    assert len(written(tmp_path)) == 3


def test_a_last_line_torn_anywhere_is_named_by_the_next_record(tmp_path):
    log = opened(tmp_path)
    path, head_file = tmp_path / "sampler-host-1.jsonl", tmp_path / "sampler-host-1.head"
    keep(log, entry("one"))
    begin, head = path.stat().st_size, head_file.read_bytes()
    keep(log, entry("two"))
    log.close()
    whole = path.read_bytes()
    end = len(whole)
    for place in (begin, begin + 1, *range(begin + 2, end - 2, 11), end - 2, end - 1):
        path.write_bytes(whole[:place])
        head_file.write_bytes(head)  # as the process left it that was killed while it wrote
        log = opened(tmp_path)
        keep(log, entry("three"))
        log.close()
        # A record that lacks its newline only is there, though no caller was answered so.
        kept = ["one", "two", "three"] if place == end - 1 else ["one", "three"]
        found = written(tmp_path)
        assert [one["request_id"] for one in found] == kept, place
        assert ("torn" in records(path)[-2]) is (begin < place < end - 1), place


def test_a_write_that_is_cut_twice_leaves_a_file_that_is_whole(tmp_path):
    log = opened(tmp_path)
    keep(log, entry("one"))
    log.close()
    path = tmp_path / "sampler-host-1.jsonl"
    for torn in (b'{"decision":"al', b'\n{"decision":"allowed","ha', b"\n\x00\x00\x00\n\n", b"9" * 20_000):
        with path.open("ab") as file:
            file.write(torn)
        opened(tmp_path).close()
    log = opened(tmp_path)
    keep(log, entry("two"), entry("three"))
    log.close()
    assert [one["request_id"] for one in written(tmp_path)] == ["one", "two", "three"]


def test_the_first_record_may_be_the_one_that_was_cut(tmp_path):
    (tmp_path / "sampler-host-1.jsonl").write_bytes(b'{"decision":"al')
    log = opened(tmp_path)
    keep(log, entry("one"))
    log.close()
    assert [(one["sequence"], one["request_id"]) for one in written(tmp_path)] == [(2, "one")]
    assert "torn" in records(tmp_path / "sampler-host-1.jsonl")[0]


@pytest.mark.parametrize("ended", [True, False])
def test_an_edited_last_record_is_not_a_torn_write(tmp_path, ended):
    log = opened(tmp_path)
    keep(log, entry("one"))
    keep(log, entry("two"))
    log.close()
    path = tmp_path / "sampler-host-1.jsonl"
    edited = path.read_bytes().replace(b'"request_id":"two"', b'"request_id":"six"')
    path.write_bytes(edited if ended else edited[:-1])
    with pytest.raises(DataLossError) as caught:
        opened(tmp_path)
    assert str(caught.value) == (
        "the end of the audit log sampler-host-1.jsonl was modified: edited: record 3 does not match its hash; move"
        " the file out of the folder, examine it with `rowmint audit verify`, and start the service again"
    )


def test_only_the_end_of_a_long_file_is_read_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_file, "_WINDOW_BYTES", 2_000)
    log = opened(tmp_path)
    for number in range(20):
        keep(log, entry(f"{number}"))
    log.close()
    path = tmp_path / "sampler-host-1.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"request_id":"1"', b'"request_id":"7"'))
    log = opened(tmp_path)
    keep(log, entry("last"))
    log.close()
    assert [str(problem) for problem in verify(path).problems] == [
        "sampler-host-1.jsonl, line 3: edited: record 3 does not match its hash"
    ]
    path.write_bytes(whole + b"9" * 3_000)
    with pytest.raises(DataLossError, match="it contains no record"):
        opened(tmp_path)


def test_a_file_that_was_moved_is_followed_by_another_and_its_head_is_logged(tmp_path):
    log = opened(tmp_path)
    keep(log, entry("one"))
    old = log.head
    (tmp_path / "sampler-host-1.jsonl").rename(tmp_path / "old.jsonl")
    with capture_logs() as logs:
        keep(log, entry("two"))
    log.close()
    assert logs[0] == {
        "event": "the audit log was moved; a new file is started",
        "log_level": "warning",
        "file": "sampler-host-1.jsonl",
        "sequence": 2,
        "hash": old.hash,
    }
    assert [(one["event"], one["start"], one["sequence"]) for one in logs[1:]] == [
        ("audit log", 2, 1),
        ("audit log", 2, 2),
    ]
    assert [(one["sequence"], one["request_id"]) for one in written(tmp_path)] == [(2, "two")]
    first = records(tmp_path / "sampler-host-1.jsonl")[0]
    assert (first["method"], first["request_id"], first["reason"]) == ("rowmint.audit/Continue", "start-2", str(old))
    verdict = verify(tmp_path, [old, log.head])
    assert (verdict.problems, verdict.notices) == ((), ())


def test_nothing_is_kept_where_the_folder_is_gone(tmp_path):
    folder = tmp_path / "audit"
    log = opened(folder)
    keep(log, entry("one"))
    folder.rename(tmp_path / "away")
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(UnavailableError) as caught:
                keep(log, entry("lost"))
            assert caught.value.retry_after == 1.0
            assert str(folder) not in str(caught.value)
    assert logs == [
        {
            "event": "the audit log cannot be written: calls are refused",
            "log_level": "error",
            "error": "No such file or directory",
        }
    ]
    (tmp_path / "away").rename(folder)
    keep(log, entry("two"))
    log.close()
    assert [one["request_id"] for one in written(folder)] == ["one", "two"]


def test_a_folder_that_cannot_be_created_is_reported_with_its_setting(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="ROWMINT_AUDIT_LOG") as caught:
        opened(tmp_path / "file" / "audit")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text[:-9], "line 3: not a record: it is not JSON"),
        (lambda text: text + b"{}", "line 4: not a record: its fields are not those of a record"),
        (lambda text: b"", "line 1: not a record: it is not JSON"),
    ],
)
def test_a_change_of_the_file_under_a_service_is_logged_and_hides_no_later_record(tmp_path, change, problem):
    log = opened(tmp_path)
    keep(log, entry("one"))
    keep(log, entry("two"))
    path = tmp_path / "sampler-host-1.jsonl"
    text = path.read_bytes()
    os.truncate(path, 0)
    with path.open("ab") as file:
        file.write(change(text))
    with capture_logs() as logs:
        keep(log, entry("three"))
    assert [one["event"] for one in logs] == ["the audit log was modified by another process"]
    keep(log, entry("four"))
    log.close()
    verdict = verify(path, [log.head])
    assert str(verdict.problems[0]) == f"sampler-host-1.jsonl, {problem}"
    assert path.read_bytes().count(b'"request_id":"three"') == 1
    assert path.read_bytes().count(b'"request_id":"four"') == 1


def test_the_head_is_logged_each_thousand_records_and_at_the_end(tmp_path):
    log = opened(tmp_path)
    with capture_logs() as logs:
        keep(log, *(entry(f"{number}") for number in range(1_300)))
        keep(log, *(entry(f"{number}") for number in range(20)))
        log.close()
    heads = [(one["event"], one["file"], one["sequence"]) for one in logs]
    assert heads[-1] == ("audit log", "sampler-host-1.jsonl", 1_321)
    # The first entry is written alone, or together with others that came before the thread did.
    first, thousand = [sequence for _, _, sequence in heads[:-1]]
    assert 2 <= first <= 257
    assert 1_000 <= thousand - first < 1_000 + 256
    hashes = {one["sequence"]: one["hash"] for one in written(tmp_path)}
    assert [hashes[one["sequence"]] for one in logs] == [one["hash"] for one in logs]


def test_times_are_in_the_order_of_records(tmp_path):
    ticks = count()
    log = AuditLog(tmp_path, "sampler", "host", lambda: NOON + timedelta(seconds=next(ticks)))
    keep(log, *(entry(f"{number}") for number in range(50)))
    log.close()
    times = [one["time"] for one in written(tmp_path)]
    assert times == sorted(times)
    assert len(set(times)) == 50


_LIMITED = """
import asyncio, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from rowmint.errors import UnavailableError
from rowmint.security.audit import AuditEntry, AuditLog

# What a full disk does to a write, a limit of a file's size does: a part is written, and then nothing.
folder, beyond = Path(sys.argv[1]), int(sys.argv[2])
log = AuditLog(folder, "sampler", "host", lambda: datetime.now(UTC))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)

def keep(*ids):
    async def them():
        return await asyncio.gather(
            *(log.record(AuditEntry("key:ci", "m", "", "allowed", "", one)) for one in ids), return_exceptions=True
        )
    return [type(found).__name__ for found in asyncio.run(them())]

path = folder / "sampler-host-1.jsonl"
start = path.stat().st_size
assert keep("one") == ["NoneType"]
size = path.stat().st_size
# All of the next record but its newline, where a negative number is given: its id is that much longer.
room = size - start + len("refused") - len("one") - 1 if beyond < 0 else beyond
resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, most))
assert keep("refused") == ["UnavailableError"], beyond
assert keep("refused", "refused") == ["UnavailableError"] * 2, beyond
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
assert keep("two", "three") == ["NoneType"] * 2
log.close()
"""


@pytest.mark.parametrize("beyond", [0, 1, 200, -1])
def test_nothing_is_kept_on_a_full_disk_and_the_file_is_whole_afterwards(tmp_path, beyond):
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, tmp_path, str(beyond)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = [one["request_id"] for one in written(tmp_path)]
    assert [one for one in kept if one != "refused"] == ["one", "two", "three"]
    assert ("torn" in written(tmp_path)[-2]) is (beyond in (1, 200))


_WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from rowmint.logs import configure_logs
from rowmint.security.audit import AuditEntry, AuditLog

configure_logs("sampler", level="error")
log = AuditLog(Path(sys.argv[1]), "sampler", "host", lambda: datetime.now(UTC))

async def one_after_the_other(name):
    for number in range(100_000):
        request = f"{sys.argv[2]}-{name}-{number}"
        await log.record(AuditEntry("key:ci", "m", "", "allowed", "", request))
        print(request, flush=True)

async def main():
    await asyncio.gather(*map(one_after_the_other, range(8)))

asyncio.run(main())
"""


def test_a_kill_at_any_time_loses_no_acknowledged_record(tmp_path):
    acknowledged = []
    for life, after in enumerate((1, 40, 9, 300, 77, 150)):
        printed = tmp_path / f"acknowledged-{life}"
        with printed.open("wb") as output:
            writer = subprocess.Popen(
                [sys.executable, "-c", _WRITER, tmp_path / "audit", str(life)], stdout=output, stderr=subprocess.STDOUT
            )
        try:
            wait_until(lambda printed=printed, after=after: printed.read_bytes().count(b"\n") >= after, "some records")
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        # The last line may be in the writing.
        acknowledged += printed.read_text().split("\n")[:-1]
    path = tmp_path / "audit" / "sampler-host-1.jsonl"
    opened(tmp_path / "audit").close()
    kept = [one["request_id"] for one in written(tmp_path / "audit")]
    assert len(kept) == len(set(kept))
    assert set(acknowledged) <= set(kept)
    assert {one.partition("-")[0] for one in acknowledged} == {"0", "1", "2", "3", "4", "5"}
    starts = [one["request_id"] for one in records(path) if one["method"] == "rowmint.audit/Start"]
    assert starts == [f"start-{number}" for number in range(1, 8)]
    assert {path.name for path in (tmp_path / "audit").iterdir()} == {"sampler-host-1.jsonl", "sampler-host-1.head"}
