"""Inferred types as JSON: a later attempt of an ingest reuses them instead of repeating the first pass."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from rowmint.schema import DataType
from rowmint.schema.forms import WrittenForm
from trainer_service.datasets.notices import Notice
from trainer_service.datasets.target import Target

_FORMAT = 2


@dataclass(frozen=True)
class InferredTypes:
    """What the first pass found.

    Attributes:
        columns: The columns' names and targets, in order.
        notices: What it reports.
    """

    columns: tuple[tuple[str, Target], ...]
    notices: tuple[Notice, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the types as JSON values."""
        return {
            "format": _FORMAT,
            "columns": [
                {"name": name, **asdict(target), "data_type": str(target.data_type), "form": target.form.to_json()}
                for name, target in self.columns
            ],
            "notices": [notice.to_json() for notice in self.notices],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the types that `to_json` wrote.

        Raises:
            ValueError: They are invalid or of another version; the first pass must be repeated.
        """
        try:
            if body["format"] != _FORMAT:
                raise ValueError(f"format {body['format']} is unknown")
            columns = []
            for entry in body["columns"]:
                fields = {key: value for key, value in entry.items() if key != "name"}
                fields |= {"data_type": DataType(fields["data_type"]), "form": WrittenForm.from_json(fields["form"])}
                columns.append((entry["name"], Target(**fields)))
            return cls(tuple(columns), tuple(Notice.from_json(notice) for notice in body["notices"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"the inferred types are malformed: {error!r}") from error
