"""No noise is shared: between seeds, blocks, tiles, purposes, plans, models, or with completion and pilots."""

import asyncio
import itertools

import numpy as np
import pytest

from rowmint.rng import StreamKey, TileKey
from rowmint.sampling.formats import RowFormat
from rowmint.synthesizer import choose_kernel
from sampler_service.requests import SampleRequest
from tests.golden.streams import WHERES, golden_catalog, read, reference, sampler_of
from tests.seeds import seeded


@pytest.mark.parametrize("purpose", ["noise", "slot:1", "driver"])
def test_words_of_different_tiles_share_nothing(purpose):
    digests = (bytes(32), b"\1" * 32)
    seeds, blocks = (0, 1, 2**64 - 1), (0, 1, 10**12)
    keys = [
        StreamKey(model, plan, seed).tile(block, tile)
        for model, plan, seed, block, tile in itertools.product(digests, digests, seeds, blocks, (0, 1))
    ]
    words = [key.words(purpose, 4096) for key in keys]
    assert len(np.unique(np.concatenate(words))) == 4096 * len(keys)


def test_fewer_words_are_a_prefix_of_more():
    key = StreamKey(bytes(32), bytes(32), 7).tile(3, 4)
    for draw in (key.words, key.words32, key.words16):
        np.testing.assert_array_equal(draw("x", 1000)[:37], draw("x", 37))


@pytest.mark.parametrize("family", ["ctgan", "tvae", "independent"])
def test_streams_draw_every_word_once(family, monkeypatch):
    drawn = []
    real = TileKey.words

    def words(self, purpose, count):
        found = real(self, purpose, count)
        drawn.append(((self, purpose), found))
        return found

    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler:

        async def streams():
            for seed, where in itertools.product((1, 2), ("all", "many tests")):
                await sampler.open(SampleRequest(1, model=reference(family), where=WHERES[where]))  # loads and plans
                monkeypatch.setattr(TileKey, "words", words)
                requested = SampleRequest(
                    4097, model=reference(family), where=WHERES[where], seed=seed, row_format=RowFormat.COLUMNS
                )
                await read(sampler, requested)
                monkeypatch.undo()

        asyncio.run(streams())
    keys = [key for key, _ in drawn]
    assert len(set(keys)) == len(keys)
    sample = np.concatenate([words[:64] for _, words in drawn])
    assert len(np.unique(sample)) == len(sample)


@pytest.mark.parametrize("seeds", seeded((1, 2), (3, 4), (5, 6)))
def test_rows_of_different_seeds_and_blocks_are_not_alike(seeds):
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler:

        async def ratios(**more):
            requested = SampleRequest(
                8192, model=reference("tvae"), columns=("ratio",), row_format=RowFormat.COLUMNS, **more
            )
            return np.concatenate([batch.columns[0].values for batch in (await read(sampler, requested)).batches])

        one, other = (asyncio.run(ratios(seed=seed)) for seed in seeds)
    for left, right in [(one, other), (one[:4096], one[4096:]), (one[:4096], other[4096:])]:
        assert abs(np.corrcoef(left[: len(right)], right)[0, 1]) < 0.06
        assert np.mean(left == right) < 0.01
