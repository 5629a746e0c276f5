"""Streams of the golden models, by the sampler itself but without a network; and their digests.

python tests/golden/streams.py --kernel numpy [--quick]     prints the digests as JSON
"""

import argparse
import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache

from rowmint.artifact import Model, read_manifest, read_model
from rowmint.conditions import AnyOf, IsNull, Predicate, Range, WeightedTest, Weights
from rowmint.errors import ResourceNotFoundError
from rowmint.names import ModelName, ModelVersionName, ModelVersionRef
from rowmint.objects import MemoryStore
from rowmint.registry import ModelVersionRecord
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.sampling.formats import RowFormat, TypedBatch
from rowmint.sampling.limits import MAX_REUSE, MAX_ROWS
from rowmint.sampling.messages import RowsMessage, StreamHeader, StreamSummary
from rowmint.schema import Cell, TableSchema
from rowmint.steps import finish
from rowmint.synthesizer import Kernel, choose_kernel
from sampler_service.model_cache import ModelCache
from sampler_service.plan_cache import PlanCache
from sampler_service.requests import CompletionRequest, SampleRequest, ScoringRequest
from sampler_service.sampler import Sampler
from tests.golden.make import FAMILIES, FORMS, MODELS, stored

PROJECT = "golden"

WHERES: Mapping[str, tuple[Predicate, ...]] = {
    "all": (),
    "one city": (Predicate("city", AnyOf(("Zürich",))),),
    "many tests": (
        Predicate("grade", AnyOf((1, 2))),
        Predicate("age", Range(minimum=10, maximum=80, maximum_exclusive=True)),
        Predicate("tier", IsNull(null=False)),
        Predicate("flag", AnyOf((True, None))),
    ),
}
QUICK = (
    "ctgan, all, first, csv",
    "ctgan, many tests, far, arrow_stream",
    "ctgan, many tests, far reused, arrow_stream",
    "tvae, all, first, arrow_stream",
    "independent, many tests, inner, arrow_stream",
    "forms, all, first, csv",
    "tvae, completed",
    "circuit, many tests, inner, arrow_stream",
    "circuit, age weighted",
    "circuit, completed",
    "circuit, scored",
)
"""Enough to notice a processor that computes otherwise."""
SPANS = {"first": (5000, 0, 5000), "far": (10**15, 10**12, 10**12 + 3000), "inner": (9000, 2048, 4096)}
REUSED = {(family, "many tests", "far") for family in ("ctgan", "tvae")}
"""Streams whose candidates serve several rows where that is allowed, and not for the first time; made both ways."""


def reference(family: str) -> ModelVersionRef:
    """Return the name under which the golden model of `family` is found."""
    return ModelVersionRef(ModelName(PROJECT, family), version=1)


def record(family: str, manifest: bytes, weights: bytes) -> ModelVersionRecord:
    """Return what a registry would say of these files, stored under ``{family}/manifest`` and ``{family}/weights``."""
    body = read_manifest(manifest)
    return ModelVersionRecord(
        training_job=f"projects/{PROJECT}/trainingJobs/{family}",
        manifest_key=f"{family}/manifest",
        manifest_size=len(manifest),
        manifest_sha256=hashlib.sha256(manifest).digest(),
        weights_key=f"{family}/weights",
        weights_size=len(weights),
        weights_sha256=hashlib.sha256(weights).digest(),
        model_digest=bytes.fromhex(body["model_digest"]),
        manifest_digest=hashlib.sha256(manifest).digest(),
        family=body["generator"]["family"],
        dataset_digest=bytes(32),
        training_rows=0,
        schema=TableSchema.from_json(body["generator"]["schema"]),
        name=ModelVersionName(PROJECT, family, 1),
        job_uid="0" * 32,
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )


