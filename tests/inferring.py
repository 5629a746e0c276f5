"""Inference of one column or a few, from their texts alone."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from rowmint.schema import ColumnSpec
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.inference.table_inference import TableInference
from trainer_service.datasets.notices import Notice, Notices
from trainer_service.datasets.target import Target

Cells = Sequence[str | None]


def infer_table(
    columns: Mapping[str, Cells],
    hints: FormatHints | None = None,
    declared: Sequence[ColumnSpec] = (),
    cut: Sequence[int] = (),
) -> tuple[dict[str, Target], tuple[Notice, ...]]:
    """Return the targets of a table's columns and what is reported.

    Args:
        columns: The columns' texts.
        hints: What the format says.
        declared: The declared columns.
        cut: Rows before which a new batch begins, ascending.
    """
    overrides = {column.name: column for column in declared}
    inference = TableInference(Inference.ALL, overrides, FormatHints() if hints is None else hints)
    arrays = [pa.array(cells, pa.string()) for cells in columns.values()]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    for start, end in zip([0, *cut], [*cut, len(batch)], strict=True):
        inference.add(batch.slice(start, end - start))
    notices = Notices()
    return dict(inference.decide("", notices)), notices.all()


def infer(
    cells: Cells, hints: FormatHints | None = None, declared: ColumnSpec | None = None, name: str = "x"
) -> tuple[Target, list[str]]:
    """Return the target of one column, and the codes of what is reported."""
    targets, notices = infer_table({name: cells}, hints, () if declared is None else (declared,))
    return targets[name], [str(notice.code) for notice in notices]
