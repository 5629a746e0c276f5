"""The memory that a worker may take, and what it says where that is not enough."""

import errno
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rowmint.errors import LimitError, RowmintError

SETTING = "ROWMINT_WORKER_MEMORY_BYTES"
_LEAST_DEFAULT = 2 << 30
# Of the memory of a machine the trainer and everything else keep a fifth; each worker may have a second one beside it.
_SHARE_NUMERATOR, _SHARE_DENOMINATOR = 4, 5
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# torch, allocators and threads reserve far more address space than they use.
_ADDRESSES = 4
_WORDS = ("not enough memory", "can't allocate memory", "Cannot allocate memory", "can't start new thread")


def machine_memory(limits: Sequence[Path] = _CGROUP_LIMITS) -> int:
    """Return the bytes of memory of this machine, or of the container that this process is in.

    Args:
        limits: Files that may hold the limit of a control group.
    """
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in limits:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max": no limit
            found = min(found, int(text))
    return found


def default_worker_memory(workers: int, memory: int) -> int:
    """Return the bytes that a worker may take where nothing is set.

    Args:
        workers: Workers of each of the two kinds of jobs.
        memory: Bytes of the machine.
    """
    return max(_LEAST_DEFAULT, memory * _SHARE_NUMERATOR // _SHARE_DENOMINATOR // (2 * workers))


@contextmanager
def limited_memory(limit: int, scratch: Path) -> Iterator[None]:
    """Bound what this process takes beyond what it has now, for as long as the context lasts.

    Private memory is bounded by `limit`; the address space by four times as much and the size of the disk of
    temporary files, which are mapped. What would pass either fails, as a `MemoryError` or in the words of a library;
    both are lifted before that is handled.

    Args:
        limit: Bytes; 0 for no limit.
        scratch: Folder of temporary files.
    """
    sizes = _own_sizes()
    if not limit or sizes is None:
        yield
        return
    data, addresses = sizes
    disk = os.statvfs(scratch)
    wanted = {
        resource.RLIMIT_DATA: data + limit,
        resource.RLIMIT_AS: addresses + _ADDRESSES * limit + disk.f_frsize * disk.f_blocks,
    }
    before = {kind: resource.getrlimit(kind) for kind in wanted}
    for kind, most in wanted.items():
        soft, hard = before[kind]
        bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
        resource.setrlimit(kind, (min([most, *bounds]), hard))
    try:
        yield
    finally:
        for kind, old in before.items():
            resource.setrlimit(kind, old)


def memory_error(error: BaseException, limit: int) -> RowmintError | None:
    """Return what a job says that ran out of memory; None where `error` is something else.

    Args:
        error: What ended it.
        limit: Bytes that a worker may take; 0 for no limit.
    """
    if not ran_out_of_memory(error):
        return None
    most = f"a worker may take ({limit} bytes, {SETTING})" if limit else "the machine has"
    return LimitError(
        f"the job needs more memory than {most}; take a smaller table, network or batch, or raise the limit",
        metadata={"limit": str(limit), "setting": SETTING},
    )


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or what it was raised from, is that memory could not be had."""
    cause: BaseException | None = error
    seen: set[int] = set()  # an error that was kept and raised again may be the context of its own cause
    while cause is not None and id(cause) not in seen:
        if _is_out_of_memory(cause):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def _own_sizes() -> tuple[int, int] | None:
    """Return the bytes of private writable memory and of address space of this process; None where not on Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmData:", "VmSize:"))}
    return int(sizes["VmData"]) << 10, int(sizes["VmSize"]) << 10
