"""Types of columns of the canonical table."""

from enum import Enum

import pyarrow as pa

from rowmint.schema import DataType

EXACT_DOUBLE = 2**53
MAX_DECIMALS = 15
MAX_SCALE = 38


class Inference(Enum):
    """Types that are inferred from text."""

    ALL = "all"
    """All types: the format is untyped (CSV)."""
    DATETIMES = "datetimes"
    """Days and instants, for which the format has no type (JSON)."""
    NONE = "none"
    """None: the format is typed (Parquet, Arrow)."""


def canonical_type(data_type: DataType, decimals: int | None, *, utc: bool) -> pa.DataType:
    """Return the Arrow type of a column of the canonical table.

    Args:
        data_type: Its data type.
        decimals: Digits after the point of a DECIMAL; None for 0.
        utc: Whether a TIMESTAMP is an instant, not a local time.
    """
    match data_type:
        case DataType.BOOL:
            return pa.bool_()
        case DataType.INT64:
            return pa.int64()
        case DataType.DOUBLE:
            return pa.float64()
        case DataType.DECIMAL:
            return pa.decimal128(MAX_SCALE, 0 if decimals is None else decimals)
        case DataType.STRING:
            return pa.string()
        case DataType.DATE:
            return pa.date32()
        case DataType.TIMESTAMP:
            return pa.timestamp("us", "UTC" if utc else None)
