"""A version from staging to its decision, over the wire: which roles see it and are served, before and after."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from rowmint.errors import UnauthenticatedError
from rowmint.names import ModelName, ModelVersionName
from rowmint.objects import open_store
from rowmint.registry import NewVersion, Registry, migrate, open_registry
from rowmint.rpc.models import model_service
from rowmint.rpc.server import Server, ServerOptions, ServerSecurity, Service
from rowmint.security.identity import Identity, Role
from rowmint.v1 import (
    model_admin_service_pb2,
    model_admin_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    sampling_pb2,
    statistics_pb2,
)
from rowmint.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from rowmint.v1.model_service_pb2_grpc import ModelServiceStub
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from sampler_service.__main__ import composed
from sampler_service.settings import SamplerSettings
from tests.conformance.registries import TRAIN, train
from tests.golden.make import stored
from tests.golden.streams import record
from tests.unended import unended
from tests.unit.inline_threads import inline_threads
from trainer_service.servicers.model_admin import ModelAdminServicer
from trainer_service.signer import VersionSigner

MODEL = "projects/p/models/m"
FIRST, SECOND = (f"{MODEL}/versions/{number}" for number in (1, 2))
CALLERS = {role.name.lower(): Identity(role.name.lower(), {"p": role}) for role in Role}
CAPABILITIES = {"unit": "row", "conditions": "exact", "likelihood": True, "privacy": ["dp_sgd", "of tomorrow"]}
STAGED, PUBLISHED, REJECTED = (
    model_pb2.MODEL_VERSION_STATE_STAGED,
    model_pb2.MODEL_VERSION_STATE_PUBLISHED,
    model_pb2.MODEL_VERSION_STATE_REJECTED,
)


class ByToken:
    """Identifies a caller by the name in the header."""

    async def identify(self, authorization, certificate):
        if not authorization:
            raise UnauthenticatedError("who calls?")
        return CALLERS[authorization[0]]


@dataclass
class World:
    """A trainer's services of models and a sampler, over one registry and one store."""

    registry: Registry
    store: object
    admin: ModelAdminServiceStub
    models: ModelServiceStub
    sampler: SamplingServiceStub
    samplers_models: ModelServiceStub

    def make(self, family: str = "independent", *, staged: bool = True) -> ModelVersionName:
        """Store a version as an attempt at a job does, and return its name."""
        manifest, weights = stored(family)
        made = record(family, manifest, weights)
        facts = {field.name: getattr(made, field.name) for field in fields(NewVersion)} | {"capabilities": CAPABILITIES}
        train(self.registry, family)
        job = self.registry.jobs.claim("w", 60, TRAIN)
        self.store.put(made.manifest_key, manifest)
        self.store.put(made.weights_key, weights)
        version = NewVersion(**facts)
        return self.registry.models.publish(job.uid, job.epoch, ModelName("p", "m"), version, staged=staged).name

    async def served(self, model: str, caller: str) -> list[str]:
        """Request rows by each method; return the versions that they are made from, or the reasons of the refusals."""
        sample = sampling_pb2.SampleRequest(model=model, rows=10, seed=1)
        config = sampling_pb2.CompleteRowsConfig(model=model, seed=1)
        completed = unended(sampling_pb2.CompleteRowsRequest(config=config))

        async def first(call):
            header = (await anext(aiter(call))).header
            call.cancel()
            return header.model_version

        async def planned(call):
            return (await call).header.model_version

        calls = (
            lambda metadata: first(self.sampler.Sample(sample, metadata=metadata, timeout=60)),
            lambda metadata: first(self.sampler.CompleteRows(completed, metadata=metadata, timeout=60)),
            lambda metadata: planned(
                self.sampler.PlanSample(sampling_pb2.PlanSampleRequest(sample=sample), metadata=metadata, timeout=60)
            ),
        )
        return [await outcome(call, caller) for call in calls]


async def outcome(call: Callable[[object], Awaitable[object]], caller: str):
    """Return what a call answers, or the reason why it is refused."""
    try:
        return await call((("authorization", caller),))
    except grpc.aio.AioRpcError as error:
        info = ErrorInfo()
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(info)
        return info.reason or str(error)


async def ask(method, request, caller="admin"):
    """Make a unary call; return its answer, or the reason why it is refused."""
    return await outcome(lambda metadata: method(request, metadata=metadata, timeout=60), caller)


