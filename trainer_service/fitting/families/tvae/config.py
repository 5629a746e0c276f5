"""Hyper-parameters of TVAE; names and defaults are those of the ctgan package, 0.12.1."""

from dataclasses import dataclass

from trainer_service.fitting.families.hyperparameters import FamilyConfig, integer, layers, not_negative, positive


@dataclass(frozen=True)
class TvaeConfig(FamilyConfig):
    """Tabular variational autoencoder."""

    epochs: int = integer(300, 1, 100_000, "Passes over the training rows")
    batch_size: int = integer(500, 1, 1_000_000, "Rows per step")
    embedding_dim: int = integer(128, 1, 4096, "Dimension of the latent space")
    compress_dims: tuple[int, ...] = layers((128, 128), "Width of each hidden layer of the encoder")
    decompress_dims: tuple[int, ...] = layers((128, 128), "Width of each hidden layer of the decoder")
    l2scale: float = not_negative(1e-5, "Adam weight decay")
    learning_rate: float = positive(1e-3, "Adam learning rate")
    loss_factor: float = positive(2.0, "Weight of the reconstruction loss")

    def steps_per_epoch(self, rows: int) -> int:
        """See `FamilyConfig.steps_per_epoch`; rows that do not fill a batch are left out of the epoch."""
        return max(1, rows // self.batch_size)
