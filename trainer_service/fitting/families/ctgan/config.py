"""Hyper-parameters of CTGAN; names and defaults are those of the ctgan package, 0.12.1."""

from dataclasses import dataclass

from rowmint.errors import InvalidFieldError
from trainer_service.fitting.families.hyperparameters import (
    FamilyConfig,
    flag,
    integer,
    layers,
    not_negative,
    positive,
)


@dataclass(frozen=True)
class CtganConfig(FamilyConfig):
    """Conditional tabular GAN."""

    epochs: int = integer(300, 1, 100_000, "Passes over the training rows")
    batch_size: int = integer(500, 2, 1_000_000, "Rows per step; even, and divisible by `pac`")
    generator_dim: tuple[int, ...] = layers((256, 256), "Width of each hidden layer of the generator")
    discriminator_dim: tuple[int, ...] = layers((256, 256), "Width of each hidden layer of the critic")
    generator_lr: float = positive(2e-4, "Adam learning rate of the generator")
    generator_decay: float = not_negative(1e-6, "Adam weight decay of the generator")
    discriminator_lr: float = positive(2e-4, "Adam learning rate of the critic")
    discriminator_decay: float = not_negative(1e-6, "Adam weight decay of the critic")
    embedding_dim: int = integer(128, 1, 4096, "Dimension of the Gaussian input")
    discriminator_steps: int = integer(1, 1, 100, "Critic steps per generator step")
    log_frequency: bool = flag(
        default=True, about="Whether condition vectors are drawn by the logarithm of a category's frequency in training"
    )
    pac: int = integer(10, 1, 100, "Rows the critic judges together (PacGAN)")

    def validate_together(self, path: str) -> None:
        """See `FamilyConfig.validate_together`."""
        if self.batch_size % 2:
            raise InvalidFieldError(f"{path}.batch_size", f"is {self.batch_size}; must be even")
        if self.batch_size % self.pac:
            raise InvalidFieldError(
                f"{path}.batch_size", f"is {self.batch_size}; must be divisible by pac, which is {self.pac}"
            )

    @property
    def least_rows(self) -> int:
        """Enough for one pack."""
        return max(2, self.pac)

    def steps_per_epoch(self, rows: int) -> int:
        """See `FamilyConfig.steps_per_epoch`; rows that do not fill a batch are left out of the epoch."""
        return max(1, rows // self.batch_size)
