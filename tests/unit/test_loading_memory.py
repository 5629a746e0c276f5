"""What loading a model takes at its peak is what the sampler reserves for it, whatever it is large in."""

import tracemalloc
from collections.abc import Callable

import pytest

from rowmint.artifact import Artifact, read_model
from rowmint.sampling.verification import draw_first_row
from rowmint.synthesizer import choose_kernel
from sampler_service.model_cache import loading_bytes
from tests.golden.make import artifact
from tests.large_circuits import large_circuit

CHAIN = (-1, *range(5))
STAR = (-1, *[0] * 5)
_BESIDE = 1 << 20
"""Bytes of the objects that any load makes."""

MODELS: dict[str, Callable[[], Artifact]] = {
    "ctgan": lambda: artifact("ctgan"),
    "tvae": lambda: artifact("tvae"),
    "circuit of many pairs": lambda: large_circuit(CHAIN, bins=256, pairs=256),
    "circuit of few pairs": lambda: large_circuit(STAR, bins=512, pairs=4),
    "circuit of many states": lambda: large_circuit(CHAIN, states=256, components=1, pairs=8),
    "circuit of many components": lambda: large_circuit(STAR, states=16, components=32, pairs=40),
    "circuit of many columns": lambda: large_circuit((-1, *range(99)), states=16, components=1, bins=32, pairs=8),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_load_takes_no_more_than_is_reserved_for_it(name: str) -> None:
    made = MODELS[name]()
    manifest, weights = made.manifest, made.weights
    del made
    kernel = choose_kernel("numpy")
    draw_first_row(read_model(manifest, weights, kernel))  # what only the first load imports is none of its memory
    tracemalloc.start()
    try:
        draw_first_row(read_model(manifest, weights, kernel))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak + len(manifest) + len(weights) <= loading_bytes(len(manifest), len(weights)) + _BESIDE
