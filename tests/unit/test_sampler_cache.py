"""The model cache: one load for all callers, bounded by bytes, nothing parsed before it is verified."""

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rowmint.conditions import AnyOf, Predicate
from rowmint.errors import DataLossError, LimitError, ResourceNotFoundError
from rowmint.names import ModelName, ModelVersionName
from rowmint.objects import MemoryStore
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.sampling.plan import compile_plan
from rowmint.synthesizer import choose_kernel
from sampler_service import model_cache, plan_cache
from sampler_service.model_cache import ModelCache
from sampler_service.plan_cache import PlanCache
from sampler_service.single_flight import SingleFlightCache
from tests.golden.make import FAMILIES, stored
from tests.golden.streams import Catalog, golden_catalog, golden_model, reference


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


def test_a_model_is_warm_when_it_is_handed_out(catalog, executor, monkeypatch):
    drawn = []
    monkeypatch.setattr(model_cache, "draw_first_row", drawn.append)
    loaded = asyncio.run(cache_of(catalog, executor).get(reference("tvae")))
    assert drawn == [loaded.model]


def test_a_plan_is_compiled_once(executor, monkeypatch):
    compiled = []

    def counting(*arguments):
        compiled.append(arguments[2])
        return compile_plan(*arguments)

    monkeypatch.setattr(plan_cache, "compile_plan", counting)

    async def ask():
        cache, model = PlanCache(executor), golden_model("ctgan")
        wanted = [Predicate("grade", AnyOf((1,)))]
        plans = await asyncio.gather(*[cache.get(model, wanted, "p") for _ in range(5)], cache.get(model, [], "p"))
        assert len({plan.digest for plan in plans}) == 2

    asyncio.run(ask())
    assert len(compiled) == 2


def elsewhere(family):
    """The same bytes as a model of another project."""
    return replace(reference(family), model=ModelName("elsewhere", family))


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
    compiled = []

    def counting(*arguments):
        compiled.append(arguments[2])
        return compile_plan(*arguments)

    monkeypatch.setattr(plan_cache, "compile_plan", counting)

    async def ask():
        cache, model = PlanCache(executor), golden_model("ctgan")
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
