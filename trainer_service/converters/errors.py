"""Conversion of domain errors to and from JSON values, for the transfer from a worker to its parent."""

from collections.abc import Mapping
from typing import Any

from rowmint.errors import FieldViolation, Reason, RowmintError


def error_to_json(error: RowmintError) -> dict[str, Any]:
    """Return an error as JSON values."""
    return {
        "reason": str(error.reason),
        "message": error.message,
        "metadata": error.metadata,
        "violations": [[violation.field, violation.description] for violation in error.violations],
        "retry_after": error.retry_after,
    }


def error_from_json(body: Mapping[str, Any]) -> RowmintError:
    """Return the error from the result of `error_to_json`: of the base class, with the original's reason."""
    error = RowmintError(
        body["message"],
        metadata=body["metadata"],
        violations=[FieldViolation(field, description) for field, description in body["violations"]],
        retry_after=body["retry_after"],
    )
    error.reason = Reason(body["reason"])
    return error
