"""Hyper-parameters of the family of the tests."""

from dataclasses import dataclass

from trainer_service.fitting.families.hyperparameters import FamilyConfig, flag, integer, layers, positive


@dataclass(frozen=True)
class ExemplarsConfig(FamilyConfig):
    """Some training rows, drawn again and again."""

    epochs: int = integer(2, 1, 100, "Passes over the training rows")
    batch_size: int = integer(50, 1, 1000, "Rows a step")
    share: float = positive(1.0, "Share of a step's rows that is kept")
    distinct: bool = flag(default=False, about="Whether a row is kept once at most")
    strides: tuple[int, ...] = layers((1,), "Distances between the rows that are kept")

    @property
    def least_rows(self) -> int:
        """See `FamilyConfig`."""
        return 3

    def steps_per_epoch(self, rows: int) -> int:
        """See `FamilyConfig`."""
        return max(1, rows // self.batch_size)
