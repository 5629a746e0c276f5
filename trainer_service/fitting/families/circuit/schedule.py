"""How far each step of stepwise EM moves the counts."""

from dataclasses import dataclass

_FIRST_RATE = 0.9
_LAST_RATE = 0.01
_TRIAL_EPOCHS = 8  # with fewer, many states have not parted yet


@dataclass(frozen=True)
class Schedule:
    """The steps of a fit, in epochs.

    Attributes:
        epochs: Passes over the rows.
        steps_per_epoch: Steps of each.
    """

    epochs: int
    steps_per_epoch: int

    @property
    def trial(self) -> "Schedule":
        """Those of a fit that is to tell how well such a fit would go."""
        return Schedule(min(self.epochs, _TRIAL_EPOCHS), self.steps_per_epoch)

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.steps_per_epoch

    def settles(self, number: int) -> bool:
        """Return whether a step is one of the last epoch, which settles the counts; a single epoch does not."""
        return self.epochs > 1 and number >= self.steps - self.steps_per_epoch

    def at(self, number: int) -> tuple[float, bool]:
        """Return how far the counts move to those of the batch in step `number`, and whether probabilities follow.

        The first step replaces most of what was there, later ones less and less. In the last epoch probabilities stay,
        and the counts become the mean of those of all its batches; at its end the probabilities follow.
        """
        if self.settles(number):
            place = number % self.steps_per_epoch
            return 1 / (place + 1), place == self.steps_per_epoch - 1
        moving = max(self.epochs - 1, 1) * self.steps_per_epoch
        return (max(1 - number / moving, _LAST_RATE) if number else _FIRST_RATE), True


FOLDS = 5
"""Parts that the rows of a small table are dealt to, to be judged by turns."""
_ENOUGH_ROWS = 500  # judged; further folds would say no more


def folds(rows: int) -> int:
    """Return how many of the folds of `rows` training rows are judged."""
    return min(FOLDS, -(-_ENOUGH_ROWS * FOLDS // rows))
