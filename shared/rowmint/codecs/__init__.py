"""Codecs: how the cells of one column become numbers a network can make, and back.

A codec encodes a column's native values (see `rowmint.schema.arrays`) into choices, each one of a fixed number,
and, for an ordered column, a scalar in [-1, 1] beside; and decodes both back. Fitting a codec to data is the trainer's
work.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.category import CategoryCodec
from rowmint.codecs.identity import IdentityCodec
from rowmint.codecs.learned import validate_learned
from rowmint.codecs.numeric import NumericCodec, Preimage
from rowmint.errors import DataLossError, InvalidFieldError
from rowmint.schema import ColumnSpec
from rowmint.schema.forms.storage import storage_bounds

Codec = CategoryCodec | NumericCodec | IdentityCodec

__all__ = ["CategoryCodec", "Codec", "IdentityCodec", "NumericCodec", "Preimage", "load_codec"]

_KINDS: Mapping[str, type[CategoryCodec] | type[NumericCodec] | type[IdentityCodec]] = {
    "category": CategoryCodec,
    "numeric": NumericCodec,
    "identity": IdentityCodec,
}


def load_codec(column: ColumnSpec, body: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> Codec:
    """Return the codec of `column` from its manifest entry and its arrays.

    Raises:
        DataLossError: The entry or an array is missing or malformed.
    """
    try:
        validate_learned(column)
        codec = _KINDS[body["codec"]].load(column, body, arrays)
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, InvalidFieldError) as error:
        raise DataLossError(f"the model's codec of column {column.name!r} is malformed: {error}") from error
    if not isinstance(codec, IdentityCodec) and codec.nullable and not column.nullable:
        raise DataLossError(f"the model's codec of column {column.name!r} makes missing cells; the column has none")
    storage = column.written_form.storage
    if storage is not None and isinstance(codec, NumericCodec):
        least, greatest = storage_bounds(storage)
        values: NDArray[Any] = codec.natives(np.array([codec.lower, codec.upper]))
        if not (least <= values[0] and values[1] <= greatest):
            raise DataLossError(f"the model's codec of column {column.name!r} makes values beyond {storage}")
    return codec
