"""Models that are large in one way each, untrained; and what a loaded model takes, against what it is counted with."""

from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from rowmint.artifact import Artifact, FittedModel, Model, read_model, write_model
from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.sampling.scoring import RowScoring
from rowmint.sampling.spec import ScoringSpec
from rowmint.sampling.verification import draw_first_row
from rowmint.schema import ColumnKind, ColumnSpec, DataType, TableSchema
from rowmint.steps import finish
from rowmint.synthesizer import choose_kernel
from rowmint.synthesizer.circuit.known import REMEMBERED_CELLS
from rowmint.synthesizer.circuit.synthesizer import CircuitSynthesizer
from rowmint.synthesizer.heads import column_heads
from tests.circuits import CHAIN, CircuitMaker
from tests.golden.make import REJECTING, artifact, column, network, weights_of
from tests.hostile.confined import resident, trim
from tests.large_circuits import large_circuit

KERNELS = ("numpy", "onnxruntime")
_BESIDE = 4 << 20
"""Bytes of fragments, and of what a kernel does for the first time."""
_SCORED = 256  # rows at once


def decoder(
    columns: Sequence[ColumnSpec],
    codecs: Sequence[CategoryCodec | NumericCodec],
    *,
    width: int = 128,
    hidden: Sequence[int] = (128, 128),
) -> Artifact:
    """Return the files of a TVAE of some columns."""
    schema = TableSchema(tuple(columns))
    heads = column_heads(schema.columns, codecs)
    arrays = network(heads, 0, concatenate=False, width=width, hidden=hidden)
    spread = np.full(sum(head.codec.scalar for head in heads.values()), 1 << 20, np.int64)
    made = FittedModel("tvae", schema, codecs, {"hidden_layers": len(hidden)}, {**arrays, "spread": spread})
    return write_model(made, {})


def numbers(columns: int, modes: int, **more: object) -> Artifact:
    """Return the files of a TVAE of real numbers."""
    codec = NumericCodec(
        on_grid=False, origin=0, step=1, decimals=0, integral=False, nullable=False, lower=-50.0, upper=50.0,
        centers=np.linspace(-40.0, 40.0, modes), widths=np.full(modes, 8.0), points=np.zeros(0),
    )  # fmt: skip
    named = [column(f"c{index}", ColumnKind.NUMERICAL, DataType.DOUBLE) for index in range(columns)]
    return decoder(named, [codec] * columns, **more)


def many_categories() -> Artifact:
    """Return the files of a TVAE of 100,000 categories, nearly all of them rare."""
    texts = tuple(f"category number {index:06}" for index in range(100_000))
    city = column("city", ColumnKind.CATEGORICAL, DataType.STRING, categories=texts)
    codec = CategoryCodec(len(texts), 100, nullable=False, rare_weights=weights_of(np.ones(len(texts) - 100)))
    return decoder([city], [codec])


def known_numbers() -> Artifact:
    """Return the files of a small circuit of real numbers, of which it remembers very many."""
    made = CircuitMaker(1, CHAIN, kinds=("double",)).make()
    return write_model(FittedModel("circuit", made.schema, made.codecs, made.network, made.arrays), {})


MODELS: dict[str, Callable[[], Artifact]] = {
    **{family: lambda family=family: artifact(family) for family in REJECTING},
    "categories": many_categories,
    "layers": lambda: numbers(8, 10, width=1024, hidden=(2048, 2048)),
    "columns": lambda: numbers(1024, 3),
    "modes": lambda: numbers(100, 200, hidden=(256, 256)),
    "pairs": lambda: large_circuit((-1, 0, 1, 2, 3, 4), bins=512, pairs=256),
    "known": known_numbers,
}


def _look_up(model: Model) -> None:
    """Score rows that need every table, and as many numbers as are remembered."""
    scoring, columns = RowScoring(model, ScoringSpec()), model.schema.columns
    known = {spec.name: spec.domain.categories[0] if spec.domain.categories else 2.5 for spec in columns}
    finish(scoring.score([known, *({name: value} for name, value in known.items())]))
    numbers = [spec.name for spec in columns if not spec.domain.categories]
    if numbers:
        most = REMEMBERED_CELLS // len(columns) - 1
        for first in range(0, most, _SCORED):
            rows = range(first, min(first + _SCORED, most))
            finish(scoring.score([dict.fromkeys(numbers, row / most) for row in rows]))


def takes_what_is_counted(name: str, kernel_name: str) -> None:
    """Load a model and make all that it keeps; what it takes is at least half of what is counted, and not far more."""
    kernel = choose_kernel(kernel_name)
    warm = artifact("tvae")
    draw_first_row(read_model(warm.manifest, warm.weights, kernel))
    made = MODELS[name]()
    manifest, weights = made.manifest, made.weights
    del made
    trim()
    before = resident()
    model = read_model(manifest, weights, kernel)
    draw_first_row(model)
    latent = getattr(model.synthesizer, "_model", None)
    if latent is not None:
        names, random = list(latent.heads), Random(1)
        for each in names:
            latent.group([each])
        for _ in range(40):
            latent.group(random.sample(names, max(1, len(names) // 16)))
    if isinstance(model.synthesizer, CircuitSynthesizer):
        _look_up(model)
    trim()
    taken, counted = resident() - before, model.memory_bytes
    if not 0.8 * taken - _BESIDE <= counted <= 2 * taken + _BESIDE:
        raise AssertionError(f"it takes {taken} bytes and is counted with {counted}")


CASES: dict[str, Callable[[], None]] = {
    f"{name} {kernel}": lambda name=name, kernel=kernel: takes_what_is_counted(name, kernel)
    for name in MODELS
    for kernel in KERNELS
}
