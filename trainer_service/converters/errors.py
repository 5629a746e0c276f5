"""Domain errors as JSON values, as they cross from a worker to its parent. Pure."""

from collections.abc import Mapping
from typing import Any

from rowmint.errors import FieldViolation, Reason, RowmintError


def error_to_json(error: RowmintError) -> dict[str, Any]:
    """Return all that a caller is to learn of an error."""
    return {
        "reason": str(error.reason),
        "message": error.message,
        "metadata": error.metadata,
        "violations": [[violation.field, violation.description] for violation in error.violations],
        "retry_after": error.retry_after,
    }


def error_from_json(body: Mapping[str, Any]) -> RowmintError:
    """Return the error that `error_to_json` wrote: of the root class, its reason that of the original."""
    error = RowmintError(
        body["message"],
        metadata=body["metadata"],
        violations=[FieldViolation(field, description) for field, description in body["violations"]],
        retry_after=body["retry_after"],
    )
    error.reason = Reason(body["reason"])
    return error
