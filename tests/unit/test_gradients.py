"""Gradients computed by hand equal autograd's on the ctgan package's own modules, run in float64."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ctgan.data_transformer import SpanInfo
from ctgan.synthesizers import tvae as their_tvae
from ctgan.synthesizers.ctgan import Discriminator, Generator
from torch import Tensor, nn
from torch.nn import functional

from rowmint.codecs import NumericCodec
from tests.tables_to_fit import CTGAN, TVAE, TableToFit, encode_rows, full_table
from trainer_service.config import TrainingConfig
from trainer_service.fitting import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families.ctgan import fitter as ctgan_module
from trainer_service.fitting.families.ctgan.config import CtganConfig
from trainer_service.fitting.families.ctgan.critic import PENALTY, CriticPass
from trainer_service.fitting.families.ctgan.fitter import CtganFitter
from trainer_service.fitting.families.ctgan.generator import GeneratorPass
from trainer_service.fitting.families.tvae import fitter as tvae_module
from trainer_service.fitting.families.tvae.fitter import TvaeFitter
from trainer_service.fitting.networks.activation import TAU, Activation
from trainer_service.fitting.networks.draws import Draws
from trainer_service.fitting.networks.flat import FlatParameters
from trainer_service.fitting.networks.layout import Layout, make_layout

CPU = torch.device("cpu")
MIXED = full_table().only("city", "state", "paid", "age", "gain", "price", "noise")
LAYERS = [(12,), (12, 9), (12, 9, 7)]


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """A product of TF32 or bfloat16 terms would hide an error of the size that is looked for."""
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(1)
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.set_num_threads(before[1])


def assert_close(found: Tensor, expected: Tensor, name: str = "") -> None:
    error = (found.double() - expected.double()).abs().max().item()
    assert error <= 1e-5 * expected.abs().max().item() + 1e-12, name


def assert_gradients(own: nn.Module, parameters: FlatParameters, oracle: nn.Module, but: Sequence[str] = ()) -> None:
    """Compare every parameter's gradient; those named in `but` are zero by hand and next to zero by autograd."""
    largest = max(parameter.grad.abs().max().item() for parameter in oracle.parameters() if parameter.grad is not None)
    for (name, parameter), twin in zip(own.named_parameters(), oracle.parameters(), strict=True):
        found = parameters.gradient_of(parameter)
        if name in but:
            assert (found == 0).all(), name
            assert twin.grad.abs().max() <= 1e-12 * largest, name
        else:
            assert_close(found, twin.grad, name)


def twin(module: nn.Module) -> Any:
    """Return a copy of a module in float64 that autograd can follow."""
    made = copy.deepcopy(module).double().train()
    return made.requires_grad_(requires_grad=True)


def stir(parameters: FlatParameters, seed: int, size: float = 0.2) -> None:
    """Move the weights away from where they begin: gains of 1 and biases of 0 would hide what they multiply."""
    random = torch.Generator().manual_seed(seed)
    parameters.weights.add_(torch.randn(len(parameters.weights), generator=random), alpha=size)


class GivenDropout(nn.Module):
    """Dropout whose masks are given, one a call."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        return x * self.masks.pop(0)


def with_masks(critic: Any, calls: Sequence[Sequence[Tensor]]) -> Any:
    """Let a critic's dropouts use these masks: for each call one a layer."""
    layer = 0
    for index, module in enumerate(critic.seq):
        if isinstance(module, nn.Dropout | GivenDropout):
            critic.seq[index] = GivenDropout([masks[layer].double() for masks in calls])
            layer += 1
    return critic


def critic_loss(critic: Any, real: Tensor, fake: Tensor, between: Tensor, pac: int) -> Tensor:
    """Return algorithm 1's loss by the package's own forward pass and penalty.

    Its penalty draws a point between its two arguments; between equal ones there is only one.
    """
    loss = critic(fake).mean() - critic(real).mean()
    between = between.requires_grad_()
    return loss + critic.calc_gradient_penalty(between, between, pac=pac, lambda_=PENALTY)


