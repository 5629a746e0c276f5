"""Completions that ask for the most candidates of a wide model: in the memory that is counted, and none is kept."""

from collections.abc import Callable

import numpy as np

from rowmint.artifact import FittedModel, Model, read_model, write_model
from rowmint.codecs import NumericCodec
from rowmint.sampling.completion import RowCompletion
from rowmint.sampling.spec import CompletionSpec
from rowmint.schema import ColumnKind, DataType, TableSchema
from rowmint.synthesizer import choose_kernel
from rowmint.synthesizer.heads import column_heads
from tests.golden.make import column, network
from tests.hostile.confined import GROWTH, resident, trim
from tests.hostile.uploads import equal

CANDIDATES = 65_536
COLUMNS, MODES = 20, 20
BESIDE = 16 << 20
"""Bytes of what is not counted: tables, a kernel's sessions, rows."""


def wide_model(kernel: str) -> Model:
    """Return a model of 400 choices and a decoder of the usual size."""
    schema = TableSchema(tuple(column(f"c{index}", ColumnKind.NUMERICAL, DataType.DOUBLE) for index in range(COLUMNS)))
    codec = NumericCodec(
        on_grid=False, origin=0, step=1, decimals=0, integral=False, nullable=False, lower=-50.0, upper=50.0,
        centers=np.linspace(-40.0, 40.0, MODES), widths=np.full(MODES, 8.0), points=np.zeros(0),
    )  # fmt: skip
    heads = column_heads(schema.columns, [codec] * COLUMNS)
    arrays = network(heads, 0, concatenate=False, width=128, hidden=(128, 128))
    spread = {"spread": np.full(COLUMNS, 1 << 20, np.int64)}
    made = write_model(FittedModel("tvae", schema, [codec] * COLUMNS, {"hidden_layers": 2}, {**arrays, **spread}), {})
    return read_model(made.manifest, made.weights, choose_kernel(kernel))


def most_candidates(kernel: str) -> None:
    """Complete rows of two groups that know every column; then let go of them."""
    model = wide_model(kernel)
    known = dict.fromkeys(model.schema.names, 1.5)
    spec = CompletionSpec(seed=1, start_row=255, candidates=256)
    equal(2, len(RowCompletion(model, spec).complete([known, {}])))  # what every completion needs is no one's growth
    trim()
    before = resident()
    with GROWTH.measured():
        completion = RowCompletion(model, CompletionSpec(seed=1, start_row=255, candidates=CANDIDATES))
        counted = completion.memory_bytes([known, known])
        equal(2, len(completion.complete([known, known])))
    if GROWTH.largest > counted + BESIDE:
        raise AssertionError(f"it took {GROWTH.largest} bytes, and counted {counted}")
    del completion
    trim()
    equal(True, resident() - before < BESIDE)


CASES: dict[str, Callable[[], None]] = {
    kernel: lambda kernel=kernel: most_candidates(kernel) for kernel in ("numpy", "onnxruntime")
}
