"""Conditional tabular GAN (arXiv:1907.00503, sections 4.3 and 4.4; training step of algorithm 1).

The networks are the ctgan package's; the loop and its gradients are ours. Shapes: b rows a batch, w width of an encoded
row, k condition vectors, s scalars, p = b / pac packs.

NOTE[DIFF]: the generator takes its step on the very rows that the critic has just been trained on, where the paper
draws others. It saves one of two forward passes a step, as DCGAN's loop does (Radford et al., ICLR 2016).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ctgan.synthesizers.ctgan import Discriminator, Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rowmint.codecs.category import integer_weights
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.export.calibration import Calibration
from trainer_service.fitting.export.calibration_rows import draw_rows
from trainer_service.fitting.export.float_layer import FloatLayer
from trainer_service.fitting.export.quantise import quantise
from trainer_service.fitting.export.temperature import cool
from trainer_service.fitting.families.ctgan.condition_vectors import ConditionVectors, make_condition_vectors
from trainer_service.fitting.families.ctgan.config import CtganConfig
from trainer_service.fitting.families.ctgan.critic import CriticPass
from trainer_service.fitting.families.ctgan.generator import GeneratorPass
from trainer_service.fitting.fitter import FittedNetwork
from trainer_service.fitting.keys import random, torch_seed
from trainer_service.fitting.monitoring.progress import Between, uninterrupted
from trainer_service.fitting.networks import optimizer
from trainer_service.fitting.networks.activation import Activation
from trainer_service.fitting.networks.average import Average
from trainer_service.fitting.networks.draws import Draws
from trainer_service.fitting.networks.flat import FlatParameters
from trainer_service.fitting.networks.layout import Batches, Layout, make_layout
from trainer_service.fitting.options import ExportOptions

_BETAS = (0.5, 0.9)


class CtganFitter:
    """CTGAN being fitted. One thread uses it.

    Args:
        table: The training rows.
        config: Hyper-parameters, valid.
        context: Seed of every draw, where the networks live, and the folder for the lists of rows.
    """

    def __init__(self, table: EncodedTable, config: CtganConfig, context: FitContext) -> None:
        seed, device = context.seed, torch.device(str(context.device))
        self.epochs = config.epochs
        self.steps_per_epoch = config.steps_per_epoch(table.rows)
        self.rows_per_step = config.batch_size
        self._table = table
        self._config = config
        self._seed = seed
        self._device = device
        self._layout = make_layout(table.codecs)
        self._batches = Batches(table, self._layout, device)
        self._conditions = make_condition_vectors(table, context.scratch, log_frequency=config.log_frequency)
        count = 0 if self._conditions is None else len(self._conditions)
        torch.manual_seed(torch_seed(seed, "weights"))
        width = self._layout.width
        self.generator: Any = Generator(config.embedding_dim + count, config.generator_dim, width)
        self._critic: Any = Discriminator(width + count, config.discriminator_dim, config.pac)
        self._weights = FlatParameters([self.generator], device)
        self._critic_weights = FlatParameters([self._critic], device)
        self.parameters = len(self._weights.weights) + len(self._critic_weights.weights)
        self._average = Average(self._weights.weights)
        self._generate = GeneratorPass(self.generator, self._weights, config.embedding_dim + count, config.batch_size)
        self._activate = Activation(self._layout, device)
        self._draws = Draws(seed, "step", 0, device)
        dropped = CriticPass.dropout(self._critic)
        self._judge = CriticPass(
            self._critic, self._critic_weights, lambda rows, widths: self._draws.masks(rows, widths, dropped)
        )
        self._generator_steps = torch.optim.Adam(
            [self._weights.weights], config.generator_lr, _BETAS, weight_decay=config.generator_decay, fused=True
        )
        self._critic_steps = torch.optim.Adam(
            [self._critic_weights.weights],
            config.discriminator_lr,
            _BETAS,
            weight_decay=config.discriminator_decay,
            fused=True,
        )
        # Real rows, the generator's, and some between, each with its condition vector behind it: what the critic sees.
        self._seen = torch.zeros(3 * config.batch_size, width + count, device=device)
        self._conditional = (
            None if self._conditions is None else _ConditionalLoss(self._conditions, self._layout, device)
        )

    def step(self, number: int) -> dict[str, float]:
        """Take the critic's steps and one of the generator's; see `IterativeFitter.step`."""
        self._draws = Draws(self._seed, "step", number, self._device)
        critic = torch.zeros((), device=self._device)
        for _ in range(self._config.discriminator_steps):
            chosen, outputs = self._make_rows()
            critic += self._judge.loss(self._packs(self._seen))
            self._critic_steps.step()
        generator = self._step_generator(chosen, outputs)
        self._average.update()
        losses = torch.stack([generator, critic / self._config.discriminator_steps]).tolist()
        return dict(zip(("generator", "critic"), losses, strict=True))

    def _make_rows(self) -> tuple[NDArray[np.int64] | None, Tensor]:
        """Fill `_seen`; return the rows' condition vectors, shape (b,), and the generator's outputs, shape (b, w)."""
        size, width = self._config.batch_size, self._layout.width
        real, fake, between = self._seen[:size], self._seen[size : 2 * size], self._seen[2 * size :]
        real.zero_()
        chosen = None
        if self._conditions is None:
            rows: NDArray[np.integer] = self._draws.numbers.integers(0, self._table.rows, size)
        else:
            chosen = self._conditions.draw(self._draws.numbers, size)
            rows = self._conditions.matching(chosen, self._draws.numbers)
            real.scatter_(1, torch.from_numpy(chosen + width).to(self._device)[:, None], 1.0)
        self._batches.write(rows, real)
        noise = self._config.embedding_dim
        self._generate.input[:, :noise] = self._draws.noise(size, noise)
        self._generate.input[:, noise:] = real[:, width:]
        outputs = self._generate.forward()
        self._activate.forward(outputs, self._draws.gumbel(size, width), fake[:, :width])
        fake[:, width:] = real[:, width:]
        packs = self._packs(real)
        torch.lerp(self._packs(fake), packs, self._draws.uniform(len(packs)), out=self._packs(between))
        return chosen, outputs

    def _step_generator(self, chosen: NDArray[np.int64] | None, outputs: Tensor) -> Tensor:
        """Take one step of -E[C(fake)] + cross-entropy(choice set, its logits) (algorithm 1); return the loss."""
        size, width = self._config.batch_size, self._layout.width
        scores, _, slopes = self._judge.forward(self._packs(self._seen[size : 2 * size]))
        gradient, _ = self._judge.gradient(slopes)
        by_row = gradient.view(size, -1)[:, :width] * (-1 / len(scores))
        loss = -scores.mean()
        slope = self._activate.backward(by_row)
        if self._conditional is not None and chosen is not None:
            loss = loss + self._conditional.loss(chosen, outputs, slope)
        self._generate.backward(slope)
        self._generator_steps.step()
        return loss

    def _packs(self, rows: Tensor) -> Tensor:
        """Return rows as packs, shape (rows / pac, pac * (w + k))."""
        return rows.view(-1, self._config.pac * rows.shape[1])

    def export(self, options: ExportOptions, between: Between = uninterrupted) -> FittedNetwork:
        """Return the averaged generator in exact integers, and the condition vectors by the data's frequencies."""
        hidden, output, calibration = self.folded(options.calibration_rows)
        final, choices = cool(
            hidden,
            output,
            self._table,
            calibration,
            self._seed,
            options=options,
            concatenate=True,
            between=between,
        )
        arrays = quantise(hidden, final, self._table, calibration, concatenate=True, between=between)
        if self._conditions is not None:
            heads = [index for index, column in enumerate(self._table.fitted) if column.encoder is not None]
            arrays["drivers.column"] = np.array(heads, np.int32)[self._conditions.column]
            arrays["drivers.slot"] = self._conditions.choice.astype(np.int32)
            arrays["drivers.weights"] = integer_weights(self._conditions.frequencies)
        return FittedNetwork({"hidden_layers": len(hidden)}, arrays, choices)

    def folded(self, rows: int) -> tuple[list[FloatLayer], FloatLayer, Calibration]:
        """Return the averaged generator's layers without batch normalisation, and the batch that fixed it.

        The statistics of batch normalisation are those of rows as the sampler draws them, by the data's frequencies;
        in training they were those of log-frequencies. The output layer is in schema order.
        """
        with self._average.in_place(), torch.no_grad():
            calibration = Calibration.draw(self._seed, self._config.embedding_dim, rows, self._conditions)
            layers: list[FloatLayer] = []
            x = torch.from_numpy(calibration.real).to(self._device)
            for residual in self.generator.seq[:-1]:
                outcome = residual.fc(x)
                variance, mean = torch.var_mean(outcome, dim=0, correction=0)
                norm = residual.bn
                gain = norm.weight / torch.sqrt(variance + norm.eps)
                shift = (residual.fc.bias - mean) * gain + norm.bias
                layers.append(FloatLayer.of(residual.fc.weight * gain[:, None], shift))
                x = torch.cat([functional.relu((outcome - mean) * gain + norm.bias), x], dim=1)
            last = self.generator.seq[-1]
            return layers, FloatLayer.of(last.weight, last.bias).select(self._layout.order), calibration

    def sample(self, rows: int) -> EncodedRows:
        """Return rows as codes; see `IterativeFitter.sample`."""
        hidden, output, calibration = self.folded(rows)
        draws = random(self._seed, "sample rows")
        return draw_rows(hidden, output, self._table, calibration, draws, concatenate=True)

    def weights(self) -> list[NDArray[np.float32]]:
        """Return what is exported; see `IterativeFitter.weights`."""
        return [self._average.mean.cpu().numpy().copy()]

    def restore(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """Restore weights; see `IterativeFitter.restore`."""
        self._average.mean.copy_(torch.from_numpy(weights[0]))

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Return weights, moments and average of both networks; see `IterativeFitter.state`."""
        return {
            "generator": self._weights.weights.cpu().numpy().copy(),
            "critic": self._critic_weights.weights.cpu().numpy().copy(),
            "average": self._average.mean.cpu().numpy().copy(),
            "average.steps": np.array([self._average.steps], np.float32),
            **optimizer.to_arrays(self._generator_steps, "generator"),
            **optimizer.to_arrays(self._critic_steps, "critic"),
        }

    def load_state(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Resume from what `state` gave; see `IterativeFitter.load_state`."""
        optimizer.load(self._weights.weights, state["generator"])
        optimizer.load(self._critic_weights.weights, state["critic"])
        optimizer.load(self._average.mean, state["average"])
        self._average.steps = int(state["average.steps"][0])
        optimizer.from_arrays(self._generator_steps, "generator", state)
        optimizer.from_arrays(self._critic_steps, "critic", state)


class _ConditionalLoss:
    """Cross-entropy of the choice that is set in the conditioned column's logits, all rows at once."""

    def __init__(self, conditions: ConditionVectors, layout: Layout, device: torch.device) -> None:
        columns = conditions.column
        sizes = layout.sizes[columns]
        offsets = np.arange(sizes.max())
        # Positions of each condition vector's block; what stands behind the block repeats its first and is masked.
        inside = offsets < sizes[:, None]
        positions = layout.starts[columns][:, None] + np.where(inside, offsets, 0)
        self._positions = torch.from_numpy(positions).to(device)
        self._outside = torch.from_numpy(~inside).to(device)
        self._choice = torch.from_numpy(conditions.choice).to(device)
        self._device = device

    def loss(self, chosen: NDArray[np.int64], outputs: Tensor, slope: Tensor) -> Tensor:
        """Add the loss' derivative by `outputs` to `slope`, both shape (b, w); return the mean loss."""
        index = torch.from_numpy(chosen).to(self._device)
        positions, choice = self._positions[index], self._choice[index, None]
        logits = outputs.gather(1, positions).masked_fill_(self._outside[index], -torch.inf)
        logs = torch.log_softmax(logits, dim=1)
        loss = -logs.gather(1, choice).mean()
        shares = logs.exp_()
        shares.scatter_add_(1, choice, torch.full_like(shares[:, :1], -1.0))
        slope.scatter_add_(1, positions, shares.mul_(1 / len(chosen)))
        return loss
