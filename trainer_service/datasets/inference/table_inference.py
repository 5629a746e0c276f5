"""Type inference of a table: columns are inferred alone, and what some of them say about spelling helps the others."""

from collections.abc import Mapping

import pyarrow as pa

from rowmint.schema import ColumnSpec
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.inference.column_inference import ColumnInference
from trainer_service.datasets.inference.decision import Evidence
from trainer_service.datasets.notices import Notices
from trainer_service.datasets.target import Target


class TableInference:
    """Infers the types of a table's columns.

    Args:
        inference: Types that are inferred from text.
        declared: The declared columns, by name.
        hints: What the format says.
    """

    def __init__(self, inference: Inference, declared: Mapping[str, ColumnSpec], hints: FormatHints) -> None:
        self._inference = inference
        self._declared = declared
        self._hints = hints
        self._columns: dict[str, ColumnInference] = {}

    @property
    def names(self) -> list[str]:
        """The columns seen, in order."""
        return list(self._columns)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add some rows."""
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name not in self._columns:
                self._columns[name] = ColumnInference(name, self._inference, self._declared.get(name))
            self._columns[name].add(array)

    def decide(self, primary_key: str, notices: Notices) -> list[tuple[str, Target]]:
        """Return the columns and their targets.

        Args:
            primary_key: The declared primary key, or empty.
            notices: Receives what to report.

        Raises:
            InvalidFieldError: A declaration does not fit the values; the message names the column.
        """
        decimals = {column.decimal for column in self._columns.values()} - {""}
        orders: dict[str, set[bool]] = {}
        for column in self._columns.values():
            if column.order is not None:
                orders.setdefault(column.order[0], set()).add(column.order[1])
        evidence = Evidence(
            self._hints,
            decimals.pop() if len(decimals) == 1 else "",
            {separator: found.pop() for separator, found in orders.items() if len(found) == 1},
        )
        targets = []
        for name, column in self._columns.items():
            target, found = column.decide(evidence, is_key=name == primary_key)
            notices.extend(found)
            targets.append((name, target))
        return targets
