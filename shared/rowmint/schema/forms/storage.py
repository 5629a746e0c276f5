"""Arrow types that columns may be delivered in: which data types they stand for, and what they hold."""

from collections.abc import Mapping

from rowmint.schema.cell import INT64_MAX, INT64_MIN, DataType
from rowmint.schema.forms.moments import DAY
from rowmint.schema.forms.written_form import StorageType

_MOST_FLOAT32 = 3.4028234663852886e38
_MOST_FLOAT16 = 65504.0

STORAGE_OF_TYPE: Mapping[DataType, frozenset[StorageType]] = {
    DataType.BOOL: frozenset(),
    DataType.INT64: frozenset(
        {
            StorageType.INT8,
            StorageType.INT16,
            StorageType.INT32,
            StorageType.UINT8,
            StorageType.UINT16,
            StorageType.UINT32,
            StorageType.UINT64,
            StorageType.TIME32_S,
            StorageType.TIME32_MS,
            StorageType.TIME64_US,
            StorageType.TIME64_NS,
            StorageType.DURATION_S,
            StorageType.DURATION_MS,
            StorageType.DURATION_US,
            StorageType.DURATION_NS,
        }
    ),
    DataType.DOUBLE: frozenset({StorageType.FLOAT16, StorageType.FLOAT32}),
    DataType.DECIMAL: frozenset(),
    DataType.STRING: frozenset({StorageType.LARGE_STRING, StorageType.UINT64}),
    DataType.DATE: frozenset({StorageType.DATE64}),
    DataType.TIMESTAMP: frozenset({StorageType.TIMESTAMP_S, StorageType.TIMESTAMP_MS, StorageType.TIMESTAMP_NS}),
}
"""Arrow types, other than the canonical one, that a column of each data type may be delivered in."""

_BOUNDS: Mapping[StorageType, tuple[float, float]] = {
    **{storage: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
       for storage, bits in ((StorageType.INT8, 8), (StorageType.INT16, 16), (StorageType.INT32, 32))},
    **{storage: (0, 2**bits - 1)
       for storage, bits in ((StorageType.UINT8, 8), (StorageType.UINT16, 16), (StorageType.UINT32, 32))},
    StorageType.UINT64: (0, INT64_MAX),
    StorageType.FLOAT16: (-_MOST_FLOAT16, _MOST_FLOAT16),
    StorageType.FLOAT32: (-_MOST_FLOAT32, _MOST_FLOAT32),
    StorageType.TIMESTAMP_NS: (-(2**63 // 1000), (2**63 - 1) // 1000),
    **dict.fromkeys(
        (StorageType.TIME32_S, StorageType.TIME32_MS, StorageType.TIME64_US, StorageType.TIME64_NS), (0, DAY - 1)
    ),
}  # fmt: skip


def storage_bounds(storage: StorageType | None) -> tuple[float, float]:
    """Return the least and the greatest native value that an Arrow type holds; see `rowmint.schema.arrays`.

    Types that hold every native value of theirs have the bounds of int64.
    """
    return (INT64_MIN, INT64_MAX) if storage is None else _BOUNDS.get(storage, (INT64_MIN, INT64_MAX))
