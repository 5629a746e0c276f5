"""What a sampler has made for one project makes no call of another faster."""

import asyncio
from dataclasses import replace

from rowmint.names import ModelName
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import CandidateCache
from rowmint.synthesizer import choose_kernel
from sampler_service import plan_cache
from sampler_service.requests import SampleRequest
from tests.golden.streams import WHERES, golden_catalog, read, reference, sampler_of

RARE = SampleRequest(100, model=reference("ctgan"), where=WHERES["many tests"], seed=1, max_reuse=64)
ELSEWHERE = replace(RARE, model=replace(RARE.model, model=ModelName("elsewhere", "ctgan")))


def test_projects_share_neither_plans_nor_candidates(monkeypatch):
    compiled, found = [], []
    get = CandidateCache.get

    def counting(*arguments):
        compiled.append(arguments[2])
        return compile_plan(*arguments)

    def noting(cache, key):
        kept = get(cache, key)
        found.append(kept is not None)
        return kept

    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler:
        monkeypatch.setattr(CandidateCache, "get", noting)
        first = asyncio.run(read(sampler, RARE))
        monkeypatch.setattr(plan_cache, "compile_plan", counting)
        assert asyncio.run(read(sampler, RARE)).body == first.body
        assert (compiled, found) == ([], [False, True])
        assert asyncio.run(read(sampler, ELSEWHERE)).body == first.body
        assert (len(compiled), found) == (1, [False, True, False])
