"""The model cache: one load for all callers, bounded by bytes, nothing parsed before it is verified."""

import asyncio
import gc
import hashlib
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rowmint import steps
from rowmint.conditions import AnyOf, Predicate, WeightedTest, Weights, canonical_steps
from rowmint.errors import DataLossError, LimitError, ResourceNotFoundError, UnavailableError, ValueNotFoundError
from rowmint.names import ModelName, ModelVersionName
from rowmint.objects import MemoryStore
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.sampling.plan import plan_steps
from rowmint.synthesizer import choose_kernel
from rowmint.synthesizer.interface import TILE_SIZE
from sampler_service import model_cache, plan_cache
from sampler_service.model_cache import ModelCache
from sampler_service.plan_cache import PlanCache
from sampler_service.single_flight import SingleFlightCache
from tests.golden.make import FAMILIES, stored
from tests.golden.streams import WHERES, Catalog, golden_catalog, golden_model, reference
from tests.waiting import wait_until


class CountingStore(MemoryStore):
    """Counts reads, and can block them."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def get(self, key: str) -> bytes:
        self.entered.set()
        self.gate.wait(30)
        self.reads.append(key)
        return super().get(key)


@pytest.fixture
def catalog():
    made = Catalog()
    made.store = CountingStore()
    for family in FAMILIES:
        made.put(family, *stored(family))
    return made


@pytest.fixture
def executor():
    with ThreadPoolExecutor(4) as threads:
        yield threads


def cache_of(catalog, executor, max_bytes=1 << 28):
    lookups = ProjectThreads(executor, 4)
    return ModelCache(catalog, catalog.store, choose_kernel("numpy"), executor, max_bytes, lookups=lookups)


def test_one_load_for_all_callers(catalog, executor):
    async def ask():
        loop = asyncio.get_running_loop()
        cache = cache_of(catalog, executor)
        catalog.store.gate.clear()
        waiting = [asyncio.ensure_future(cache.get(reference("ctgan"))) for _ in range(10)]
        await loop.run_in_executor(None, catalog.store.entered.wait, 30)
        waiting[0].cancel()  # the first caller leaves: the load continues for the others
        catalog.store.gate.set()
        loaded = await asyncio.gather(*waiting[1:])
        assert len({id(each.model) for each in loaded}) == 1
        again = await cache.get(reference("ctgan"))
        assert again.model is loaded[0].model

    asyncio.run(ask())
    assert sorted(catalog.store.reads) == ["ctgan/manifest", "ctgan/weights"]


def test_the_least_recently_used_is_evicted(catalog, executor):
    async def sizes():
        cache, found = cache_of(catalog, executor), {}
        for family in FAMILIES:
            before = cache.size_bytes
            await cache.get(reference(family))
            found[family] = cache.size_bytes - before
        return found

    measured = asyncio.run(sizes())
    assert all(size > len(stored(family)[0]) for family, size in measured.items())
    catalog.store.reads.clear()
    room = measured["ctgan"] + measured["tvae"]

    async def ask():
        cache = cache_of(catalog, executor, max(room, *[sum(map(len, stored(family))) for family in FAMILIES]))
        for family in ("ctgan", "tvae", "ctgan", "independent", "ctgan", "tvae"):
            await cache.get(reference(family))
            assert cache.size_bytes <= cache._max_bytes

    asyncio.run(ask())
    loads = [key.split("/")[0] for key in catalog.store.reads if key.endswith("manifest")]
    assert loads == ["ctgan", "tvae", "independent", "tvae"]


@pytest.mark.parametrize("part", ["manifest", "weights"])
@pytest.mark.parametrize("position", [0, 100, -1])
def test_a_flipped_bit_is_found_before_anything_is_parsed(executor, part, position, monkeypatch):
    catalog = golden_catalog()
    data = bytearray(catalog.store.get(f"ctgan/{part}"))
    data[position] ^= 1
    catalog.store.delete(f"ctgan/{part}")
    catalog.store.put(f"ctgan/{part}", bytes(data))
    parsed = []
    monkeypatch.setattr(model_cache, "read_model", lambda *arguments: parsed.append(arguments))
    with pytest.raises(DataLossError, match="corrupt") as caught:
        asyncio.run(cache_of(catalog, executor).get(reference("ctgan")))
    assert parsed == []
    assert caught.value.metadata == {"name": str(catalog.records["ctgan"].name)}


def test_a_missing_or_short_object(executor):
    catalog = golden_catalog()
    weights = catalog.store.get("tvae/weights")
    catalog.store.delete("tvae/weights")
    with pytest.raises(DataLossError) as caught:
        asyncio.run(cache_of(catalog, executor).get(reference("tvae")))
    assert caught.value.metadata == {"key": "tvae/weights", "name": str(catalog.records["tvae"].name)}
    catalog.store.put("tvae/weights", weights[:-1])
    with pytest.raises(DataLossError):
        asyncio.run(cache_of(catalog, executor).get(reference("tvae")))


@pytest.mark.parametrize("field", ["model_digest", "manifest_digest"])
def test_a_registry_that_says_another_digest(catalog, executor, field):
    catalog.records["ctgan"] = replace(catalog.records["ctgan"], **{field: bytes(32)})
    with pytest.raises(DataLossError):
        asyncio.run(cache_of(catalog, executor).get(reference("ctgan")))


def test_bytes_that_are_not_a_model(executor):
    catalog = golden_catalog()
    record = catalog.records["ctgan"]
    catalog.store.put("broken", b"{}")
    digest = hashlib.sha256(b"{}").digest()
    catalog.records["ctgan"] = replace(
        record, manifest_key="broken", manifest_size=2, manifest_sha256=digest, manifest_digest=digest
    )
    with pytest.raises(DataLossError):
        asyncio.run(cache_of(catalog, executor).get(reference("ctgan")))


def test_what_failed_is_tried_again(catalog, executor):
    async def ask():
        cache = cache_of(catalog, executor)
        weights = catalog.store.get("ctgan/weights")
        catalog.store.delete("ctgan/weights")
        results = await asyncio.gather(*[cache.get(reference("ctgan")) for _ in range(3)], return_exceptions=True)
        assert [type(result) for result in results] == [DataLossError] * 3
        catalog.store.put("ctgan/weights", weights)
        assert (await cache.get(reference("ctgan"))).name.model == "ctgan"

    asyncio.run(ask())


def test_a_deleted_version_is_not_served_from_the_cache(catalog, executor):
    async def ask():
        cache = cache_of(catalog, executor)
        await cache.get(reference("ctgan"))
        del catalog.records["ctgan"]
        with pytest.raises(ResourceNotFoundError):
            await cache.get(reference("ctgan"))

    asyncio.run(ask())


def test_a_model_larger_than_the_cache_is_refused_unread(catalog, executor):
    with pytest.raises(LimitError) as error:
        asyncio.run(cache_of(catalog, executor, 1000).get(reference("ctgan")))
    assert error.value.metadata["setting"] == "ROWMINT_MODEL_CACHE_BYTES"
    assert catalog.store.reads == []


def test_a_model_that_takes_more_memory_than_its_files_is_refused_and_read_once(catalog, executor):
    room = sum(map(len, stored("ctgan"))) + 100
    assert golden_model("ctgan").memory_bytes > room

    async def ask():
        cache = cache_of(catalog, executor, room)
        for _ in range(2):
            with pytest.raises(LimitError, match=rf"takes {golden_model('ctgan').memory_bytes} bytes of memory"):
                await cache.get(reference("ctgan"))
        return cache.size_bytes, cache.held_bytes

    assert asyncio.run(ask()) == (0, 0)
    assert sorted(catalog.store.reads) == ["ctgan/manifest", "ctgan/weights"]


@pytest.mark.parametrize("expected", [True, False], ids=["refused by its files", "refused by its size"])
def test_models_that_are_evicted_count_while_they_are_in_use(catalog, executor, expected):
    sizes = {family: golden_model(family).memory_bytes for family in FAMILIES}
    room = sizes["ctgan"] if expected else (2 * sizes["ctgan"] + sizes["tvae"]) // 2 - 1

    async def ask():
        cache = cache_of(catalog, executor, room)
        used = [(await cache.get(reference(family))).model for family in ("ctgan", "tvae")]
        assert (cache.size_bytes, cache.held_bytes) == (sizes["tvae"], sizes["tvae"] + sizes["ctgan"])
        # No more than twice as much is ever held: what is in use cannot be evicted.
        reads = len(catalog.store.reads)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="retry at another replica") as raised:
                await cache.get(elsewhere("ctgan"))
        # Its size is known once it was read, if that was needed: then it is refused unread.
        assert len(catalog.store.reads) == reads + (0 if expected else 2)
        assert raised.value.metadata["setting"] == "ROWMINT_MODEL_CACHE_BYTES"
        assert raised.value.retry_after == pytest.approx(0.1)
        assert cache.held_bytes <= 2 * room
        used.clear()
        gc.collect()
        again = await cache.get(elsewhere("ctgan", "p9"))
        assert (cache.size_bytes, cache.held_bytes) == (sizes["ctgan"], sizes["ctgan"])
        assert again.model.digest == golden_model("ctgan").digest

    asyncio.run(ask())


def test_a_model_counts_while_it_is_loaded(catalog, executor):
    sizes = {family: golden_model(family).memory_bytes for family in FAMILIES}
    expected = model_cache.loading_bytes(*map(len, stored("ctgan")))
    assert sizes["tvae"] < expected

    async def ask():
        loop = asyncio.get_running_loop()
        cache = cache_of(catalog, executor, sizes["ctgan"] + expected)
        for family in ("tvae", "ctgan"):
            await cache.get(reference(family))
        catalog.store.gate.clear()
        catalog.store.entered.clear()
        loading = asyncio.ensure_future(cache.get(elsewhere("ctgan")))
        await loop.run_in_executor(None, catalog.store.entered.wait, 30)
        # Never loaded before, it counts by its files, and what was used least recently is evicted for it.
        found = cache.size_bytes, cache.held_bytes
        catalog.store.gate.set()
        await loading
        assert found == (sizes["ctgan"], sizes["ctgan"] + expected)

    asyncio.run(ask())


def test_a_model_is_warm_when_it_is_handed_out(catalog, executor, monkeypatch):
    drawn = []
    monkeypatch.setattr(model_cache, "draw_first_row", drawn.append)
    loaded = asyncio.run(cache_of(catalog, executor).get(reference("tvae")))
    assert drawn == [loaded.model]


def counted_compilations(monkeypatch):
    """Return a list that gets the conditions of each plan that is compiled from now on."""
    compiled = []

    def counting(*arguments):
        compiled.append(arguments[2])
        return plan_steps(*arguments)

    monkeypatch.setattr(plan_cache, "plan_steps", counting)
    return compiled


def test_a_plan_is_compiled_once(executor, monkeypatch):
    compiled = counted_compilations(monkeypatch)

    async def ask():
        cache, model = PlanCache(lambda _: executor), golden_model("ctgan")
        wanted = [Predicate("grade", AnyOf((1,)))]
        plans = await asyncio.gather(*[cache.get(model, wanted, "p") for _ in range(5)], cache.get(model, [], "p"))
        assert len({plan.digest for plan in plans}) == 2

    asyncio.run(ask())
    assert len(compiled) == 2


class Exact:
    """Meets every condition and all weights."""

    tile_size = TILE_SIZE

    def __init__(self):
        self.plan_inputs, self.acceptance, self.probability, self.size_bytes = {}, 1.0, 0.125, 0
        self.proposed = []

    def propose_steps(self, tests, weights=None):
        yield
        self.proposed.append((tests, weights))
        return self


def test_plans_are_kept_no_longer_than_their_model_is(executor, monkeypatch):
    compiled = counted_compilations(monkeypatch)

    async def ask():
        cache = PlanCache(lambda _: executor)
        model, other = replace(golden_model("ctgan")), golden_model("independent")
        tables = weakref.ref((await cache.get(model, [Predicate("grade", AnyOf((1,)))], "p")).proposal)
        kept = await cache.get(other, [], "p")
        assert tables() is not None
        gone = weakref.ref(model)
        del model
        # The thread that compiled may hold on to what it did for a moment.
        await asyncio.to_thread(wait_until, lambda: gone() is None, "the end of the model")
        assert await cache.get(other, [], "p") is kept
        await asyncio.to_thread(wait_until, lambda: tables() is None, "the end of its tables")
        await cache.get(golden_model("ctgan"), [Predicate("grade", AnyOf((1,)))], "p")

    asyncio.run(ask())
    assert len(compiled) == 3


def test_weights_have_a_plan_of_their_own_however_they_are_written(executor):
    def of_grade(*shares):
        return Weights("grade", tuple(WeightedTest(AnyOf((grade,)), share) for grade, share in shares))

    async def ask():
        synthesizer = Exact()
        cache, model = PlanCache(lambda _: executor), replace(golden_model("ctgan"), synthesizer=synthesizer)
        where = [Predicate("age", AnyOf((30, 31)))]
        written = [of_grade((1, 1), (2, 3)), of_grade((2, 0.75), (1, 0.25)), of_grade((1, 2), (2, 3)), None]
        plans = [await cache.get(model, where, "p", weights) for weights in (*written, *written)]
        assert plans[:4] == plans[4:]
        assert plans[0] is plans[1]
        assert len({plan.digest for plan in plans}) == len(synthesizer.proposed) == 3
        assert [plan.weights is None for plan in plans[:4]] == [False, False, False, True]
        assert {plan.probability for plan in plans} == {0.125}

    asyncio.run(ask())


def elsewhere(family, project="elsewhere"):
    """The same bytes as a model of another project."""
    return replace(reference(family), model=ModelName(project, family))


def test_projects_share_no_model_even_where_they_are_equal(catalog, executor):
    own = catalog.records["ctgan"]
    other = replace(own, name=ModelVersionName("elsewhere", "ctgan", 1))

    async def ask():
        cache = cache_of(catalog, executor)
        first = await cache.get(reference("ctgan"))
        alone = cache.size_bytes
        catalog.records["ctgan"] = other
        second = await cache.get(elsewhere("ctgan"))
        assert second.model is not first.model
        assert second.model.digest == first.model.digest
        assert (cache.size_bytes, cache.loaded_bytes(own.name), cache.loaded_bytes(other.name)) == (
            2 * alone,
            alone,
            alone,
        )
        assert (await cache.get(elsewhere("ctgan"))).model is second.model

    asyncio.run(ask())
    assert sorted(catalog.store.reads) == ["ctgan/manifest"] * 2 + ["ctgan/weights"] * 2


def test_projects_evict_each_others_models_as_any(catalog, executor):
    async def ask():
        cache = cache_of(catalog, executor)
        await cache.get(reference("ctgan"))
        alone = cache.size_bytes
        cache = cache_of(catalog, executor, max(alone, sum(map(len, stored("ctgan")))) + alone // 2)
        for each in (reference("ctgan"), elsewhere("ctgan")):
            await cache.get(each)
            assert cache.size_bytes == alone

    asyncio.run(ask())


def test_projects_share_no_plan(executor, monkeypatch):
    compiled = counted_compilations(monkeypatch)

    async def ask():
        cache, model = PlanCache(lambda _: executor), golden_model("ctgan")
        wanted = [Predicate("grade", AnyOf((1,)))]
        plans = [await cache.get(model, wanted, project) for project in ("p", "q", "p", "q")]
        assert len({plan.digest for plan in plans}) == 1
        assert (plans[2], plans[3]) == (plans[0], plans[1])

    asyncio.run(ask())
    assert len(compiled) == 2


def test_single_flight_evicts_by_weight():
    async def ask():
        made = []
        cache: SingleFlightCache[str, int] = SingleFlightCache(10, lambda value: value)

        async def get(key, value):
            async def make():
                made.append(key)
                return value

            return await cache.get(key, make)

        assert [await get("a", 6), await get("b", 4), await get("a", 6), await get("c", 3)] == [6, 4, 6, 3]
        assert (cache.total, len(cache)) == (9, 2)
        assert await get("too heavy", 11) == 11
        assert (cache.total, len(cache)) == (9, 2)
        assert [await get("a", 6), await get("b", 4)] == [6, 4]
        return made

    assert asyncio.run(ask()) == ["a", "b", "c", "too heavy", "b"]


@pytest.mark.parametrize("ends_unwanted", [False, True])
def test_a_flight_that_no_caller_waits_for_ends_where_the_cache_says_so(ends_unwanted):
    async def scenario():
        cache: SingleFlightCache[str, int] = SingleFlightCache(10, lambda _: 1, ends_unwanted=ends_unwanted)
        made, begun, go = [], asyncio.Semaphore(0), asyncio.Event()

        async def make():
            begun.release()
            await go.wait()
            made.append(len(made))
            return made[-1]

        callers = [asyncio.create_task(cache.get("a", make)) for _ in range(2)]
        await begun.acquire()
        callers[0].cancel()
        await asyncio.gather(callers[0], return_exceptions=True)
        # One caller is left: it waits for the same flight, which a third joins.
        third = asyncio.create_task(cache.get("a", make))
        callers[1].cancel()
        await asyncio.gather(callers[1], return_exceptions=True)
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)
        last = asyncio.create_task(cache.get("a", make))
        if ends_unwanted:
            await begun.acquire()
        go.set()
        assert (await last, await cache.get("a", make)) == (0, 0)
        return begun.locked(), len(cache._waiting)

    # No flight was begun beside those that were waited for above.
    assert asyncio.run(scenario()) == (True, 0)


def test_a_plan_that_no_caller_waits_for_is_not_compiled(executor, monkeypatch):
    drawn, gate, come = [], threading.Event(), threading.Event()

    def held(*arguments):
        for step in plan_steps(*arguments):
            drawn.append(step)
            come.set()
            gate.wait(30)
            yield
        raise AssertionError("the pilot was drawn to its end")

    monkeypatch.setattr(plan_cache, "plan_steps", held)
    monkeypatch.setattr(steps, "TURN_SECONDS", 0.0)  # a step is a task of its own

    async def scenario():
        cache = PlanCache(lambda _: executor)
        caller = asyncio.create_task(cache.get(golden_model("ctgan"), WHERES["many tests"], "p"))
        await asyncio.to_thread(come.wait, 30)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        gate.set()

    asyncio.run(scenario())
    assert len(drawn) == 1


def test_conditions_are_read_once_as_they_are_written(executor, monkeypatch):
    read = []

    def counting(where, schema):
        read.append(tuple(where))
        return canonical_steps(where, schema)

    monkeypatch.setattr(plan_cache, "canonical_steps", counting)

    async def scenario():
        cache, model = PlanCache(lambda _: executor), golden_model("ctgan")
        one, same, flag = (Predicate("grade", AnyOf(values)) for values in ((1, 2), (2, 1), (True, 2)))
        plans = [await cache.get(model, [where], "p") for where in (one, same, one, same)]
        assert len(set(map(id, plans))) == 1
        assert read == [(one,), (same,)]
        # Equal in Python, and another value: it is read, and refused each time.
        for _ in range(2):
            with pytest.raises(ValueNotFoundError):
                await cache.get(model, [flag], "p")
        # What is long is not remembered as it is written.
        long = [Predicate("age", AnyOf(tuple(range(10, 60)) * 40))]
        before = len(read)
        assert await cache.get(model, long, "p") is await cache.get(model, long, "p")
        assert len(read) == before + 2

    asyncio.run(scenario())


def test_plans_are_bounded_by_their_conditions(executor, monkeypatch):
    compiled = counted_compilations(monkeypatch)

    async def scenario():
        model = golden_model("independent")
        cache = PlanCache(lambda _: executor, max_bytes=100_000)
        # Every second number: a range each.
        large = [[Predicate("age", AnyOf(tuple(range(first, 80, 2))))] for first in range(10, 20)]
        for where in (*large, *large):
            await cache.get(model, where, "p")
        assert cache._plans.total <= 100_000

    asyncio.run(scenario())
    assert len(compiled) == 20