@asynccontextmanager
async def world(folder, *, guarded: bool = True) -> AsyncIterator[World]:
    security = ServerSecurity(authenticator=ByToken() if guarded else None)
    registry = open_registry(f"sqlite:///{folder}/registry")
    migrate(registry.engine)
    (folder / "models").mkdir()
    store = open_store(f"file://{folder}/models")
    threads = inline_threads()
    admin = ModelAdminServicer(registry.models, 3600, VersionSigner(registry.models, store, None), threads)
    trainer = Server(
        [
            Service(
                "rowmint.v1.ModelAdminService",
                lambda server: model_admin_service_pb2_grpc.add_ModelAdminServiceServicer_to_server(admin, server),
            ),
            model_service(registry.models, store, threads, 3 << 20),
        ],
        ServerOptions("127.0.0.1:0"),
        security=security,
    )
    settings = SamplerSettings(home=folder, listen="127.0.0.1:0", kernel="numpy", threads=1)
    async with AsyncExitStack() as stack:
        stack.callback(registry.close)
        sampler, _ = stack.enter_context(composed(settings, (), security))
        channels = []
        for server in (trainer, sampler):
            port = await server.start()
            stack.push_async_callback(server.stop)
            channels.append(await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}")))
        to_trainer, to_sampler = channels
        yield World(
            registry,
            store,
            ModelAdminServiceStub(to_trainer),
            ModelServiceStub(to_trainer),
            SamplingServiceStub(to_sampler),
            ModelServiceStub(to_sampler),
        )


@pytest.fixture
def within(tmp_path):
    """What runs a test's steps in a world."""

    def run(steps, **options):
        async def all_of_it():
            async with world(tmp_path, **options) as found:
                await steps(found)

        asyncio.run(all_of_it())

    return run


def promotion(name=FIRST):
    return model_admin_service_pb2.PromoteModelVersionRequest(name=name)


def rejection(reason="too far from the data", name=FIRST):
    return model_admin_service_pb2.RejectModelVersionRequest(name=name, reason=reason)


def read(name=FIRST):
    return model_service_pb2.GetModelVersionRequest(name=name)


def test_a_staged_version_is_served_by_its_full_name_to_trainers_and_admins_and_when_promoted_to_all(within):
    digest = record("independent", *stored("independent")).model_digest.hex()

    async def steps(found):
        found.make()
        assert await found.served(FIRST, "reader") == ["RESOURCE_NOT_FOUND"] * 3
        for caller in ("trainer", "admin"):
            assert await found.served(FIRST, caller) == [FIRST] * 3
            for model in (MODEL, f"{MODEL}@latest", f"{MODEL}@sha256:{digest}"):
                assert await found.served(model, caller) == ["RESOURCE_NOT_FOUND"] * 3
        promoted = await ask(found.admin.PromoteModelVersion, promotion())
        assert (promoted.name, promoted.state) == (FIRST, PUBLISHED)
        assert await ask(found.admin.PromoteModelVersion, promotion()) == promoted
        for model in (FIRST, MODEL, f"{MODEL}@latest", f"{MODEL}@sha256:{digest}"):
            assert await found.served(model, "reader") == [FIRST] * 3
        assert await ask(found.admin.RejectModelVersion, rejection()) == "WRONG_STATE"

    within(steps)


def test_a_rejected_version_is_served_to_no_caller_and_says_why(within):
    async def steps(found):
        found.make()
        assert await found.served(FIRST, "admin") == [FIRST] * 3
        rejected = await ask(found.admin.RejectModelVersion, rejection())
        assert (rejected.name, rejected.state) == (FIRST, REJECTED)
        assert rejected.rejection_reason == "too far from the data"
        assert await ask(found.admin.RejectModelVersion, rejection("another reason")) == rejected
        assert await found.served(FIRST, "admin") == ["WRONG_STATE"] * 3
        assert await found.served(FIRST, "reader") == ["RESOURCE_NOT_FOUND"] * 3
        assert await ask(found.admin.PromoteModelVersion, promotion()) == "WRONG_STATE"

    within(steps)


def test_readers_are_shown_what_is_published_and_others_everything_by_both_services(within):
    async def steps(found):
        found.make(staged=False)
        found.make("tvae")
        listing = model_service_pb2.ListModelVersionsRequest(parent=MODEL)
        for models in (found.models, found.samplers_models):
            for caller in ("trainer", "admin"):
                shown = (await ask(models.ListModelVersions, listing, caller)).model_versions
                assert [(one.version, one.state) for one in shown] == [(2, STAGED), (1, PUBLISHED)]
                assert (await ask(models.GetModelVersion, read(SECOND), caller)).state == STAGED
            shown = (await ask(models.ListModelVersions, listing, "reader")).model_versions
            assert [(one.version, one.state) for one in shown] == [(1, PUBLISHED)]
            assert await ask(models.GetModelVersion, read(SECOND), "reader") == "RESOURCE_NOT_FOUND"
            assert await ask(models.GetModelVersion, read("projects/p/models/m/versions/3")) == "RESOURCE_NOT_FOUND"
            model = await ask(models.GetModel, model_service_pb2.GetModelRequest(name=MODEL), "reader")
            assert (model.latest_version, dict(model.aliases)) == (FIRST, {"latest": 1})

    within(steps)


