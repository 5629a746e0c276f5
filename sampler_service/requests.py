"""Requests: specifications of streams, each of a model version that is named but not resolved yet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from rowmint.names import ModelVersionRef
from rowmint.sampling.spec import CompletionSpec, SampleSpec, ScoringSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Received(Generic[T]):
    """A message that was received and is not read yet: a large one takes longer to read than a loop may stand still.

    Attributes:
        model: The version that it names.
        size: Its size, bytes.
        read: Returns what it requests; raises an InvalidFieldError where it is malformed.
    """

    model: ModelVersionRef
    size: int
    read: Callable[[], T]


@dataclass(frozen=True, kw_only=True)
class SampleRequest(SampleSpec):
    """Sampled rows of a version.

    Attributes:
        model: The version.
    """

    model: ModelVersionRef


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(CompletionSpec):
    """Completed rows of a version.

    Attributes:
        model: The version.
    """

    model: ModelVersionRef


@dataclass(frozen=True, kw_only=True)
class ScoringRequest(ScoringSpec):
    """Scores of rows under a version.

    Attributes:
        model: The version.
    """

    model: ModelVersionRef
