"""Conditional tabular GAN (arXiv:1907.00503, sections 4.3 and 4.4; training step of algorithm 1).

The networks are the ctgan package's; the loop is ours. Shapes: b rows a batch, w width of an encoded row, k condition
vectors, s scalars.

NOTE[DIFF]: outside its modes (a point mass, a missing cell) a column's scalar means nothing. It is 0 in the data, and
the generator's is set to 0 where its own draw of the slot is no mode, so that the critic cannot tell rows apart by it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctgan.synthesizers.ctgan import Discriminator, Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Dropout, LeakyReLU, Linear, functional

from rowmint.codecs.category import integer_weights
from trainer_service.config import CtganConfig
from trainer_service.fitting.average import Average
from trainer_service.fitting.conditions import make_conditions
from trainer_service.fitting.encode import EncodedTable
from trainer_service.fitting.export import CALIBRATION_ROWS, Calibration, FloatLayer, draw_codes, quantise
from trainer_service.fitting.fitter import FittedNetwork
from trainer_service.fitting.keys import random, torch_seed
from trainer_service.fitting.layout import Batches, gumbel_softmax, make_layout, normalisers

TAU = 0.2
"""Temperature of the relaxed categorical draws (section 4.4)."""
PENALTY = 10.0
"""Weight of the gradient penalty (Gulrajani et al., NeurIPS 2017)."""
_BETAS = (0.5, 0.9)


class CtganFitter:
    """CTGAN being fitted. One thread uses it; it seeds torch's global generator at every step.

    Args:
        table: The training rows.
        config: Hyper-parameters, valid.
        seed: Seed of every draw.
        device: Where the networks live.
        scratch: Folder for the lists of rows; exists.
    """

    def __init__(
        self, table: EncodedTable, config: CtganConfig, *, seed: int, device: torch.device, scratch: Path
    ) -> None:
        self.epochs = config.epochs
        self.steps_per_epoch = max(1, table.rows // config.batch_size)
        self.rows_per_step = config.batch_size
        self._table = table
        self._config = config
        self._seed = seed
        self._device = device
        self._layout = make_layout(table.codecs)
        self._batches = Batches(table, self._layout, device)
        self._conditions = make_conditions(table, scratch, log_frequency=config.log_frequency)
        count = 0 if self._conditions is None else len(self._conditions)
        self._condition_width = count
        torch.manual_seed(torch_seed(seed, "weights"))
        width = self._layout.width
        self.generator: Any = Generator(config.embedding_dim + count, config.generator_dim, width).to(device)
        self._critic: Any = Discriminator(width + count, config.discriminator_dim, config.pac).to(device)
        self._average = Average(self.generator)
        self._generator_weights: list[Tensor] = list(self.generator.parameters())
        self.parameters = sum(p.numel() for p in (*self._generator_weights, *self._critic.parameters()))
        self._generator_steps = torch.optim.Adam(
            self._generator_weights, config.generator_lr, _BETAS, weight_decay=config.generator_decay, fused=True
        )
        self._critic_steps = torch.optim.Adam(
            self._critic.parameters(),
            config.discriminator_lr,
            _BETAS,
            weight_decay=config.discriminator_decay,
            fused=True,
        )
        self._modal = torch.from_numpy(self._layout.modal[self._layout.scalars :]).to(device)
        if self._conditions is not None:
            columns = self._conditions.column
            self._hot = torch.from_numpy(self._layout.starts[columns] + self._conditions.slot).to(device)
            self._rank = torch.from_numpy(self._layout.ranks[columns]).to(device)

    def step(self, number: int) -> dict[str, float]:
        """Take the critic's steps and one of the generator's; see `Fitter.step`."""
        torch.manual_seed(torch_seed(self._seed, "step", number))
        draws = random(self._seed, "rows", number)
        critic = 0.0
        for _ in range(self._config.discriminator_steps):
            critic += self._step_critic(draws)
        generator = self._step_generator(draws)
        self._average.update()
        return {"generator": generator, "critic": critic / self._config.discriminator_steps}

    def _step_critic(self, draws: np.random.Generator) -> float:
        """Take one step of the critic's loss: E[C(fake)] - E[C(real)] + 10 E[(|grad C| - 1)^2] (algorithm 1)."""
        size = self._config.batch_size
        chosen = self._draw(draws)
        if self._conditions is None or chosen is None:
            rows: NDArray[np.integer] = draws.integers(0, self._table.rows, size)
        else:
            rows = self._conditions.matching(chosen, draws)
        asked = self._one_hot(chosen)
        real = torch.cat([self._batches.encoded(rows), asked], dim=1)
        with torch.no_grad():  # the generator learns nothing in this step
            fake = torch.cat([self._activate(self._generate(asked)), asked], dim=1)
        packs = size // self._config.pac
        real, fake = real.view(packs, -1), fake.view(packs, -1)
        mixture = torch.rand(packs, 1, device=self._device)
        between = mixture * real + (1 - mixture) * fake
        scores, gradient = _scores_and_gradient(self._critic, torch.cat([real, fake, between]), packs)
        penalty = PENALTY * ((gradient.norm(2, dim=1) - 1) ** 2).mean()
        loss = scores[packs : 2 * packs].mean() - scores[:packs].mean() + penalty
        self._critic_steps.zero_grad()
        loss.backward()
        self._critic_steps.step()
        return float(loss.detach())

    def _step_generator(self, draws: np.random.Generator) -> float:
        """Take one step of the generator's loss: -E[C(fake)] + cross-entropy(asked slot, its logits) (algorithm 1)."""
        chosen = self._draw(draws)
        asked = self._one_hot(chosen)
        outputs = self._generate(asked)
        score = self._critic(torch.cat([self._activate(outputs), asked], dim=1))
        loss = -score.mean()
        if chosen is not None:
            index = torch.from_numpy(chosen).to(self._device)
            normaliser = normalisers(self._layout, outputs).gather(1, self._rank[index, None])
            loss = loss + (normaliser - outputs.gather(1, self._hot[index, None])).mean()
        self._generator_steps.zero_grad()
        loss.backward(inputs=self._generator_weights)
        self._generator_steps.step()
        return float(loss.detach())

    def _draw(self, draws: np.random.Generator) -> NDArray[np.int64] | None:
        """Draw the batch's conditions, shape (b,)."""
        return None if self._conditions is None else self._conditions.draw(draws, self._config.batch_size)

    def _one_hot(self, chosen: NDArray[np.int64] | None) -> Tensor:
        """Return condition vectors, shape (b, k); k = 0 without conditions."""
        size = self._config.batch_size if chosen is None else len(chosen)
        made = torch.zeros(size, self._condition_width, device=self._device)
        if chosen is not None:
            made.scatter_(1, torch.from_numpy(chosen).to(self._device)[:, None], 1.0)
        return made

    def _generate(self, asked: Tensor) -> Tensor:
        """Return the generator's outputs before activation, shape (b, w)."""
        noise = torch.randn(len(asked), self._config.embedding_dim, device=self._device)
        outputs: Tensor = self.generator(torch.cat([noise, asked], dim=1))
        return outputs

    def _activate(self, outputs: Tensor) -> Tensor:
        """Return rows as the critic sees them, shape (b, w): tanh for scalars, Gumbel softmax for blocks."""
        blocks = torch.cat(gumbel_softmax(self._layout, outputs, TAU), dim=1)
        scalars = self._layout.scalars
        if not scalars:
            return blocks
        share = blocks @ self._modal
        # 0 or 1 forward, the share's gradient backward.
        gate = share + ((share > 0.5).float() - share).detach()
        return torch.cat([torch.tanh(outputs[:, :scalars]) * gate, blocks], dim=1)

    def export(self) -> FittedNetwork:
        """Return the averaged generator in exact integers, and the condition vectors by the data's frequencies."""
        order = self._layout.order
        hidden, output, calibration = self.folded()
        final = FloatLayer(output.weight[:, order], output.condition[:, order], output.bias[order])
        arrays = quantise(
            hidden,
            final,
            self._table,
            calibration,
            concatenate=True,
        )
        if self._conditions is not None:
            heads = [index for index, column in enumerate(self._table.fitted) if column.encoder is not None]
            arrays["drivers.column"] = np.array(heads, np.int32)[self._conditions.column]
            arrays["drivers.slot"] = self._conditions.slot.astype(np.int32)
            arrays["drivers.weights"] = integer_weights(self._conditions.frequencies)
        return FittedNetwork({"hidden_layers": len(hidden)}, arrays)

    def folded(self) -> tuple[list[FloatLayer], FloatLayer, Calibration]:
        """Return the averaged generator's layers without batch normalisation, and the batch that fixed it.

        The statistics of batch normalisation are those of rows as the sampler draws them, by the data's frequencies;
        in training they were those of log-frequencies. The output layer stands as inside the networks.
        """
        generator: Any = self._average.module
        codes = draw_codes(self._seed, self._config.embedding_dim)
        condition = np.zeros(CALIBRATION_ROWS, np.int64)
        columns = np.full(CALIBRATION_ROWS, -1)
        asked = torch.zeros(CALIBRATION_ROWS, 0, device=self._device)
        if self._conditions is not None:
            condition = self._conditions.draw_true(random(self._seed, "calibration"), CALIBRATION_ROWS)
            columns = self._conditions.column[condition]
            asked = self._one_hot(condition)
        calibration = Calibration(codes, condition, columns)
        layers: list[FloatLayer] = []
        x = torch.cat([torch.from_numpy(calibration.noise).to(self._device), asked], dim=1)
        with torch.no_grad():
            for residual in generator.seq[:-1]:
                outcome = residual.fc(x)
                variance, mean = torch.var_mean(outcome, dim=0, correction=0)
                norm = residual.bn
                gain = norm.weight / torch.sqrt(variance + norm.eps)
                shift = (residual.fc.bias - mean) * gain + norm.bias
                layers.append(self._split(residual.fc.weight * gain[:, None], shift))
                x = torch.cat([functional.relu((outcome - mean) * gain + norm.bias), x], dim=1)
            last = generator.seq[-1]
            return layers, self._split(last.weight, last.bias), calibration

    def _split(self, weight: Tensor, bias: Tensor) -> FloatLayer:
        """Return a layer from torch's weight, shape (m, inputs); the condition's inputs are the last k."""
        turned = weight.cpu().numpy().astype(np.float64).T
        inputs = len(turned) - self._condition_width
        return FloatLayer(turned[:inputs], turned[inputs:], bias.cpu().numpy().astype(np.float64))