def test_a_model_of_which_nothing_is_published_has_no_latest_version(within):
    async def steps(found):
        found.make()
        model = await ask(found.models.GetModel, model_service_pb2.GetModelRequest(name=MODEL), "reader")
        assert (model.name, model.latest_version, dict(model.aliases)) == (MODEL, "", {})

    within(steps)


def test_statistics_show_readers_published_versions_only(within):
    async def steps(found):
        found.make()
        await found.served(FIRST, "admin")

        async def shown(name, caller):
            request = statistics_pb2.GetModelStatisticsRequest(name=name)
            answer = await ask(found.sampler.GetModelStatistics, request, caller)
            return answer if isinstance(answer, str) else [one.model_version for one in answer.model_versions]

        assert [await shown(name, "trainer") for name in (MODEL, FIRST)] == [[FIRST], [FIRST]]
        assert [await shown(name, "reader") for name in (MODEL, FIRST)] == [[], "RESOURCE_NOT_FOUND"]
        await ask(found.admin.PromoteModelVersion, promotion())
        assert [await shown(name, "reader") for name in (MODEL, FIRST)] == [[FIRST], [FIRST]]

    within(steps)


def test_without_access_control_every_caller_is_served_a_staged_version(within):
    async def steps(found):
        found.make()
        assert await found.served(FIRST, "reader") == [FIRST] * 3
        assert (await ask(found.models.GetModelVersion, read(), "reader")).state == STAGED

    within(steps, guarded=False)


def test_only_admins_decide(within):
    async def steps(found):
        found.make()
        for caller in ("reader", "trainer"):
            assert await ask(found.admin.PromoteModelVersion, promotion(), caller) == "PERMISSION_DENIED"
            assert await ask(found.admin.RejectModelVersion, rejection(), caller) == "PERMISSION_DENIED"
        assert (await ask(found.models.GetModelVersion, read())).state == STAGED

    within(steps)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("", "is required"),
        (" \n", "is required"),
        ("x" * 1001, "has 1,001 characters; at most 1,000"),
        ("a\0b", "control character"),
        ("\x1b[31mred", "control character"),
    ],
)
def test_a_rejection_without_a_proper_reason_is_refused(within, reason, words):
    async def steps(found):
        found.make()
        with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
            await found.admin.RejectModelVersion(rejection(reason), metadata=(("authorization", "admin"),))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await ask(found.models.GetModelVersion, read())).state == STAGED

    within(steps)


def test_the_longest_reason_is_kept_as_it_was_given(within):
    reason = "zu weit weg: \u00fc\n\t" + "x" * 984

    async def steps(found):
        found.make()
        assert (await ask(found.admin.RejectModelVersion, rejection(reason))).rejection_reason == reason

    within(steps)


def test_a_version_says_what_its_family_offers_where_its_manifest_declared_it(within):
    async def steps(found):
        found.make()
        shown = await ask(found.models.GetModelVersion, read())
        assert shown.capabilities == model_pb2.Capabilities(
            unit=model_pb2.GENERATION_UNIT_ROW,
            conditions=model_pb2.CONDITION_SUPPORT_EXACT,
            likelihood=True,
            privacy=[model_pb2.PRIVACY_MECHANISM_DP_SGD, model_pb2.PRIVACY_MECHANISM_UNSPECIFIED],
        )

    within(steps)


def test_a_deleted_version_is_promoted_once_it_is_brought_back(within):
    async def steps(found):
        found.make()
        await ask(found.admin.DeleteModelVersion, model_admin_service_pb2.DeleteModelVersionRequest(name=FIRST))
        assert await ask(found.admin.PromoteModelVersion, promotion()) == "RESOURCE_NOT_FOUND"
        back = model_admin_service_pb2.UndeleteModelVersionRequest(name=FIRST)
        assert (await ask(found.admin.UndeleteModelVersion, back)).state == STAGED
        assert (await ask(found.admin.PromoteModelVersion, promotion())).state == PUBLISHED

    within(steps)
