"""Hyper-parameters of the circuit family."""

from dataclasses import dataclass, replace
from typing import Self

from trainer_service.fitting.families.circuit.schedule import Schedule, folds
from trainer_service.fitting.families.hyperparameters import FamilyConfig, FitSize, integer

_VISITS = 2_000_000  # rows that all epochs together use, about
_CELLS = 100_000_000  # the same of their cells, of tables with many columns
_MOST_EPOCHS = 20
_LEAST_BATCH, _MOST_BATCH = 32, 4096
_ROWS_PER_BIN, _FEWEST_BINS, _MOST_BINS = 100, 16, 128
_STATES = (4, 16, 32, 64)
_COMPARED_ROWS = 200  # fewer bear the fewest states, and cannot tell
_LARGE_ROWS = 10_000  # from here on, more states have always been better
_TRIED_CELLS = 100_000  # up to so many, each number of states is tried in seconds
_STEPS = 25  # of an epoch, about
_OVERHEAD_STATES = 64  # a step takes as long as if it had so many states more
_COPIES = 6  # of each count: itself, its probability, those of the best epoch and of the one that settles, export
_ALIVE = 5  # numbers alive at once of each row, column and state


@dataclass(frozen=True)
class CircuitConfig(FamilyConfig):
    """Probabilistic circuit: a tree of columns with hidden states."""

    epochs: int = integer(0, 0, 100_000, "Passes over the training rows; 0: chosen by their number")
    batch_size: int = integer(0, 0, 1_000_000, "Rows per step; 0: chosen by the number of training rows")
    states: int = integer(0, 0, 256, "Hidden states of a column; 0: chosen, of small tables by rows held out")
    components: int = integer(8, 1, 32, "Tables of a column given the column that it hangs on, which its state mixes")
    max_bins: int = integer(0, 0, 512, "Bins of a column with many values; 0: chosen by the number of training rows")

    def steps_per_epoch(self, rows: int) -> int:
        """See `FamilyConfig.steps_per_epoch`; an epoch has all rows, in batches as equal as can be."""
        return max(1, rows // self.batch_rows(rows))

    def batch_rows(self, rows: int) -> int:
        """Return the rows of a step."""
        near = 1 << max((rows // _STEPS).bit_length() - 1, 0)  # the power of two below
        return min(self.batch_size or min(max(near, _LEAST_BATCH), _MOST_BATCH), rows)

    def candidate_states(self, rows: int, columns: int) -> tuple[int, ...]:
        """Return the numbers of hidden states that are tried, ascending."""
        if self.states:
            return (self.states,)
        if rows < _COMPARED_ROWS:
            return _STATES[:1]
        if rows >= _LARGE_ROWS:
            return _STATES[-1:]
        return _STATES if rows * columns <= _TRIED_CELLS else _STATES[-2:-1]

    def most_bins(self, rows: int) -> int:
        """Return the bins of a column with many values; one with up to twice as many has a bin for each."""
        return self.max_bins or min(max(rows // _ROWS_PER_BIN, _FEWEST_BINS), _MOST_BINS)

    def passes(self, rows: int, columns: int) -> int:
        """Return the epochs of a fit."""
        return self.epochs or min(max(min(_VISITS, _CELLS // columns) // rows, 1), _MOST_EPOCHS)

    def settled(self, rows: int, columns: int) -> Self:
        """See `FamilyConfig.settled`; of several numbers of states, the largest."""
        return replace(
            self,
            epochs=self.passes(rows, columns),
            batch_size=self.batch_rows(rows),
            states=self.candidate_states(rows, columns)[-1],
            max_bins=self.most_bins(rows),
        )

    def trials(self, rows: int, columns: int) -> float:
        """See `FamilyConfig.trials`: each number of states is fitted in short, once for each fold."""
        tried = self.candidate_states(rows, columns)
        if len(tried) == 1:
            return 0.0
        every = sum(states + _OVERHEAD_STATES for states in tried) / (tried[-1] + _OVERHEAD_STATES)
        schedule = Schedule(self.passes(rows, columns), self.steps_per_epoch(rows))
        return every * folds(rows) * schedule.trial.steps / schedule.steps

    def fitting_bytes(self, size: FitSize) -> int:
        """See `FamilyConfig.fitting_bytes`; `states` is settled."""
        batch = size.rows_per_step * size.columns * (self.states * _ALIVE + self.components)
        return 4 * (size.parameters * _COPIES + batch)
