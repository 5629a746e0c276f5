"""What a kernel prepares for a query is prepared once, and bounded."""

import gc
import threading
import weakref

import pytest

from rowmint.artifact import read_model
from rowmint.conditions import AnyOf, IsNull, Predicate, Range, canonical
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.synthesizer import choose_kernel
from tests.golden.make import stored

WHERE = (
    Predicate("city", AnyOf(("Zürich",))),
    Predicate("grade", AnyOf((1, 2))),
    Predicate("age", Range(minimum=10, maximum=80)),
    Predicate("tier", IsNull(null=False)),
    Predicate("flag", AnyOf((True, None))),
)


class CountingKernel:
    """The NumPy kernel, counting the output layers that it prepares, by their width."""

    def __init__(self):
        self._kernel = choose_kernel("numpy")
        self.workspace = self._kernel.workspace
        self.prepared = []

    def hidden(self, layers, *, concatenate):
        return self._kernel.hidden(layers, concatenate=concatenate)

    def prepared_bytes(self, size, parts):
        return self._kernel.prepared_bytes(size, parts)

    def output(self, layer):
        self.prepared.append(len(layer.bias))
        return self._kernel.output(layer)


@pytest.fixture
def kernel():
    return CountingKernel()


@pytest.fixture(params=["ctgan", "tvae"])
def model(request, kernel):
    return read_model(*stored(request.param), kernel)


def first_row(model, where=WHERE, columns=("age", "ratio", "seen")):
    plan = compile_plan(model.digest, model.synthesizer, canonical(where, model.schema))
    return RowSource(model, plan, 1, columns).block(0, 1)


def test_a_query_is_prepared_by_the_first_call(model, kernel):
    first_row(model)
    # One a tested column, and one for what the conditions leave of the columns requested.
    assert len(kernel.prepared) == len(WHERE) + 1
    first_row(model)
    # Another plan, in which the same columns are tested, and other columns in another order.
    first_row(model, WHERE[::2], ("seen", "ratio"))
    assert len(kernel.prepared) == len(WHERE) + 1


def test_threads_that_need_the_same_prepare_it_once(model, kernel):
    together = threading.Barrier(4)

    def work():
        together.wait()
        first_row(model)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kernel.prepared) == len(WHERE) + 1


def test_projections_are_kept_as_long_as_there_is_room(model, kernel):
    latent = model.synthesizer._model
    names = list(latent.heads)
    pairs = [names[at : at + 2] for at in range(len(names) - 1)]
    for name in names:
        latent.group([name])
    singles = len(kernel.prepared)
    assert singles == len(names)
    most = 2 * latent.network.output_width
    for _ in range(3):
        for first in range(len(names)):
            latent.group(names[first:] + names[: max(first - 1, 0)])
        for pair in pairs:
            assert latent.group(pair) is latent.group(reversed(pair))
        assert sum(len(group.layout.outputs) for group in latent._groups._several._groups.values()) <= most
    assert latent.group(names) is latent.every_column
    # Single columns are tested by conditions, and stay however many projections come.
    before = len(kernel.prepared)
    for name in names:
        latent.group([name])
    assert len(kernel.prepared) == before


def test_the_single_columns_used_last_are_kept(model, kernel, monkeypatch):
    latent = model.synthesizer._model
    monkeypatch.setattr(latent._groups._single, "_count", 3)
    first, *others = list(latent.heads)[:5]
    for name in others:
        latent.group([name])
        latent.group([first])
    before = len(kernel.prepared)
    for name in (first, *others[-2:]):
        latent.group([name])
    assert len(kernel.prepared) == before
    latent.group([others[0]])
    assert len(kernel.prepared) == before + 1


def test_an_evicted_model_frees_its_memory_at_once(model, kernel):
    """What holds the memory is in no cycle: it does not wait for the collector, which may not come by for long."""
    first_row(model)
    group = model.synthesizer._model.group(list(model.synthesizer._model.heads)[:2])
    left = [weakref.ref(model.synthesizer._model), weakref.ref(group), weakref.ref(model.synthesizer._model.network)]
    del group
    gc.collect()
    gc.disable()
    try:
        model.__dict__.clear()
        assert [reference() for reference in left] == [None] * 3
    finally:
        gc.enable()
