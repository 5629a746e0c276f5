"""The C library's allocator: what is freed goes back to the system. On glibc; elsewhere nothing is done."""

import ctypes
import gc

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
_ARENAS = 4
_MAPPED_BYTES = 256 << 10


def prefer_small_heaps() -> None:
    """Let large blocks be mappings of their own, and few heaps serve all threads.

    glibc learns from blocks that are freed: after the first message of an upload it would take the next ones from the
    heaps of dozens of threads, which keep what lies below a block still in use.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        library.mallopt(_M_ARENA_MAX, _ARENAS)


def release_free_memory() -> None:
    """Collect what only cycles keep, and give what is free in the heaps back to the system; takes some milliseconds.

    gRPC's state of a call that was aborted is such a cycle, with the last message received.
    """
    gc.collect()
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
