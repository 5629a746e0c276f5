"""Resource names (AIP-122): formatting and parsing.

    projects/{project}
    projects/{project}/datasets/{dataset}
    projects/{project}/trainingJobs/{job}
    projects/{project}/ingestJobs/{job}
    projects/{project}/models/{model}
    projects/{project}/models/{model}/versions/{version}
    projects/{project}/models/{model}@{alias}
    projects/{project}/models/{model}@sha256:{model digest}

Every class formats with `str()`; those that a request may hold parse with `parse(text, field)`, which raises
`InvalidFieldError` naming `field`.
"""

import re
from dataclasses import dataclass
from typing import Self

from rowmint.errors import InvalidFieldError

_ID = r"[a-z][a-z0-9-]{0,62}"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ID_RULE = "1 to 63 characters of a-z, 0-9 and '-', starting with a letter"

LATEST = "latest"


def validate_id(text: str, field: str) -> str:
    """Return `text` if it is a valid last part of a name.

    Raises:
        InvalidFieldError: It is not; the error names `field`.
    """
    if not re.fullmatch(_ID, text):
        raise InvalidFieldError(field, f"{text!r} is not an id: {_ID_RULE}")
    return text


def validate_request_id(text: str, field: str = "request_id") -> str:
    """Return `text` if it is a UUID or empty (no request id).

    Raises:
        InvalidFieldError: It is neither; the error names `field`.
    """
    if text and not re.fullmatch(_UUID, text):
        raise InvalidFieldError(field, f"{text!r} is not a UUID, such as 123e4567-e89b-42d3-a456-426614174000")
    return text


def _match(pattern: str, text: str, field: str, form: str) -> re.Match[str]:
    if not text:
        raise InvalidFieldError(field, f"is required, of the form {form}")
    match = re.fullmatch(pattern, text)
    if match is None:
        raise InvalidFieldError(field, f"{text!r} is not of the form {form}, each id {_ID_RULE}")
    return match


@dataclass(frozen=True, order=True)
class ProjectName:
    """`projects/{project}`."""

    project: str

    @classmethod
    def parse(cls, text: str, field: str = "parent") -> Self:
        """Parse `text`; `InvalidFieldError` names `field`."""
        return cls(_match(f"projects/({_ID})", text, field, "projects/{project}")[1])

    def __str__(self) -> str:
        return f"projects/{self.project}"


def project_of(text: str, field: str) -> ProjectName:
    """Return the project of any resource name; the rest is not validated. `InvalidFieldError` names `field`."""
    return ProjectName(_match(f"projects/({_ID})(?:/.*)?", text, field, "projects/{project}/...")[1])


@dataclass(frozen=True, order=True)
class DatasetName:
    """`projects/{project}/datasets/{dataset}`."""

    project: str
    dataset: str

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Parse `text`; `InvalidFieldError` names `field`."""
        form = "projects/{project}/datasets/{dataset}"
        match = _match(f"projects/({_ID})/datasets/({_ID})", text, field, form)
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"projects/{self.project}/datasets/{self.dataset}"


@dataclass(frozen=True, order=True)
class TrainingJobName:
    """`projects/{project}/trainingJobs/{job}`."""

    project: str
    job: str

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Parse `text`; `InvalidFieldError` names `field`."""
        form = "projects/{project}/trainingJobs/{job}"
        match = _match(f"projects/({_ID})/trainingJobs/({_ID})", text, field, form)
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"projects/{self.project}/trainingJobs/{self.job}"


@dataclass(frozen=True, order=True)
class IngestJobName:
    """`projects/{project}/ingestJobs/{job}`: in logs and metrics only; no RPC reads it."""

    project: str
    job: str

    def __str__(self) -> str:
        return f"projects/{self.project}/ingestJobs/{self.job}"


@dataclass(frozen=True, order=True)
class ModelName:
    """`projects/{project}/models/{model}`."""

    project: str
    model: str

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Parse `text`; `InvalidFieldError` names `field`."""
        form = "projects/{project}/models/{model}"
        match = _match(f"projects/({_ID})/models/({_ID})", text, field, form)
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"projects/{self.project}/models/{self.model}"


@dataclass(frozen=True, order=True)
class ModelVersionName:
    """`projects/{project}/models/{model}/versions/{version}`; versions count from 1."""

    project: str
    model: str
    version: int

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Parse `text`; aliases are not accepted. `InvalidFieldError` names `field`."""
        form = "projects/{project}/models/{model}/versions/{version}"
        match = _match(f"projects/({_ID})/models/({_ID})/versions/([1-9][0-9]{{0,17}})", text, field, form)
        return cls(match[1], match[2], int(match[3]))

    def __str__(self) -> str:
        return f"projects/{self.project}/models/{self.model}/versions/{self.version}"

    @property
    def parent(self) -> ModelName:
        """The model it is a version of."""
        return ModelName(self.project, self.model)


@dataclass(frozen=True)
class ModelVersionRef:
    """A reference to a version, by number, alias or model digest; exactly one of these is set.

    Attributes:
        model: The model.
        version: Version number, from 1.
        alias: Alias such as ``latest``.
        digest: Model digest, 32 bytes.
    """

    model: ModelName
    version: int | None = None
    alias: str | None = None
    digest: bytes | None = None

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Parse `text`; a bare model name stands for its latest version. `InvalidFieldError` names `field`."""
        form = "projects/{project}/models/{model}[/versions/{version} | @{alias} | @sha256:{64 hex digits}]"
        match = _match(
            f"(projects/{_ID}/models/{_ID})(?:/versions/([1-9][0-9]{{0,17}})|@({_ID})|@sha256:([0-9a-f]{{64}}))?",
            text,
            field,
            form,
        )
        model = ModelName.parse(match[1], field)
        if match[2]:
            return cls(model, version=int(match[2]))
        if match[4]:
            return cls(model, digest=bytes.fromhex(match[4]))
        return cls(model, alias=match[3] or LATEST)

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}/versions/{self.version}"
        if self.digest is not None:
            return f"{self.model}@sha256:{self.digest.hex()}"
        return f"{self.model}@{self.alias}"
