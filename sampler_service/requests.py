"""Requests: specifications of streams, each of a model version that is named but not resolved yet."""

from dataclasses import dataclass

from rowmint.names import ModelVersionRef
from rowmint.sampling.spec import CompletionSpec, SampleSpec


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
