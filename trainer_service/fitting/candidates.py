"""The candidates of a choice among families: how they are compared, and what is kept of those that are done."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import hypot
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from rowmint.artifact import Artifact

RULE = (
    "in order, a candidate replaces the one kept if a classifier tells its rows less well from held-out ones (C2ST AUC,"
    " out of fold, not below 0.5); within two standard errors of the difference the higher held-out likelihood decides"
    " where both have one, else the earlier stays"
)
_FORMAT = 2
_CHANCE = 0.5
_ERRORS = 2.0  # standard errors within which two candidates tie


class Outcome(StrEnum):
    """What became of a candidate."""

    FITTED = "fitted"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class CandidateScore:
    """How good a candidate's rows are.

    Attributes:
        auc: Area under the ROC curve of a classifier that tells them from held-out rows, 0 to 1; 0.5 is ideal.
        standard_error: Of the area.
        rows: Held-out rows, and as many made ones.
        log_likelihood: Mean of the held-out rows under the model, nats, see `held_out_likelihood`; None where the
            family has none.
        impossible_rows: Held-out rows that the model never makes; None where that is not known.
    """

    auc: float
    standard_error: float
    rows: int
    log_likelihood: float | None = None
    impossible_rows: int | None = None

    def replaces(self, kept: "CandidateScore") -> tuple[bool, str]:
        """Return whether a candidate of this score replaces the one kept, an earlier one, and why; see `RULE`."""
        distance = max(kept.auc, _CHANCE) - max(self.auc, _CHANCE)
        error = hypot(self.standard_error, kept.standard_error)
        areas = f"its AUC is {self.auc:.3f}, that of the one kept {kept.auc:.3f}"
        compared = f"{areas}, standard error of the difference {error:.3f}"
        if abs(distance) > _ERRORS * error:
            return distance > 0, compared
        if self.log_likelihood is None or kept.log_likelihood is None:
            return False, f"{compared}: a tie, in which the earlier stays"
        likelihoods = f"{self.log_likelihood:.4f} against {kept.log_likelihood:.4f} nats a row"
        decided = f"{compared}: a tie, decided by held-out likelihood, {likelihoods}"
        return self.log_likelihood > kept.log_likelihood, decided


@dataclass(frozen=True)
class CandidateResult:
    """What became of a candidate and why.

    Attributes:
        family: Its family.
        outcome: What became of it.
        reason: Why it replaced the one kept or not, was skipped, or failed.
        seconds: Seconds it took, estimate, fit and comparison.
        estimated_seconds: What its fit was estimated to take; None where it was not estimated, as the first is not.
        score: How good its rows are; None where it was not compared.
    """

    family: str
    outcome: Outcome
    reason: str
    seconds: float
    estimated_seconds: float | None = None
    score: CandidateScore | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {**asdict(self), "outcome": str(self.outcome)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave."""
        score = None if body["score"] is None else CandidateScore(**body["score"])
        return cls(**{**body, "outcome": Outcome(body["outcome"]), "score": score})


@dataclass
class Choice:
    """How far a choice among families has come.

    Attributes:
        results: What became of the candidates that are done, in order.
        kept: Which of these is kept; None while there is none.
        artifact: Its files.
        progress: What its fit reported at the end of its last epoch, by field of `FitEvent`; empty where it had none.
        seconds: Seconds all took so far, those of earlier attempts included.
        steps: Number of the newest checkpoint; they only grow.
        begun: How often the candidate after these was begun since it last came to a checkpoint of its own.
    """

    results: list[CandidateResult] = field(default_factory=list)
    kept: int | None = None
    artifact: Artifact | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0
    begun: int = 0

    def to_bytes(self, running: bytes | None = None) -> bytes:
        """Return a checkpoint.

        Args:
            running: The checkpoint of the candidate that is being fitted; None where none is.
        """
        about = {
            "format": _FORMAT,
            "results": [result.to_json() for result in self.results],
            "kept": self.kept,
            "progress": self.progress,
            "seconds": self.seconds,
            "steps": self.steps,
            "begun": self.begun,
        }
        parts = {"about": json.dumps(about).encode()}
        if running is not None:
            parts["running"] = running
        if self.artifact is not None:
            parts |= {"manifest": self.artifact.manifest, "weights": self.artifact.weights}
        arrays: dict[str, NDArray[np.generic]] = {name: np.frombuffer(data, np.uint8) for name, data in parts.items()}
        return bytes(safetensors.numpy.save(arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Self, bytes | None]:
        """Return what `to_bytes` wrote: the choice, and the checkpoint of the candidate that was being fitted.

        Raises:
            ValueError: It is not a checkpoint of a choice, or another version's.
        """
        try:
            parts = {name: array.tobytes() for name, array in safetensors.numpy.load(data).items()}
            about = json.loads(parts["about"])
            if about["format"] == _FORMAT:
                results = [CandidateResult.from_json(body) for body in about["results"]]
                artifact = Artifact.of(parts["manifest"], parts["weights"]) if "manifest" in parts else None
                kept, progress, begun = about["kept"], about["progress"], about["begun"]
                found = cls(results, kept, artifact, progress, about["seconds"], about["steps"], begun)
                return found, parts.get("running")
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"it is malformed: {error!r}") from error
        raise ValueError(f"it has format {about['format']}, this version writes {_FORMAT}")
