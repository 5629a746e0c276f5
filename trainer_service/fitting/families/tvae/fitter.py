"""Tabular variational autoencoder (arXiv:1907.00503, section 4.4, "TVAE Model").

The networks are the ctgan package's; the loop and its gradients are ours. Shapes: b rows a batch, w width of an encoded
row, s scalars, z width of the latent space.

NOTE[DIFF]: outside its modes (a point mass, a missing cell) a column's scalar means nothing; the loss leaves it out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ctgan.synthesizers.tvae import Decoder, Encoder
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Linear

from rowmint.codecs.identity import Permutation
from rowmint.codecs.numeric import ALPHA_ONE
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.export.calibration import Calibration
from trainer_service.fitting.export.calibration_rows import draw_rows
from trainer_service.fitting.export.float_layer import FloatLayer
from trainer_service.fitting.export.quantise import quantise
from trainer_service.fitting.export.temperature import cool
from trainer_service.fitting.families.tvae.config import TvaeConfig
from trainer_service.fitting.fitter import FittedNetwork
from trainer_service.fitting.keys import key, random, torch_seed
from trainer_service.fitting.monitoring.progress import Between, uninterrupted
from trainer_service.fitting.networks import optimizer
from trainer_service.fitting.networks.draws import Draws
from trainer_service.fitting.networks.flat import FlatParameters
from trainer_service.fitting.networks.layout import Batches, make_layout
from trainer_service.fitting.options import ExportOptions

LEAST_SIGMA, MOST_SIGMA = 0.01, 1.0
_STRETCH = 64  # steps whose rows are chosen at once


class TvaeFitter:
    """TVAE being fitted. One thread uses it.

    Args:
        table: The training rows.
        config: Hyper-parameters, valid.
        context: Seed of every draw, and where the networks live.
    """

    def __init__(self, table: EncodedTable, config: TvaeConfig, context: FitContext) -> None:
        seed, device = context.seed, torch.device(str(context.device))
        self.epochs = config.epochs
        self.rows_per_step = min(config.batch_size, table.rows)
        self.steps_per_epoch = config.steps_per_epoch(table.rows)
        self._table = table
        self._config = config
        self._seed = seed
        self._device = device
        self._layout = make_layout(table.codecs)
        self._batches = Batches(table, self._layout, device)
        torch.manual_seed(torch_seed(seed, "weights"))
        width = self._layout.width
        self._encoder: Any = Encoder(width, config.compress_dims, config.embedding_dim)
        self.decoder: Any = Decoder(config.embedding_dim, config.decompress_dims, width)
        self._weights = FlatParameters([self._encoder, self.decoder], device)
        self.parameters = len(self._weights.weights)
        self._encode = _Perceptron(_linears(self._encoder.seq), self._weights)
        *hidden, self._final = _linears(self.decoder.seq)
        self._decode = _Perceptron(hidden, self._weights)
        self._optimizer = torch.optim.Adam(
            [self._weights.weights], config.learning_rate, weight_decay=config.l2scale, fused=True
        )
        self._modal = torch.from_numpy(self._layout.modal).to(device)
        self._order = (-1, -1), np.zeros(0, np.int64)
        self._rows_in = torch.zeros(self.rows_per_step, width, device=device)

    def step(self, number: int) -> dict[str, float]:
        """Take one step of the evidence lower bound; see `IterativeFitter.step`."""
        draws = Draws(self._seed, "step", number, self._device)
        size, of = self.rows_per_step, self._weights.gradient_of
        encoded = self._rows_in.zero_()
        hot, _ = self._batches.write(self._rows(number), encoded)
        # Encoder: mean and logarithm of the variance of z, then a z.
        summary = self._encode.forward(encoded)
        to_mean, to_log = self._encoder.fc1, self._encoder.fc2
        mean = torch.addmm(to_mean.bias, summary, to_mean.weight.t())
        log_variance = torch.addmm(to_log.bias, summary, to_log.weight.t())
        deviation = (0.5 * log_variance).exp_()
        normal = draws.noise(size, self._config.embedding_dim)
        latent = torch.addcmul(mean, deviation, normal)
        # Decoder, and the derivative of the loss by its outputs.
        reached = self._decode.forward(latent)
        outputs = torch.addmm(self._final.bias, reached, self._final.weight.t())
        likelihood, slope = self._likelihood(encoded, hot, outputs)
        variance = deviation * deviation
        divergence = -0.5 * (1 + log_variance - mean * mean - variance).sum() / size
        # Backward.
        below = _backward(self._final, slope, reached, of)
        by_latent = self._decode.backward(below)
        by_mean = torch.add(by_latent, mean, alpha=1 / size)
        by_log = by_latent.mul_(deviation).mul_(normal).mul_(0.5).add_(variance.sub_(1), alpha=0.5 / size)
        by_summary = _backward(to_mean, by_mean, summary, of)
        by_summary += _backward(to_log, by_log, summary, of)
        self._encode.backward(by_summary, inputs=False)
        self._optimizer.step()
        self.decoder.sigma.clamp_(LEAST_SIGMA, MOST_SIGMA)
        return {"loss": float(divergence - self._config.loss_factor * likelihood)}

    def _likelihood(self, encoded: Tensor, hot: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean log p(row | z) up to a constant, and -loss_factor times its derivative by `outputs`.

        Scalars are Gaussian around a tanh, with the decoder's sigma; blocks are softmax. Writes the gradient of sigma.
        """
        size, scalars, factor = len(encoded), self._layout.scalars, self._config.loss_factor
        slope = torch.empty_like(outputs)
        self._layout.softmax(outputs, slope)
        # The share of the row's own choice; where it is below the smallest float32 its logarithm is, too.
        total = slope.gather(1, hot).clamp_min_(1e-37).log_().sum() / size
        slope.scatter_add_(1, hot, torch.full_like(hot, -1, dtype=slope.dtype))
        slope.mul_(factor / size)
        sigma = self.decoder.sigma
        by_sigma = self._weights.gradient_of(sigma).zero_()
        if scalars:
            scale = sigma[:scalars]
            in_mode = encoded @ self._modal
            tanh = torch.tanh(outputs[:, :scalars])
            distance = (encoded[:, :scalars] - tanh).div_(scale).mul_(in_mode)
            square = distance * distance
            total -= (square / 2 + torch.log(scale) * in_mode).sum() / size
            slope[:, :scalars] = -distance / scale * (1 - tanh * tanh) * (factor / size)
            by_sigma[:scalars] = ((in_mode - square) / scale).sum(dim=0) * (factor / size)
        return total, slope

    def _rows(self, number: int) -> NDArray[np.int64]:
        """Return the rows of step `number`, shape (b,): each epoch goes through a permutation of its own."""
        epoch, step = divmod(number, self.steps_per_epoch)
        stretch, place = divmod(step, _STRETCH)
        if self._order[0] != (epoch, stretch):
            first = stretch * _STRETCH * self.rows_per_step
            last = min(first + _STRETCH * self.rows_per_step, self.steps_per_epoch * self.rows_per_step)
            permutation = Permutation(self._table.rows, key(self._seed, "order", epoch)[:16])
            self._order = (epoch, stretch), permutation(np.arange(first, last, dtype=np.int64))
        return self._order[1][place * self.rows_per_step : (place + 1) * self.rows_per_step]

    def export(self, options: ExportOptions, between: Between = uninterrupted) -> FittedNetwork:
        """Return the decoder in exact integers, and the noise scale of each scalar."""
        hidden, output, calibration = self.folded(options.calibration_rows)
        noise_scale = self._noise_scale()
        final, choices = cool(
            hidden,
            output,
            self._table,
            calibration,
            self._seed,
            options=options,
            concatenate=False,
            noise_scale=noise_scale,
            between=between,
        )
        arrays = quantise(hidden, final, self._table, calibration, concatenate=False, between=between)
        arrays["spread"] = np.rint(noise_scale.astype(np.float64) * ALPHA_ONE).astype(np.int64)
        return FittedNetwork({"hidden_layers": len(hidden)}, arrays, choices)

    def folded(self, rows: int) -> tuple[list[FloatLayer], FloatLayer, Calibration]:
        """Return the hidden layers, the output layer in schema order, and inputs drawn as the sampler draws them."""
        *hidden, last = (FloatLayer.of(layer.weight, layer.bias) for layer in _linears(self.decoder.seq))
        calibration = Calibration.draw(self._seed, self._config.embedding_dim, rows)
        return hidden, last.select(self._layout.order), calibration

    def sample(self, rows: int) -> EncodedRows:
        """Return rows as codes; see `IterativeFitter.sample`."""
        hidden, output, calibration = self.folded(rows)
        draws = random(self._seed, "sample rows")
        noise_scale = self._noise_scale()
        return draw_rows(hidden, output, self._table, calibration, draws, concatenate=False, noise_scale=noise_scale)

    def weights(self) -> list[NDArray[np.float32]]:
        """Return what is exported; see `IterativeFitter.weights`."""
        return [self._weights.weights.cpu().numpy().copy()]

    def restore(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """Restore weights; see `IterativeFitter.restore`."""
        self._weights.weights.copy_(torch.from_numpy(weights[0]))

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Return weights and moments; see `IterativeFitter.state`."""
        return {
            "weights": self._weights.weights.cpu().numpy().copy(),
            **optimizer.to_arrays(self._optimizer, "weights"),
        }

    def load_state(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Resume from what `state` gave; see `IterativeFitter.load_state`."""
        optimizer.load(self._weights.weights, state["weights"])
        optimizer.from_arrays(self._optimizer, "weights", state)

    def _noise_scale(self) -> NDArray[np.float32]:
        """Return the standard deviation of each scalar, shape (s,)."""
        scale: NDArray[np.float32] = self.decoder.sigma.cpu().numpy()[: self._layout.scalars]
        return scale


class _Perceptron:
    """Linear layers, each followed by ReLU, forward and backward by hand."""

    def __init__(self, layers: Sequence[Linear], parameters: FlatParameters) -> None:
        self._layers = layers
        self._parameters = parameters
        self._inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return what the last layer gives, shape (b, m)."""
        self._inputs = [x]
        for layer in self._layers:
            self._inputs.append(torch.addmm(layer.bias, self._inputs[-1], layer.weight.t()).clamp_min_(0))
        return self._inputs[-1]

    def backward(self, slope: Tensor, *, inputs: bool = True) -> Tensor:
        """Write the gradients, given the derivative by what `forward` returned; return that by the input, if wanted."""
        for index in range(len(self._layers) - 1, -1, -1):
            slope = torch.ops.aten.threshold_backward(slope, self._inputs[index + 1], 0)
            wanted = inputs or index > 0
            slope = _backward(self._layers[index], slope, self._inputs[index], self._parameters.gradient_of, wanted)
        return slope


def _backward(layer: Linear, slope: Tensor, x: Tensor, gradient_of: Any, wanted: bool = True) -> Tensor:
    """Write an affine layer's gradients; return the derivative by its input `x`, or `slope` where it is not wanted."""
    torch.mm(slope.t(), x, out=gradient_of(layer.weight))
    torch.sum(slope, dim=0, out=gradient_of(layer.bias))
    return slope @ layer.weight if wanted else slope


def _linears(modules: Any) -> list[Linear]:
    return [module for module in modules if isinstance(module, Linear)]