@pytest.mark.parametrize("layers", LAYERS)
def test_the_generators_pass(layers: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    generator: Any = Generator(6, layers, 10)
    parameters = FlatParameters([generator], CPU)
    stir(parameters, 2)
    oracle = twin(generator)
    run = GeneratorPass(generator, parameters, 6, 40)
    for _ in range(2):  # nothing is left over from the pass before
        run.input[:] = torch.randn(40, 6)
        slope = torch.randn(40, 10)
        found = run.forward()
        expected = oracle(run.input.double())
        assert_close(found, expected.detach())
        run.backward(slope)
        oracle.zero_grad()
        (expected * slope).sum().backward()
        # A bias before a batch normalisation has no effect.
        assert_gradients(generator, parameters, oracle, [f"seq.{index}.fc.bias" for index in range(len(layers))])


@pytest.mark.parametrize("dropped", [0.5, 0.25])
@pytest.mark.parametrize("pac", [1, 3])
@pytest.mark.parametrize("layers", LAYERS)
def test_the_critics_loss_and_its_penalty(layers: tuple[int, ...], pac: int, dropped: float) -> None:
    torch.manual_seed(3)
    critic: Any = Discriminator(5, layers, pac)
    parameters = FlatParameters([critic], CPU)
    stir(parameters, 4)
    packs = torch.randn(3, 8, 5 * pac)
    masks = Draws(1, "test", 0, CPU).masks(24, layers, dropped)
    real, fake, between = packs.double().view(3, 8 * pac, 5)
    oracle = with_masks(twin(critic), [[mask[part : part + 8] for mask in masks] for part in (8, 0, 16)])
    run = CriticPass(critic, parameters, lambda rows, widths: masks)
    expected = critic_loss(oracle, real, fake, between, pac)
    expected.backward()
    assert_close(run.loss(packs.view(24, 5 * pac)), expected.detach())
    assert_gradients(critic, parameters, oracle, [f"seq.{3 * len(layers)}.bias"])  # what both scores gain cancels out


@pytest.mark.parametrize("layers", LAYERS)
def test_the_critics_scores_and_their_gradient(layers: tuple[int, ...]) -> None:
    torch.manual_seed(5)
    critic: Any = Discriminator(5, layers, 2)
    parameters = FlatParameters([critic], CPU)
    stir(parameters, 6)
    packs = torch.randn(9, 10, dtype=torch.float64, requires_grad=True)
    masks = Draws(1, "test", 1, CPU).masks(9, layers, 0.5)
    expected = with_masks(twin(critic), [masks])(packs.view(18, 5))
    (slope,) = torch.autograd.grad(expected.sum(), packs)
    run = CriticPass(critic, parameters, lambda rows, widths: masks)
    scores, _, slopes = run.forward(packs.detach().float())
    assert_close(scores, expected.detach())
    assert_close(run.gradient(slopes)[0], slope)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EncodedTable]:
    whole = full_table()
    whole.cells["noise"] = np.random.Generator(np.random.Philox(9)).normal(0, 1, 300).tolist()
    named = {
        "mixed": MIXED,
        "no condition": MIXED.only("age", "gain", "price", "noise"),
        "no scalar": MIXED.only("city", "state"),
        "always in a mode": whole.only("city", "noise"),
    }
    return {name: encoded(table, tmp_path_factory.mktemp("table")) for name, table in named.items()}


def encoded(table: TableToFit, folder: Path) -> EncodedTable:
    wanted = TrainingConfig(CTGAN, seed=11)
    return encode_rows(table, wanted, folder)


def activated(outputs: Tensor, gumbel: Tensor, table: EncodedTable, layout: Layout) -> Tensor:
    """Return rows of outputs, column by column, in the networks' own order."""
    rows = torch.zeros_like(outputs)
    scalar = 0
    for codec, start, size in zip(table.codecs, layout.starts.tolist(), layout.sizes.tolist(), strict=True):
        span = slice(start, start + size)
        block = torch.softmax((outputs[:, span] + gumbel[:, span]) / TAU, dim=1)
        rows[:, span] = block
        if isinstance(codec, NumericCodec) and codec.scalar:
            share = block[:, : len(codec.centers)].sum(dim=1)
            gate = (share > 0.5).double() + share - share.detach()
            rows[:, scalar] = torch.tanh(outputs[:, scalar]) * gate
            scalar += 1
    return rows


@pytest.mark.parametrize("name", ["mixed", "no scalar"])
def test_the_activation(name: str, tables: dict[str, EncodedTable]) -> None:
    table = tables[name]
    layout = make_layout(table.codecs)
    torch.manual_seed(7)
    outputs = torch.randn(50, layout.width, dtype=torch.float64, requires_grad=True)
    gumbel = Draws(1, "test", 2, CPU).gumbel(50, layout.width)
    slope = torch.randn(50, layout.width)
    expected = activated(outputs, gumbel.double(), table, layout)
    expected.backward(slope.double())
    activation = Activation(layout, CPU)
    found = torch.zeros(50, layout.width)
    activation.forward(outputs.detach().float(), gumbel, found)
    assert (found - expected.detach()).abs().max() < 1e-5
    assert (activation.backward(slope) - outputs.grad).abs().max() < 1e-5 * outputs.grad.abs().max()
    if name == "mixed":  # both sides of the gate are held
        gated = found[:, : layout.scalars] == 0
        assert gated.any()
        assert not gated.all()


