"""Completions that ask for the most candidates of a wide model: in the memory that is counted, and none is kept."""

from collections.abc import Callable

from rowmint.artifact import read_model
from rowmint.sampling.completion import RowCompletion
from rowmint.sampling.spec import CompletionSpec
from rowmint.steps import finish
from rowmint.synthesizer import choose_kernel
from tests.hostile.confined import GROWTH, resident, trim
from tests.hostile.large_models import KERNELS, numbers
from tests.hostile.uploads import equal

CANDIDATES = 65_536
COLUMNS, MODES = 20, 20
BESIDE = 16 << 20
"""Bytes of what is not counted: tables, a kernel's sessions, rows."""


def most_candidates(kernel: str) -> None:
    """Complete rows of two groups that know every column; then let go of them."""
    made = numbers(COLUMNS, MODES)
    model = read_model(made.manifest, made.weights, choose_kernel(kernel))
    known = dict.fromkeys(model.schema.names, 1.5)
    spec = CompletionSpec(seed=1, start_row=255, candidates=256)
    # What every completion needs is no one's growth.
    equal(2, len(finish(RowCompletion(model, spec).complete([known, {}]))))
    trim()
    before = resident()
    with GROWTH.measured():
        completion = RowCompletion(model, CompletionSpec(seed=1, start_row=255, candidates=CANDIDATES))
        counted = completion.memory_bytes([known, known])
        equal(2, len(finish(completion.complete([known, known]))))
    if GROWTH.largest > counted + BESIDE:
        raise AssertionError(f"it took {GROWTH.largest} bytes, and counted {counted}")
    del completion
    trim()
    equal(True, resident() - before < BESIDE)


CASES: dict[str, Callable[[], None]] = {kernel: lambda kernel=kernel: most_candidates(kernel) for kernel in KERNELS}
