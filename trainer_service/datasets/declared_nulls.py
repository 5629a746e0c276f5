"""Values that were declared to represent a missing cell of one column, such as -999."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from rowmint.schema import ColumnSpec


class DeclaredNulls:
    """The values, by column.

    Args:
        columns: The declared columns.
    """

    def __init__(self, columns: Iterable[ColumnSpec]) -> None:
        self._values = {column.name: column.null_values for column in columns if column.null_values}

    def applied(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches with these cells missing; in typed columns, those equal to one of the values."""
        for batch in batches:
            if not self._values or self._values.keys().isdisjoint(batch.schema.names):
                yield batch
                continue
            columns = [
                _without(array, self._values.get(name, ()))
                for name, array in zip(batch.schema.names, batch.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _without(array: pa.Array, texts: tuple[str, ...]) -> pa.Array:
    values = [value for value in (_value(text, array.type) for text in texts) if value is not None]
    if not values:
        return array
    missing = pc.is_in(array, value_set=pa.array(values, array.type))
    return pc.if_else(missing, pa.scalar(None, array.type), array)


def _value(text: str, kind: pa.DataType) -> object:
    """Return a text as a value of a type; None if it is none."""
    try:
        return pa.scalar(text).cast(kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