def test_an_activation_has_no_derivative_before_its_forward_pass(tables: dict[str, EncodedTable]) -> None:
    layout = make_layout(tables["mixed"].codecs)
    with pytest.raises(RuntimeError, match="no forward pass"):
        Activation(layout, CPU).backward(torch.zeros(1, layout.width))


class Recorded(Draws):
    """Draws that can be looked at afterwards."""

    made: list["Recorded"]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept: dict[str, list[Any]] = {"noise": [], "gumbel": [], "uniform": [], "masks": []}
        self.made.append(self)

    def noise(self, rows: int, width: int) -> Tensor:
        self.kept["noise"].append(super().noise(rows, width))
        return self.kept["noise"][-1]

    def gumbel(self, rows: int, width: int) -> Tensor:
        self.kept["gumbel"].append(super().gumbel(rows, width))
        return self.kept["gumbel"][-1]

    def uniform(self, rows: int) -> Tensor:
        self.kept["uniform"].append(super().uniform(rows))
        return self.kept["uniform"][-1]

    def masks(self, rows: int, widths: Sequence[int], dropped: float) -> list[Tensor]:
        self.kept["masks"].append(super().masks(rows, widths, dropped))
        return list(self.kept["masks"][-1])


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    made: list[Recorded] = []
    monkeypatch.setattr(Recorded, "made", made, raising=False)
    monkeypatch.setattr(ctgan_module, "Draws", Recorded)
    monkeypatch.setattr(tvae_module, "Draws", Recorded)
    return made


def shaped(generator_dim: tuple[int, ...], discriminator_dim: tuple[int, ...], pac: int) -> CtganConfig:
    return dataclasses.replace(CTGAN, generator_dim=generator_dim, discriminator_dim=discriminator_dim, pac=pac)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mixed", shaped((16,), (16,), 1)),
        ("mixed", shaped((16, 12), (16, 12), 5)),
        ("mixed", shaped((16, 12, 9), (9, 12, 16), 2)),
        ("no condition", shaped((16, 12), (16,), 3)),
        ("no scalar", shaped((16,), (16, 12), 4)),
    ],
)
def test_a_whole_step_of_ctgan(
    name: str, wanted: CtganConfig, tables: dict[str, EncodedTable], draws: list[Recorded], tmp_path: Path
) -> None:
    table, pac = tables[name], wanted.pac
    fitter = CtganFitter(table, wanted, FitContext(tmp_path, seed=2))
    critic_weights = fitter._judge._parameters
    stir(fitter._weights, 8, 0.1)
    stir(critic_weights, 9, 0.1)
    # The weights stay where they are, so that one oracle serves both halves of the step.
    fitter._critic_steps.step = fitter._generator_steps.step = lambda: None  # type: ignore[assignment,method-assign]
    generator, critic = twin(fitter.generator), twin(fitter._critic)
    losses = fitter.step(0)

    kept, layout, size = draws[-1].kept, fitter._layout, wanted.batch_size
    real, width = fitter._seen[:size].double(), layout.width
    condition = real[:, width:]
    outputs = generator(torch.cat([kept["noise"][0].double(), condition], dim=1))
    fake = torch.cat([activated(outputs, kept["gumbel"][0].double(), table, layout), condition], dim=1)
    share = kept["uniform"][0].double().repeat_interleave(pac, dim=0)
    between = share * real + (1 - share) * fake.detach()
    (masks, last), packs = kept["masks"], size // pac
    thirds = [[mask[part * packs : (part + 1) * packs] for mask in masks] for part in (1, 0, 2)]
    expected = critic_loss(with_masks(critic, thirds), real, fake.detach(), between, pac)
    expected.backward()
    assert losses["critic"] == pytest.approx(expected.item(), rel=1e-5)
    assert_gradients(fitter._critic, critic_weights, critic, [f"seq.{3 * len(wanted.discriminator_dim)}.bias"])

    expected = -with_masks(critic, [last])(fake).mean()
    if fitter._conditions is not None:
        assert (condition.sum(dim=1) == 1).all()
        for row, chosen in enumerate(condition.argmax(dim=1).tolist()):
            column, choice = fitter._conditions.column[chosen], fitter._conditions.choice[chosen]
            block = outputs[row, layout.starts[column] : layout.starts[column] + layout.sizes[column]]
            expected = expected + functional.cross_entropy(block, torch.tensor(choice)) / size
    else:
        assert condition.shape == (size, 0)
    expected.backward()
    assert losses["generator"] == pytest.approx(expected.item(), rel=1e-5)
    unused = [f"seq.{index}.fc.bias" for index in range(len(wanted.generator_dim))]
    assert_gradients(fitter.generator, fitter._weights, generator, unused)


