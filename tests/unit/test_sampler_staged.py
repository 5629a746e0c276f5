"""Which versions the model cache gives out: published ones, and staged ones to callers who may have them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rowmint.errors import ResourceNotFoundError, UnavailableError, WrongStateError
from rowmint.names import ModelVersionRef
from rowmint.registry import VersionState
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.synthesizer import choose_kernel
from sampler_service.model_cache import LoadedModel, ModelCache
from tests.golden.streams import Catalog, golden_catalog, reference

REF = reference("independent")
BY_ALIAS = ModelVersionRef(REF.model, alias="latest")


class StagedCatalog:
    """A catalog of one version, of a state that changes; it may be away, and notes its calls."""

    def __init__(self) -> None:
        self.catalog: Catalog = golden_catalog()
        self.record = replace(self.catalog.records["independent"], state=VersionState.STAGED)
        self.away = False
        self.requested: list[tuple[ModelVersionRef, bool]] = []

    def resolve(self, ref, *, deleted=False, unpublished=False):
        self.requested.append((ref, unpublished))
        if self.away:
            raise UnavailableError("away")
        if self.record.state is not VersionState.PUBLISHED and not unpublished:
            raise ResourceNotFoundError("there is none")
        return self.record


class Caller:
    """Who calls, one after the other."""

    may = False

    def sees_unpublished(self, project: str) -> bool:
        assert project == REF.model.project
        return self.may


@pytest.fixture
def catalog():
    return StagedCatalog()


@pytest.fixture
def caller():
    return Caller()


@pytest.fixture
def ask(catalog, caller):
    """What runs a test's steps with a cache."""

    def run(steps: Callable[[Callable[..., LoadedModel]], None]) -> None:
        async def within():
            with ThreadPoolExecutor(2) as executor:
                cache = ModelCache(
                    catalog,
                    catalog.catalog.store,
                    choose_kernel("numpy"),
                    executor,
                    1 << 28,
                    lookups=ProjectThreads(executor, 2),
                    sees_unpublished=caller.sees_unpublished,
                )

                async def get(ref, *, may):
                    caller.may = may
                    return await cache.get(ref)

                await steps(get)

        asyncio.run(within())

    return run


def test_a_staged_version_is_for_callers_who_may_have_it(catalog, ask):
    async def steps(get):
        with pytest.raises(ResourceNotFoundError):
            await get(REF, may=False)
        assert (await get(REF, may=True)).name == catalog.record.name
        with pytest.raises(ResourceNotFoundError):
            await get(REF, may=False)

    ask(steps)
    assert catalog.requested == [(REF, False), (REF, True), (REF, False)]


def test_an_alias_or_a_digest_never_stands_for_a_staged_version(catalog, ask):
    digest = ModelVersionRef(REF.model, digest=catalog.record.model_digest)

    async def steps(get):
        for ref in (BY_ALIAS, digest):
            with pytest.raises(ResourceNotFoundError):
                await get(ref, may=True)

    ask(steps)
    assert catalog.requested == [(BY_ALIAS, False), (digest, False)]


def test_a_version_that_is_promoted_while_it_is_loaded_stays_loaded(catalog, ask):
    async def steps(get):
        staged = await get(REF, may=True)
        catalog.record = replace(catalog.record, state=VersionState.PUBLISHED)
        for ref, may in ((REF, False), (REF, True), (BY_ALIAS, False)):
            assert (await get(ref, may=may)).model is staged.model

    ask(steps)


def test_a_rejected_version_is_given_to_no_caller(catalog, ask):
    async def steps(get):
        await get(REF, may=True)
        catalog.record = replace(catalog.record, state=VersionState.REJECTED, rejection_reason="too far from the data")
        with pytest.raises(
            WrongStateError, match=r"never served \(too far from the data\); take a published"
        ) as caught:
            await get(REF, may=True)
        assert caught.value.metadata == {"name": str(catalog.record.name), "state": "REJECTED"}
        with pytest.raises(ResourceNotFoundError):
            await get(REF, may=False)

    ask(steps)


def test_while_the_registry_is_unavailable_a_version_known_to_be_rejected_is_given_to_no_caller(catalog, ask):
    async def steps(get):
        await get(REF, may=True)
        catalog.record = replace(catalog.record, state=VersionState.REJECTED, rejection_reason="too far from the data")
        with pytest.raises(WrongStateError):
            await get(REF, may=True)
        catalog.away = True
        with pytest.raises(UnavailableError):
            await get(REF, may=True)

    ask(steps)


def test_while_the_registry_is_unavailable_what_one_caller_was_given_is_not_given_to_another(catalog, ask):
    async def steps(get):
        staged = await get(REF, may=True)
        catalog.away = True
        with pytest.raises(UnavailableError):
            await get(REF, may=False)
        assert (await get(REF, may=True)).model is staged.model
        catalog.away = False
        catalog.record = replace(catalog.record, state=VersionState.PUBLISHED)
        await get(REF, may=False)
        catalog.away = True
        assert (await get(REF, may=False)).model is staged.model

    ask(steps)
