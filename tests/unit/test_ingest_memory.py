"""Inference holds little memory, whatever the columns: many of them, and columns made to have many shapes.

What it holds includes how shapes are read, which columns share.
"""

import tracemalloc
from collections.abc import Iterator

import pyarrow as pa
import pytest

from rowmint.schema import DataType
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.inference.table_inference import TableInference
from trainer_service.datasets.notices import Notices

COLUMNS = 1_024


def wide(cell: str) -> Iterator[pa.RecordBatch]:
    for batch in range(3):
        array = pa.array([f"{cell}{batch}{row}" for row in range(10)])
        yield pa.RecordBatch.from_arrays([array] * COLUMNS, names=[f"c{index}" for index in range(COLUMNS)])


def many_shapes() -> Iterator[pa.RecordBatch]:
    """One column in which every text is a number of another shape."""
    texts = [
        f"{sign}{'9' * whole}.{'3' * fraction}{'%' * percent}"
        for whole in range(1, 30)
        for fraction in range(30)
        for sign in ("", "-", "+")
        for percent in (0, 1)
    ]
    for start in range(0, len(texts), 500):
        yield pa.RecordBatch.from_arrays([pa.array(texts[start : start + 500])], names=["x"])


def moments() -> Iterator[pa.RecordBatch]:
    """One column in which moments are written in as many ways as possible."""
    for day in range(1, 29):
        clocks = [f"{hour}:{minute:02d}" for hour in range(24) for minute in (0, 30)]
        ends = ["", ":07", ":07.5", ":07.123456789"]
        texts = [f"2020-1-{day}{space}{clock}{end}" for space in " T" for clock in clocks for end in ends]
        yield pa.RecordBatch.from_arrays([pa.array(texts)], names=["x"])


@pytest.mark.parametrize(
    ("batches", "most"),
    [
        (wide("text "), 6 << 20),
        (wide("12"), 12 << 20),
        (many_shapes(), 8 << 20),
        (moments(), 1 << 20),
    ],
    ids=["texts", "numbers", "shapes", "moments"],
)
def test_inference_holds_little(batches: Iterator[pa.RecordBatch], most: int) -> None:
    inference = TableInference(Inference.ALL, {}, FormatHints())
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        for batch in batches:
            inference.add(batch)
        del batch
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    inference.decide("", Notices())
    assert held < most
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_texts_of_very_many_shapes_are_text() -> None:
    inference = TableInference(Inference.ALL, {}, FormatHints())
    for batch in many_shapes():
        inference.add(batch)
    assert inference.decide("", Notices())[0][1].data_type is DataType.STRING
