"""A choice among families: each candidate is fitted, as the time allows, and judged on rows kept out of training.

What is judged is what would be served: rows drawn by `rowmint.sampling` from the candidate's exported model. A
candidate that fails is recorded and passed over. Every checkpoint holds the results of the candidates that are done and
the best model so far, so that an attempt that takes over resumes in the candidate that was being fitted.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from rowmint.artifact import Artifact, read_model
from rowmint.errors import CancelledError, FencedError, RowmintError, TrainingFailedError, UnavailableError
from rowmint.synthesizer import choose_kernel
from trainer_service.config import TrainingConfig
from trainer_service.fitting.candidates import RULE, CandidateResult, CandidateScore, Choice, Outcome
from trainer_service.fitting.context import Checkpoints, FitContext
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.families import Family
from trainer_service.fitting.families.auto.config import LEAST_ROWS, AutoConfig
from trainer_service.fitting.keys import torch_seed
from trainer_service.fitting.monitoring.likelihood import held_out_likelihood
from trainer_service.fitting.monitoring.progress import FitEvent, Phase
from trainer_service.fitting.monitoring.two_sample import made_columns, real_columns, two_sample
from trainer_service.memory import ran_out_of_memory

_MOST_BEGUN = 2  # times that a candidate is begun and gets no further
_MOST_ROWS = 10_000  # compared; more would only make the comparison longer
_PROGRESS = ("epoch", "epochs", "losses", "rows_per_second", "probe")
_ENDS_THE_JOB = (CancelledError, FencedError, UnavailableError, OSError)

_log = structlog.get_logger(__name__)

FitFamily = Callable[[TrainingConfig, FitContext], Artifact]
"""Fits one family, given its configuration and surroundings."""
EstimateFamily = Callable[[TrainingConfig, Path], float]
"""Returns the seconds that fitting one family would take, given its configuration and a folder for temporary files."""


@dataclass(frozen=True)
class _HeldOut:
    """The rows that candidates are compared on.

    Attributes:
        fraction: Share of the table's rows that no candidate trains on.
        rows: Those compared; none where there is no comparison.
        missing: Why there is none; empty where there is one.
    """

    fraction: float
    rows: pa.Table
    missing: str


class AutoFit:
    """A choice among families, being made. One thread uses it.

    Args:
        table: The training table; all its rows.
        config: Valid; its family is a choice.
        dataset_digest: SHA-256 of the dataset, 32 bytes.
        context: Surroundings of the whole; each candidate gets a folder of its own within `scratch`.
        fit: Fits one candidate.
        estimate: Estimates one.
    """

    def __init__(
        self,
        table: Table,
        config: TrainingConfig,
        dataset_digest: bytes,
        context: FitContext,
        *,
        fit: FitFamily,
        estimate: EstimateFamily,
    ) -> None:
        if not isinstance(config.family, AutoConfig):
            raise TypeError(f"{config.family_name} is not a choice among families")
        self._table = table
        self._config = config
        self._allowed = config.family.seconds
        self._digest = dataset_digest
        self._context = context
        self._fit = fit
        self._estimate = estimate
        self._choice = Choice()
        self._running: bytes | None = None
        self._progress: dict[str, Any] = {}
        self._began = context.clock()
        self._earlier = 0.0  # seconds of earlier attempts

    def run(self) -> Artifact:
        """Fit the candidates and return the best one's files, whose manifest says how it was chosen.

        Raises:
            CancelledError: The context said so.
            TrainingFailedError: No candidate could be fitted.
        """
        held_out = self._held_out()
        self._resume()
        for family in self._config.families[len(self._choice.results) :]:
            self._try(family, held_out)
        choice = self._choice
        if choice.kept is None or choice.artifact is None:
            reasons = "; ".join(f"{result.family}: {result.reason}" for result in choice.results)
            raise TrainingFailedError(f"no candidate could be fitted: {reasons}")
        kept = choice.results[choice.kept]
        among = ", ".join(result.family for result in choice.results)
        # With the progress of the model that is kept: the one reported last may be another's.
        progress = FitEvent(Phase.VERIFYING, **choice.progress)
        self._context.on_event(replace(progress, message=f"{kept.family} is kept, of {among}"))
        comparison = {"rows": held_out.rows.num_rows, "missing": held_out.missing, "rule": RULE}
        entry = {
            "chosen": kept.family,
            "seconds_allowed": self._allowed,
            "seconds": round(choice.seconds, 3),
            "comparison": comparison,
            "candidates": [result.to_json() for result in choice.results],
        }
        return choice.artifact.with_training({"auto": entry})

    def _resume(self) -> None:
        """Take over what an earlier attempt has done."""
        saved = self._context.checkpoints.load()
        if saved is None:
            return
        try:
            self._choice, self._running = Choice.from_bytes(saved)
        except ValueError as error:
            self._report(f"begun again: the checkpoint cannot be used, as {error}")
            return
        self._earlier = self._choice.seconds
        done = ", ".join(result.family for result in self._choice.results) or "no candidate"
        self._report(f"resumed: {done} had been done")

    def _held_out(self) -> _HeldOut:
        """Read the rows that candidates are compared on: all that do not train, or some from all over the table."""
        rows = self._table.row_count
        fraction = self._config.compared_fraction(rows)
        # The rows of a smaller fraction under the same key are among those of a larger one.
        compared = replace(Holdout.of(self._digest, fraction), fraction=min(fraction, _MOST_ROWS / rows))
        found = replace(self._table, holdout=compared).held_out(rows, self._context.cancelled)
        if found.num_rows >= LEAST_ROWS:
            message = f"{found.num_rows:,} rows kept out of training compare {len(self._config.families)} candidates"
            self._context.on_event(FitEvent(Phase.ENCODING, message=message))
            return _HeldOut(fraction, found, "")
        kept_out = f"{found.num_rows} of {rows} rows out of training"
        missing = f"holdout_fraction {fraction:g} keeps {kept_out}, {LEAST_ROWS} are needed to compare"
        message = f"the first candidate that can be fitted is kept: {missing}"
        self._context.on_event(FitEvent(Phase.ENCODING, message=message))
        return _HeldOut(self._config.holdout_fraction, found.slice(0, 0), missing)

    def _try(self, family: Family, held_out: _HeldOut) -> None:
        """Fit, judge and record the next candidate."""
        clock, began = self._context.clock, self._context.clock()
        config = self._config.candidate(family, held_out.fraction)
        estimated: float | None = None
        score: CandidateScore | None = None
        try:
            self._begin()
            estimated, reason = self._estimated(family, config, held_out)
            outcome = Outcome.SKIPPED if reason else Outcome.FITTED
            if not reason:
                self._progress = {}
                with self._folder(family) as folder:
                    artifact = self._fit(config, self._surroundings(family, folder))
                score = self._judge(artifact, held_out)
                reason = self._keep(artifact, score)
        except _ENDS_THE_JOB:
            raise
        except Exception as error:  # noqa: BLE001 - what one candidate fails of is no reason to lose the others
            outcome, reason = Outcome.FAILED, _reason(family, error)
        self._record(CandidateResult(family.name, outcome, reason, round(clock() - began, 3), estimated, score))

    def _begin(self) -> None:
        """Keep in a checkpoint that the next candidate is begun: it may end the whole process, as lack of memory does.

        Raises:
            TrainingFailedError: It has ended as many attempts, with no checkpoint of its own in between.
        """
        if self._choice.begun >= _MOST_BEGUN:
            raise TrainingFailedError(
                f"{self._choice.begun} attempts have ended in it, as they do where the machine's memory is not enough"
            )
        self._choice.begun += 1
        self._context.checkpoints.save(*self._checkpoint(self._running))

    def _estimated(self, family: Family, config: TrainingConfig, held_out: _HeldOut) -> tuple[float | None, str]:
        """Return the estimate of a candidate, None where it needs none, and why it is skipped, empty if it is not."""
        if self._choice.kept is not None and held_out.missing:
            return None, f"not compared: {held_out.missing}"
        if not self._choice.results or self._running is not None:
            return None, ""
        with self._folder(family) as folder:
            seconds = self._estimate(config, folder)
        left = max(self._allowed - self._spent(), 0.0)
        if seconds <= left:
            return seconds, ""
        return seconds, f"its estimate is {seconds:,.0f} s, and of {self._allowed:,} s only {left:,.0f} s are left"

    def _judge(self, artifact: Artifact, held_out: _HeldOut) -> CandidateScore | None:
        """Load a model as a sampler would and compare its rows with those held out; None where there are none."""
        model = read_model(artifact.manifest, artifact.weights, choose_kernel("numpy"), artifact.manifest_digest)
        if held_out.missing:
            return None
        rows, seed = held_out.rows.num_rows, self._config.seed
        made = made_columns(model, rows, torch_seed(seed, "rows judged"))
        real = real_columns(held_out.rows, [model.schema.column(name) for name in made])
        found = two_sample(real, made, seed=seed, cancelled=self._context.cancelled)
        auc, error = round(found.auc, 6), round(found.standard_error, 6)
        likelihood = held_out_likelihood(model, held_out.rows, self._context.cancelled)
        if likelihood is None:
            return CandidateScore(auc, error, found.rows)
        return CandidateScore(auc, error, found.rows, round(likelihood.mean, 6), likelihood.impossible)

    def _keep(self, artifact: Artifact, score: CandidateScore | None) -> str:
        """Keep the next candidate if it is better than the one kept; return why it is or is not."""
        choice = self._choice
        before = None if choice.kept is None else choice.results[choice.kept].score
        replaces, reason = True, "there was none before it"
        if before is not None and score is not None:
            replaces, reason = score.replaces(before)
        if replaces:
            choice.kept, choice.artifact, choice.progress = len(choice.results), artifact, self._progress
        return reason

    def _record(self, result: CandidateResult) -> None:
        """Record and report what became of a candidate, and keep it in a checkpoint."""
        self._choice.results.append(result)
        self._choice.begun = 0
        self._running = None
        score = result.score
        said = "" if score is None else f", C2ST AUC {score.auc:.3f} +- {score.standard_error:.3f}"
        self._report(f"{result.family} {result.outcome}{said}: {result.reason}")
        self._context.checkpoints.save(*self._checkpoint())

    def _checkpoint(self, running: bytes | None = None) -> tuple[int, bytes]:
        """Return the next checkpoint, its number first, given that of the candidate that is being fitted."""
        self._choice.steps += 1
        self._choice.seconds = self._spent()
        return self._choice.steps, self._choice.to_bytes(running)

    def _spent(self) -> float:
        """Return the seconds that all candidates took so far."""
        return self._earlier + self._context.clock() - self._began

    def _report(self, message: str) -> None:
        self._context.on_event(FitEvent(Phase.FITTING, message=message))

    @contextmanager
    def _folder(self, family: Family) -> Iterator[Path]:
        folder = self._context.scratch / family.name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def _surroundings(self, family: Family, folder: Path) -> FitContext:
        """Return the surroundings of a candidate's fit: its phases are one, and its checkpoints part of the whole's."""
        place = f"{family.name} ({len(self._choice.results) + 1} of {len(self._config.families)})"

        def on_event(event: FitEvent) -> None:
            message = f"{place}: {event.message}" if event.message else ""
            if event.losses:  # an epoch has ended
                self._progress = {name: getattr(event, name) for name in _PROGRESS}
            self._context.on_event(replace(event, phase=Phase.FITTING, message=message))

        def wrap(data: bytes) -> tuple[int, bytes]:
            self._choice.begun = 1  # it goes on, however often it was begun
            return self._checkpoint(data)

        checkpoints = _CandidateCheckpoints(self._context.checkpoints, self._running, wrap)
        return replace(self._context, scratch=folder, on_event=on_event, checkpoints=checkpoints)


def _reason(family: Family, error: Exception) -> str:
    """Return why a candidate failed; what is no domain error is logged whole."""
    if isinstance(error, RowmintError):
        return error.message
    _log.warning("a candidate failed", family=family.name, exc_info=error)
    return "not enough memory" if ran_out_of_memory(error) else f"{type(error).__name__}; the trainer's log says more"


class _CandidateCheckpoints:
    """The checkpoints of a candidate, each within one of the choice; see `Checkpoints`.

    Args:
        whole: Where those of the choice are kept.
        running: The candidate's own where an earlier attempt has left one.
        wrap: Returns the choice's checkpoint, its number first, given the candidate's.
    """

    def __init__(self, whole: Checkpoints, running: bytes | None, wrap: Callable[[bytes], tuple[int, bytes]]) -> None:
        self._whole = whole
        self._running = running
        self._wrap = wrap

    def load(self) -> bytes | None:
        """Return what an earlier attempt has left of this candidate."""
        return self._running

    def due(self) -> bool:
        """Return whether one is due of the whole."""
        return self._whole.due()

    def save(self, step: int, data: bytes) -> None:
        """Keep one; numbers of the whole only grow, whatever the step."""
        del step
        self._whole.save(*self._wrap(data))
