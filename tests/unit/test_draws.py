"""Random tensors of a training step: a pure function of (seed, purpose, step), of the distributions they claim."""

import math
import random
from statistics import NormalDist

import numpy as np
import pytest
import torch

from rowmint.synthesizer.exact import tables
from tests.seeds import seeded
from trainer_service.fitting.keys import key
from trainer_service.fitting.networks import draws as draws_module
from trainer_service.fitting.networks.draws import Draws, deviates_of

CPU = torch.device("cpu")
KINDS = {
    "noise": lambda draws: draws.noise(7, 5),
    "normal": lambda draws: draws.normal(7, 5),
    "gumbel": lambda draws: draws.gumbel(7, 5),
    "uniform": lambda draws: draws.uniform(35),
    "masks": lambda draws: torch.cat([mask.flatten() for mask in draws.masks(40, (4, 3), 0.5)]),
    "uneven masks": lambda draws: torch.cat([mask.flatten() for mask in draws.masks(40, (4, 3), 0.3)]),
    "numbers": lambda draws: torch.from_numpy(draws.numbers.integers(0, 1 << 30, 35)),
}

SEEDS = seeded(1, 2, 3)


def made(seed: int = 1, purpose: str = "test", step: int = 0) -> Draws:
    return Draws(seed, purpose, step, CPU)


def words16(count: int, seed: int = 1) -> np.ndarray:
    """Return the words as the docstrings say they are drawn, by hand."""
    philox = np.random.Philox(key=np.frombuffer(key(seed, "test", 0)[:16], "<u8").astype(np.uint64))
    return philox.random_raw(-(-count // 4)).astype("<u8").view("<u2")[:count]


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_a_pure_function(kind: str) -> None:
    draw = KINDS[kind]
    expected = draw(made())
    torch.manual_seed(5)
    np.random.seed(6)  # noqa: NPY002
    random.seed(7)
    assert torch.equal(draw(made()), expected)
    for other in (made(seed=2), made(purpose="else"), made(step=1)):
        assert not torch.equal(draw(other), expected)
    two = made()
    assert torch.equal(draw(two), expected)
    assert not torch.equal(draw(two), expected)


def test_draws_leave_the_global_generators_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    for draw in KINDS.values():
        draw(made())
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(after[0], before[0])
    assert after[1:] == before[1:]


@pytest.mark.parametrize(("rows", "width"), [(6, 4), (7, 5), (1, 1)])
def test_shapes_and_types(rows: int, width: int) -> None:
    draws = made()
    for tensor in (draws.noise(rows, width), draws.normal(rows, width), draws.gumbel(rows, width)):
        assert (tensor.shape, tensor.dtype) == ((rows, width), torch.float32)
    uniform = draws.uniform(rows)
    assert (uniform.shape, uniform.dtype) == ((rows, 1), torch.float32)
    masks = draws.masks(rows, (width, 2, 9), 0.5)
    assert [tuple(mask.shape) for mask in masks] == [(rows, width), (rows, 2), (rows, 9)]
    assert {mask.dtype for mask in masks} == {torch.float32}


@pytest.mark.parametrize(("rows", "width"), [(6, 4), (7, 5)])
def test_noise_is_what_the_samplers_input_codes_stand_for(rows: int, width: int) -> None:
    codes = tables.input_codes(words16(-(-rows * width // 2)))[: rows * width].astype(np.float64)
    expected = (codes - tables.CODE_ZERO) / tables.CODES_PER_SIGMA
    found = made().noise(rows, width)
    assert found.flatten().tolist() == expected.astype(np.float32).tolist()
    assert deviates_of(np.array([0, 127], np.uint8)).tolist() == [-4.0, 4.0]


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_is_standard_normal(seed: int) -> None:
    noise = made(seed).noise(1000, 1000).double()
    assert noise.mean().item() == pytest.approx(0, abs=5e-3)  # five standard errors
    # Whole codes of 256 equally probable parts: not quite 1, but to the last byte what the sampler draws.
    codes = tables.byte_codes().astype(np.float64)
    assert noise.std().item() == pytest.approx(codes.std() / tables.CODES_PER_SIGMA, abs=3e-3)
    assert noise.std().item() == pytest.approx(1, abs=1e-2)
    # The places of a row do not depend on each other.
    assert torch.corrcoef(noise[:, :8].t()).fill_diagonal_(0).abs().max().item() < 0.16


def test_normals_are_quantiles() -> None:
    normal = NormalDist()
    words = words16(400)
    expected = [normal.inv_cdf((int(word) + 0.5) / 65536) for word in words]
    assert made().normal(20, 20).flatten().tolist() == pytest.approx(expected, abs=1e-5)
    every = draws_module._normals().astype(np.float64)
    assert len(every) == 65536
    assert (np.diff(every) >= 0).all()
    assert every.mean() == pytest.approx(0, abs=1e-9)
    assert every.std() == pytest.approx(1, abs=1e-4)


def test_gumbels_are_quantiles() -> None:
    expected = [-math.log(-math.log((int(word) + 0.5) / 65536)) for word in words16(400)]
    assert made().gumbel(20, 20).flatten().tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    every = draws_module._gumbels().astype(np.float64)
    assert len(every) == 65536
    assert every.mean() == pytest.approx(0.5772156649, abs=1e-4)
    assert every.var() == pytest.approx(math.pi**2 / 6, abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_gumbel_is_distributed_as_the_softmax(seed: int) -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, -3.0])
    chosen = (logits + made(seed).gumbel(200_000, 4)).argmax(dim=1)
    shares = torch.bincount(chosen, minlength=4) / 200_000
    assert shares.tolist() == pytest.approx(torch.softmax(logits, dim=0).tolist(), abs=5e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_uniforms_fill_their_interval(seed: int) -> None:
    uniform = made(seed).uniform(100_000)
    assert uniform.flatten()[:400].tolist() == (words16(400, seed) / 65536).tolist()
    assert uniform.min().item() >= 0
    assert uniform.max().item() < 1
    assert uniform.double().mean().item() == pytest.approx(0.5, abs=5e-3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dropped", [0.5, 0.1, 0.25, 0.7])
def test_dropout_keeps_the_mean(dropped: float, seed: int) -> None:
    masks = made(seed).masks(1000, (300, 200), dropped)
    for mask in masks:
        assert set(mask.unique().tolist()) == {0.0, np.float32(1 / (1 - dropped)).item()}
        assert mask.double().mean().item() == pytest.approx(1, abs=0.02)
        assert (mask == 0).double().mean().item() == pytest.approx(dropped, abs=5e-3)
    both = torch.cat(masks, dim=1)
    assert torch.corrcoef(both[:, 296:304].t()).fill_diagonal_(0).abs().max().item() < 0.16