def _scores_and_gradient(critic: Any, packs: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """Return the critic's scores, and how those of the last packs change with their inputs.

    Between its kinks the critic, leaky ReLU and dropout included, is linear in each layer's slopes; so the gradient is
    the product of weights and slopes, and both passes need no second derivative of autograd's.

    Args:
        critic: ctgan's `Discriminator`, in training mode.
        packs: Inputs, a pack a row, shape (n, pac * (w + k)).
        last: Packs whose gradient is wanted, from the end.

    Returns:
        Scores, shape (n, 1), and gradients, shape (last, pac * (w + k)); both differentiable in the critic's weights.
    """
    *layers, final = (module for module in critic.seq if isinstance(module, Linear))
    (leak,) = {module.negative_slope for module in critic.seq if isinstance(module, LeakyReLU)}
    (dropped,) = {module.p for module in critic.seq if isinstance(module, Dropout)}
    x = packs
    slopes: list[Tensor] = []
    for layer in layers:
        reached = layer(x)
        slope = torch.where(reached.detach() > 0, 1.0, leak)
        slope = functional.dropout(slope, dropped)
        slopes.append(slope[-last:])
        x = reached * slope
    gradient: Tensor = final.weight
    for layer, slope in zip(reversed(layers), reversed(slopes), strict=True):
        gradient = (gradient * slope) @ layer.weight
    return final(x), gradient