class Catalog:
    """Models in memory: a store and a resolver that counts."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.records: dict[str, ModelVersionRecord] = {}

    def put(self, model: str, manifest: bytes, weights: bytes) -> ModelVersionRecord:
        """Publish a version."""
        self.store.put(f"{model}/manifest", manifest)
        self.store.put(f"{model}/weights", weights)
        self.records[model] = record(model, manifest, weights)
        return self.records[model]

    def resolve(self, ref: ModelVersionRef, *, deleted: bool = False, unpublished: bool = False) -> ModelVersionRecord:
        """See `VersionResolver`."""
        found = self.records.get(ref.model.model)
        if found is None:
            raise ResourceNotFoundError(f"there is no {ref}")
        return found


@cache
def golden_model(family: str) -> Model:
    """Return the frozen model of `family`, loaded."""
    return read_model(*stored(family), choose_kernel("numpy"))


def golden_catalog() -> Catalog:
    """Return the frozen models."""
    catalog = Catalog()
    for family in MODELS:
        catalog.put(family, *stored(family))
    return catalog


@dataclass(frozen=True)
class Result:
    """A stream that was read to its end."""

    header: StreamHeader
    messages: tuple[RowsMessage, ...]
    summary: StreamSummary

    @property
    def data(self) -> bytes:
        """The bytes, joined."""
        return b"".join(message.data for message in self.messages)

    @property
    def batches(self) -> tuple[TypedBatch, ...]:
        """The typed columns, joined."""
        return tuple(batch for message in self.messages for batch in message.batches)

    @property
    def body(self) -> bytes:
        """The rows as bytes, whatever the format."""
        return self.data + b"".join(map(typed_bytes, self.batches))


def typed_bytes(batch: TypedBatch) -> bytes:
    """Return bytes that say everything in a batch."""
    columns = [[column.kind, column.values, column.validity.hex()] for column in batch.columns]
    return json.dumps([batch.first_row, batch.rows, columns]).encode()


async def read(sampler: Sampler, spec: SampleRequest) -> Result:
    """Read a stream to its end."""
    stream = await sampler.open(spec)
    messages = [message async for message in stream.messages()]
    return Result(stream.header, tuple(messages), stream.summary)


@contextmanager
def sampler_of(
    catalog: Catalog, kernel: Kernel, cache_bytes: int = 1 << 28, max_rows: int = MAX_ROWS
) -> Iterator[Sampler]:
    """Compose a sampler of the models of `catalog`; it draws seed 1 where none is given."""
    with ThreadPoolExecutor(2) as loaders, ThreadPoolExecutor(2) as workers:
        models = ModelCache(catalog, catalog.store, kernel, loaders, cache_bytes, lookups=ProjectThreads(loaders, 2))
        yield Sampler(models, PlanCache(lambda _: workers), lambda _: workers, lambda: 1, max_rows=max_rows)


WEIGHTS = {
    "city": Weights("city", (WeightedTest(AnyOf(("Zürich",)), 3.0), WeightedTest(AnyOf(("Oslo", "Rio")), 1.0))),
    "age": Weights("age", (WeightedTest(Range(maximum=30), 1.0), WeightedTest(Range(minimum=42, maximum=60), 2.0))),
}
"""Of families that meet conditions exactly."""


def specs(*, quick: bool) -> dict[str, SampleRequest]:
    """Return the golden streams by name."""
    found = {}
    for family in MODELS:
        for where, predicates in WHERES.items():
            for span, (rows, start, end) in SPANS.items():
                if family == FORMS and span == "far":
                    continue  # its row numbers are of 32 bits
                base = SampleRequest(
                    rows, end, start_row=start, model=reference(family), where=predicates, seed=2**64 - 1
                )
                named = {span: base}
                if (family, where, span) in REUSED:
                    named[f"{span} reused"] = replace(base, max_reuse=MAX_REUSE)
                for span_name, spec in named.items():
                    for row_format in RowFormat:
                        name = f"{family}, {where}, {span_name}, {row_format}"
                        if not quick or name in QUICK:
                            found[name] = replace(spec, row_format=row_format)
    for column, weights in WEIGHTS.items():
        name = f"circuit, {column} weighted"
        if not quick or name in QUICK:
            found[name] = SampleRequest(
                5000, 5000, model=reference("circuit"), where=WHERES["many tests"][3:], weights=weights, seed=2**64 - 1
            )
    return found


async def _digests(sampler: Sampler, chosen: Mapping[str, SampleRequest]) -> dict[str, str]:
    return {name: hashlib.sha256((await read(sampler, spec)).body).hexdigest() for name, spec in chosen.items()}


KNOWN: tuple[Mapping[str, Cell], ...] = (
    {},
    {"city": "Zürich"},
    {"city": "Łódź", "age": 42, "flag": True},
    {"price": Decimal("9.99"), "score": 3.5, "tier": Decimal("12.5"), "holiday": date(2030, 1, 1)},
    {"age": 99, "ratio": 0.25, "day": date(2020, 2, 29)},
    {"age": 10**6, "price": None},
)
"""Known cells of completed rows, in turn: with and without a candidate that agrees."""


async def completions(sampler: Sampler, family: str) -> str:
    """Return the SHA-256 of completed rows of three groups, with everything that is said of them."""
    request = CompletionRequest(model=reference(family), seed=2**64 - 1, start_row=250, candidates=512)
    _, completion = await sampler.complete(request)
    rows = finish(completion.complete([KNOWN[index % len(KNOWN)] for index in range(300)]))
    return hashlib.sha256("\n".join(map(repr, rows)).encode()).hexdigest()


async def scores(sampler: Sampler, family: str) -> str:
    """Return the SHA-256 of the scores of rows."""
    _, scoring = await sampler.score(ScoringRequest(model=reference(family)))
    rows = scoring.score([KNOWN[index % len(KNOWN)] for index in range(10)])
    return hashlib.sha256("\n".join(map(repr, rows)).encode()).hexdigest()


def all_digests(kernel: str, *, quick: bool = False) -> dict[str, str]:
    """Return the SHA-256 of every golden stream and of completed rows, computed with `kernel`."""
    with sampler_of(golden_catalog(), choose_kernel(kernel)) as sampler:
        found = asyncio.run(_digests(sampler, specs(quick=quick)))
        for family in FAMILIES:
            name = f"{family}, completed"
            if not quick or name in QUICK:
                found[name] = asyncio.run(completions(sampler, family))
        found["circuit, scored"] = asyncio.run(scores(sampler, "circuit"))
        return found


def main() -> None:
    """Print the digests."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(all_digests(arguments.kernel, quick=arguments.quick)))  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
