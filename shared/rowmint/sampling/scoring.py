"""Scoring rows: the exact log-probability of their known cells under a model.

A score is a pure function of model digest and known cells: no random number is drawn, and the rows beside a row do not
count. Ids are ignored, as no model makes them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from rowmint.artifact import Model
from rowmint.errors import CancelledError, WrongStateError
from rowmint.sampling.row_work import RowWork
from rowmint.sampling.spec import ScoringSpec, expect_digest
from rowmint.schema import Cell
from rowmint.steps import Steps
from rowmint.synthesizer import LikelihoodSynthesizer


class ScoredRow(NamedTuple):
    """The score of one row.

    Attributes:
        row: Its index.
        log_probability: Natural logarithm of the probability of its known cells; 0 where impossible.
        impossible: Whether the model never makes a row with these cells.
    """

    row: int
    log_probability: float
    impossible: bool


class RowScoring(RowWork):
    """Scores rows in the order they come. For one caller at a time.

    Args:
        model: The model.
        spec: The scoring requested, valid.
        stopped: Says whether the caller waits no longer; called before and between pieces of work.

    Raises:
        StreamMismatchError: The model's digest is not the expected one.
        WrongStateError: The model has no exact likelihood.
    """

    def __init__(self, model: Model, spec: ScoringSpec, stopped: Callable[[], bool] = lambda: False) -> None:
        super().__init__(model, spec.start_row)
        expect_digest("model", spec.expected_model_digest, model.digest)
        if not model.capabilities.likelihood or not isinstance(model.synthesizer, LikelihoodSynthesizer):
            raise WrongStateError(
                "config.model: models of its family have no exact likelihood, so their rows cannot be scored; name a"
                " version whose capabilities.likelihood is true, or train one of a family that has it",
                metadata={"likelihood": "false"},
            )
        self._synthesizer = model.synthesizer
        self._scorer = model.synthesizer.scorer(stopped)
        self._stopped = stopped

    def bytes_for(self, known: Collection[str]) -> int:
        """See `RowWork`."""
        return self._synthesizer.scoring_bytes(known)

    def score(self, rows: Sequence[Mapping[str, Cell]]) -> Steps[Sequence[ScoredRow]]:
        """Score the rows that come next, in steps.

        Args:
            rows: Known cells of each row by column; None for one that is known to be missing.

        Returns:
            The scores; none where it was stopped.

        Raises:
            ColumnNotFoundError: A column does not exist.
            ValueNotFoundError: A category never occurred in training.
            InvalidConditionError: A cell is not a value of its column.
        """
        modelled = self.modelled(self.checked(rows))
        try:
            if self._stopped():
                return []
            scores = yield from self._scorer.score(modelled)
        except CancelledError:
            return []
        found = zip(scores.log_probability.tolist(), scores.impossible.tolist(), strict=True)
        done = [ScoredRow(row, value, never) for row, (value, never) in enumerate(found, self.next_row)]
        self.next_row += len(done)
        return done
