"""Arrays that are used again: a thread's own, as large as requested, the same memory while it suffices."""

import threading

import numpy as np
import pytest

from rowmint.synthesizer.exact.workspace import KEPT_BYTES, Workspace


def test_an_array_has_the_requested_shape_and_type():
    workspace = Workspace()
    for shape, dtype in [
        ((3, 4), np.int32),
        ((0, 5), np.int16),
        ((7,), np.bool_),
        ((2, 3, 5), np.uint64),
        ((), np.int8),
    ]:
        found = workspace.array("a", shape, dtype)
        assert (found.shape, found.dtype) == (shape, dtype)
        assert found.flags.c_contiguous
        assert found.flags.aligned
        assert found.flags.writeable


def test_memory_is_used_again_while_it_suffices():
    workspace = Workspace()
    large = workspace.array("a", (100,), np.int64)
    small = workspace.array("a", (7, 3), np.int16)
    assert np.shares_memory(large, small)
    assert np.shares_memory(large, workspace.array("a", (100,), np.int64))
    larger = workspace.array("a", (101,), np.int64)
    assert not np.shares_memory(large, larger)
    assert np.shares_memory(larger, workspace.array("a", (1,), np.int8))


def test_large_arrays_are_not_kept():
    workspace = Workspace()
    kept = workspace.array("a", (KEPT_BYTES,), np.uint8)
    large = workspace.array("a", (KEPT_BYTES + 1,), np.uint8)
    assert large.nbytes == KEPT_BYTES + 1
    assert not np.shares_memory(large, workspace.array("a", (KEPT_BYTES + 1,), np.uint8))
    assert np.shares_memory(kept, workspace.array("a", (5,), np.uint8))


def test_names_and_workspaces_share_nothing():
    workspace = Workspace()
    arrays = [
        workspace.array("a", (9,), np.int32),
        workspace.array("b", (9,), np.int32),
        Workspace().array("a", (9,), np.int32),
    ]
    assert not any(np.shares_memory(one, other) for one in arrays for other in arrays if one is not other)


def test_each_thread_has_its_own():
    workspace = Workspace()
    own = workspace.array("a", (64,), np.int32)
    own.fill(7)
    both = threading.Barrier(2)
    failed = []

    def work(number):
        for _ in range(50):
            array = workspace.array("a", (64,), np.int32)
            array.fill(number)
            both.wait(30)  # the other has written too
            failed.extend([] if (array == number).all() and not np.shares_memory(array, own) else [number])
            both.wait(30)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert own.tolist() == [7] * 64


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_smaller_array_is_the_start_of_the_memory(size):
    workspace = Workspace()
    workspace.array("a", (1000,), np.uint8)[:] = np.arange(1000) % 251
    assert workspace.array("a", (size,), np.uint8).tolist() == [value % 251 for value in range(size)]
