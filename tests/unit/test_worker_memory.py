"""The memory that a worker may take: how much by default, that it is held, and what a job says that needs more."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from rowmint.errors import DataProblem, InvalidDataError, LimitError
from trainer_service.memory import default_worker_memory, machine_memory, memory_error
from trainer_service.settings import TrainerSettings

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
_TOO_MUCH = "the job needs more memory than a worker may take (7 bytes, ROWMINT_WORKER_MEMORY_BYTES)"
_ALLOCATES = """
import json, sys
from pathlib import Path
import pyarrow as pa
from trainer_service.memory import limited_memory, memory_error

def tried(call):
    try:
        call()
    except BaseException as error:
        return str(memory_error(error, 7)).partition(";")[0]
    return "fits"

limit, scratch = int(sys.argv[1]), Path(sys.argv[2])
wants = [lambda: bytearray(16 << 20), lambda: bytearray(200 << 20), lambda: pa.allocate_buffer(200 << 20)]
with limited_memory(limit, scratch):
    within = [tried(want) for want in wants]
print(json.dumps([within, [tried(want) for want in wants]]))
"""


@pytest.mark.parametrize(
    ("workers", "memory", "expected"),
    [
        (1, 4 * GIB, 2 * GIB),  # the least, though it is more than a share
        (1, 64 * GIB, 64 * GIB * 4 // 5 // 2),
        (4, 64 * GIB, 64 * GIB * 4 // 5 // 8),
        (64, 64 * GIB, 2 * GIB),
    ],
)
def test_the_default_is_a_share_of_the_machine(workers, memory, expected):
    assert default_worker_memory(workers, memory) == expected


def test_the_memory_of_a_container_is_its_limit(tmp_path):
    whole = machine_memory([tmp_path / "none"])
    limit, unlimited = tmp_path / "limit", tmp_path / "max"
    limit.write_text("1073741824\n")
    unlimited.write_text("max\n")
    assert whole > 64 << 20
    assert machine_memory([unlimited]) == whole
    assert machine_memory([unlimited, limit]) == min(whole, GIB)


def test_a_worker_is_given_the_number(tmp_path):
    default = TrainerSettings(home=tmp_path, workers=2)
    assert default.for_worker()["worker_memory_bytes"] == default_worker_memory(2, machine_memory())
    assert TrainerSettings(home=tmp_path, worker_memory_bytes=0).for_worker()["worker_memory_bytes"] == 0


@pytest.mark.parametrize(
    ("limit", "within"),
    [
        (0, ["fits", "fits", "fits"]),
        (
            100 << 20,
            ["fits", *["the job needs more memory than a worker may take (7 bytes, ROWMINT_WORKER_MEMORY_BYTES)"] * 2],
        ),
    ],
)
def test_what_passes_the_limit_fails_and_nothing_does_afterwards(tmp_path, limit, within):
    environment = {"ARROW_DEFAULT_MEMORY_POOL": "system", "PATH": ""}
    command = [sys.executable, "-c", _ALLOCATES, str(limit), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [within, ["fits", "fits", "fits"]]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (pa.ArrowMemoryError("malloc of size 1 failed"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("not enough memory"), False),
        (LimitError("some other limit"), False),
    ],
)
def test_errors_of_memory_are_recognised(error, is_memory):
    wrapped = InvalidDataError([DataProblem("the file is corrupt")])
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        found = memory_error(raised, 5 * GIB)
        assert isinstance(found, LimitError) is is_memory
        if found is not None:
            assert found.metadata == {"limit": str(5 * GIB), "setting": "ROWMINT_WORKER_MEMORY_BYTES"}
    unlimited = memory_error(MemoryError(), 0)
    assert unlimited is not None
    assert unlimited.message.startswith("the job needs more memory than the machine has")


def test_an_error_that_is_its_own_context_is_recognised():
    one, other = ValueError("one"), KeyError("other")
    one.__context__, other.__context__ = other, one
    assert memory_error(one, 1) is None
