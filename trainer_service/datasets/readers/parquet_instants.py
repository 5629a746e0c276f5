"""Instants that Parquet stores as INT96: nanoseconds of a day, and the day.

Arrow reads them as nanoseconds, in whose range the year 9999 wraps around to 1816, without a word. They are read in
three units here, which together have every digit: seconds cannot wrap around, microseconds are what ingest keeps, and
the lowest digits of nanoseconds are right even where the highest are lost.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from trainer_service.datasets.conversion import mask
from trainer_service.datasets.notices import Notice, NoticeCode
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_cells import YEARS, digits_dropped
from trainer_service.datasets.readers.arrow_columns import ArrowPass

UNIT = "us"
"""The unit in which they are read with all other columns."""
OTHER_UNITS = ("s", "ns")
"""Units in which they are read as well."""


def checked_instants(
    batch: pa.RecordBatch, others: Mapping[str, pa.RecordBatch], first_row: int, problems: Problems, reading: ArrowPass
) -> pa.RecordBatch:
    """Return a batch whose INT96 columns have no instant that wrapped around.

    Args:
        batch: The batch, with these columns in microseconds.
        others: These columns of the same rows in `OTHER_UNITS`.
        first_row: Number of its first row.
        problems: Receives the rows with instants outside the range of microseconds.
        reading: Receives the number of rows whose digits past microseconds are dropped.
    """
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name in others["s"].schema.names:
        column = columns[name]
        valid = mask(column.is_valid())
        micros, seconds, nanos = (
            array.cast(pa.int64()).fill_null(0).to_numpy()
            for array in (column, others["s"].column(name), others["ns"].column(name))
        )
        wrapped = valid & (np.floor_divide(micros, 1_000_000) != seconds)
        problems.add_rows(YEARS, wrapped, first_row, name)
        # The product wraps around as the nanoseconds do.
        if dropped := int(np.count_nonzero(valid & ~wrapped & (nanos - micros * 1000 != 0))):
            reading.note(digits_dropped(name, dropped))
        if zero := int(np.count_nonzero(valid & (micros == 0) & (nanos == 0))):
            message = "instants at the beginning of 1970 may have been Julian day 0, which Arrow reads as that"
            reading.note(Notice(NoticeCode.STORAGE, name, message, "", zero))
        columns[name] = pa.array(micros, pa.int64(), mask=~valid | wrapped).cast(column.type)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