def in_layout(table: EncodedTable, layout: Layout) -> Iterator[tuple[int, int | None, slice, int]]:
    """Yield each column's number, the place of its scalar, its choices, and how many of them are modes."""
    scalar = 0
    for column, (codec, start) in enumerate(zip(table.codecs, layout.starts.tolist(), strict=True)):
        span = slice(start, start + codec.choices)
        if isinstance(codec, NumericCodec) and codec.scalar:
            yield column, scalar, span, len(codec.centers)
            scalar += 1
        else:
            yield column, None, span, 0


def tvae_step(table: EncodedTable, dims: tuple[int, ...], draws: list[Recorded]) -> tuple[Any, ...]:
    """Take a step that moves nothing; return the fitter, its loss, twins of both networks, rows and noise."""
    config = dataclasses.replace(TVAE, compress_dims=dims, decompress_dims=dims[::-1])
    fitter = TvaeFitter(table, config, FitContext(Path(), seed=2))
    stir(fitter._weights, 10, 0.1)
    fitter.decoder.sigma.copy_(torch.linspace(0.2, 0.9, len(fitter.decoder.sigma)))
    fitter._optimizer.step = lambda: None  # type: ignore[assignment,method-assign]
    encoder, decoder = twin(fitter._encoder), twin(fitter.decoder)
    loss = fitter.step(0)["loss"]
    return fitter, loss, encoder, decoder, fitter._rows_in.double(), draws[-1].kept["noise"][0].double()


@pytest.mark.parametrize("dims", LAYERS)
@pytest.mark.parametrize("name", ["mixed", "no scalar"])
def test_a_whole_step_of_tvae(
    name: str, dims: tuple[int, ...], tables: dict[str, EncodedTable], draws: list[Recorded]
) -> None:
    table = tables[name]
    fitter, loss, encoder, decoder, rows, noise = tvae_step(table, dims, draws)
    mean, deviation, _ = encoder(rows)
    outputs, sigma = decoder(mean + deviation * noise)
    likelihood = torch.zeros((), dtype=torch.float64)
    outside = 0
    for _, scalar, span, modes in in_layout(table, fitter._layout):
        likelihood -= functional.cross_entropy(outputs[:, span], rows[:, span].argmax(dim=1), reduction="sum")
        if scalar is not None:
            in_mode = rows[:, span][:, :modes].sum(dim=1) == 1
            outside += int((~in_mode).sum())
            gaussian = torch.distributions.Normal(torch.tanh(outputs[:, scalar]), sigma[scalar])
            likelihood += gaussian.log_prob(rows[:, scalar])[in_mode].sum()
            likelihood += in_mode.sum() * np.log(np.sqrt(2 * np.pi))  # the constant is left out
    assert (outside > 0) == (name == "mixed")
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    divergence = torch.distributions.kl_divergence(torch.distributions.Normal(mean, deviation), prior).sum()
    expected = (divergence - TVAE.loss_factor * likelihood) / len(rows)
    expected.backward()
    if decoder.sigma.grad is None:
        decoder.sigma.grad = torch.zeros_like(decoder.sigma)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert_gradients(fitter._encoder, fitter._weights, encoder)
    assert_gradients(fitter.decoder, fitter._weights, decoder)


def test_where_every_scalar_counts_the_loss_is_the_packages_own(
    tables: dict[str, EncodedTable], draws: list[Recorded]
) -> None:
    table = tables["always in a mode"]
    fitter, loss, encoder, decoder, rows, noise = tvae_step(table, (12,), draws)
    mean, deviation, log_variance = encoder(rows)
    outputs, sigma = decoder(mean + deviation * noise)
    order = torch.from_numpy(fitter._layout.order)
    information = [
        [SpanInfo(1, "tanh")] * codec.scalar + [SpanInfo(codec.choices, "softmax")] for codec in table.codecs
    ]
    likelihood, divergence = their_tvae._loss_function(
        outputs[:, order], rows[:, order], sigma[order], mean, log_variance, information, TVAE.loss_factor
    )
    (likelihood + divergence).backward()
    assert loss == pytest.approx((likelihood + divergence).item(), rel=1e-5)
    assert_gradients(fitter._encoder, fitter._weights, encoder)
    assert_gradients(fitter.decoder, fitter._weights, decoder)
