"""Tabular variational autoencoder (arXiv:1907.00503, section 4.4, "TVAE Model").

The networks are the ctgan package's; the loop is ours. Shapes: b rows a batch, w width of an encoded row, s scalars.

NOTE[DIFF]: outside its modes (a point mass, a missing cell) a column's scalar means nothing; the loss leaves it out.
"""

from typing import Any

import numpy as np
import torch
from ctgan.synthesizers.tvae import Decoder, Encoder
from numpy.typing import NDArray
from torch import Tensor

from rowmint.codecs.identity import Permutation
from rowmint.synthesizer import tables
from trainer_service.config import TvaeConfig
from trainer_service.fitting.encode import EncodedTable
from trainer_service.fitting.export import CALIBRATION_ROWS, Calibration, FloatLayer, draw_codes, quantise
from trainer_service.fitting.fitter import FittedNetwork
from trainer_service.fitting.keys import key, torch_seed
from trainer_service.fitting.layout import Batches, make_layout, normalisers

LEAST_SIGMA, MOST_SIGMA = 0.01, 1.0


class TvaeFitter:
    """TVAE being fitted. One thread uses it; it seeds torch's global generator at every step.

    Args:
        table: The training rows.
        config: Hyper-parameters, valid.
        seed: Seed of every draw.
        device: Where the networks live.
    """

    def __init__(self, table: EncodedTable, config: TvaeConfig, *, seed: int, device: torch.device) -> None:
        self.epochs = config.epochs
        self.rows_per_step = min(config.batch_size, table.rows)
        self.steps_per_epoch = max(1, table.rows // config.batch_size)
        self._table = table
        self._config = config
        self._seed = seed
        self._layout = make_layout(table.codecs)
        self._batches = Batches(table, self._layout, device)
        torch.manual_seed(torch_seed(seed, "weights"))
        width = self._layout.width
        self._encoder: Any = Encoder(width, config.compress_dims, config.embedding_dim).to(device)
        self.decoder: Any = Decoder(config.embedding_dim, config.decompress_dims, width).to(device)
        weights = [*self._encoder.parameters(), *self.decoder.parameters()]
        self.parameters = sum(weight.numel() for weight in weights)
        self._optimizer = torch.optim.Adam(weights, config.learning_rate, weight_decay=config.l2scale, fused=True)
        self._modal = torch.from_numpy(self._layout.modal).to(device)

    def step(self, number: int) -> dict[str, float]:
        """Take one step of the evidence lower bound; see `Fitter.step`."""
        torch.manual_seed(torch_seed(self._seed, "step", number))
        rows = self._rows(number)
        hot = self._batches.hot(rows)
        encoded = self._batches.encoded(rows)
        mean, deviation, log_variance = self._encoder(encoded)
        outputs, sigma = self.decoder(mean + deviation * torch.randn_like(deviation))
        likelihood = self._log_likelihood(encoded, hot, outputs, sigma)
        divergence = -0.5 * (1 + log_variance - mean * mean - log_variance.exp()).sum(dim=1)
        loss = (self._config.loss_factor * -likelihood + divergence).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            self.decoder.sigma.clamp_(LEAST_SIGMA, MOST_SIGMA)
        return {"loss": float(loss.detach())}

    def _log_likelihood(self, encoded: Tensor, hot: Tensor, outputs: Tensor, sigma: Tensor) -> Tensor:
        """Return log p(row | z) up to a constant, shape (b,): Gaussian scalars, softmax blocks."""
        scalars = self._layout.scalars
        chosen = outputs.gather(1, hot) - _in_column_order(normalisers(self._layout, outputs), self._layout.ranks)
        total = chosen.sum(dim=1)
        if scalars:
            spread = sigma[:scalars]
            distance = (encoded[:, :scalars] - torch.tanh(outputs[:, :scalars])) / spread
            in_mode = encoded @ self._modal
            total = total - ((distance * distance / 2 + torch.log(spread)) * in_mode).sum(dim=1)
        return total

    def _rows(self, number: int) -> NDArray[np.int64]:
        """Return the rows of step `number`, shape (b,): each epoch goes through a permutation of its own."""
        epoch, step = divmod(number, self.steps_per_epoch)
        permutation = Permutation(self._table.rows, key(self._seed, "order", epoch)[:16])
        return permutation(np.arange(step * self.rows_per_step, (step + 1) * self.rows_per_step, dtype=np.int64))

    def export(self) -> FittedNetwork:
        """Return the decoder in exact integers, and the spread of each scalar."""
        order = self._layout.order
        hidden, output = self.folded()
        final = FloatLayer(output.weight[:, order], output.condition[:, order], output.bias[order])
        arrays = quantise(
            hidden,
            final,
            self._table,
            self.calibration(),
            concatenate=False,
        )
        sigma = self.decoder.sigma.detach().cpu().numpy()[: self._layout.scalars].astype(np.float64)
        arrays["spread"] = np.rint(sigma * tables.ALPHA_ONE).astype(np.int64)
        return FittedNetwork({"hidden_layers": len(hidden)}, arrays)

    def calibration(self) -> Calibration:
        """Return the inputs that the scales and the marginals are found on."""
        codes = draw_codes(self._seed, self._config.embedding_dim)
        return Calibration(codes, np.zeros(CALIBRATION_ROWS, np.int64), np.full(CALIBRATION_ROWS, -1))

    def folded(self) -> tuple[list[FloatLayer], FloatLayer]:
        """Return the decoder's hidden layers and its output layer, which stands as inside the networks."""
        layers = [_float_layer(module) for module in self.decoder.seq if hasattr(module, "weight")]
        return layers[:-1], layers[-1]


def _in_column_order(blocks: Tensor, ranks: NDArray[np.int64]) -> Tensor:
    """Return `blocks`, shape (b, c), as they stand, in the order of the columns."""
    return blocks[:, torch.from_numpy(ranks).to(blocks.device)]


def _float_layer(module: Any) -> FloatLayer:
    weight = module.weight.detach().cpu().numpy().astype(np.float64).T
    return FloatLayer(weight, np.zeros((0, weight.shape[1])), module.bias.detach().cpu().numpy().astype(np.float64))
