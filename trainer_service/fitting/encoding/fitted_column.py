"""A column of the model: its codec, and the encoder that writes its codes.

The codec goes into the model; the encoder stays here: it knows how likely each mode is, which decoding does not need.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, Codec, NumericCodec
from rowmint.schema import ColumnSpec


class ColumnEncoder(Protocol):
    """Writes the codes of a column. Immutable."""

    @property
    def codec(self) -> CategoryCodec | NumericCodec:
        """Reads them back."""
        ...

    def encode(
        self, array: pa.Array, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        """Return choice and scalar of each cell, both shape (n,); None for the scalars of a column that has none."""
        ...


@dataclass(frozen=True)
class FittedColumn:
    """A column of the model.

    Attributes:
        spec: The column, its domain as learned.
        codec: Its codec.
        encoder: Writes its codes; None for ids.
        least_rows: Rows that a value must have to stand alone, where an override says so; else None.
    """

    spec: ColumnSpec
    codec: Codec
    encoder: ColumnEncoder | None
    least_rows: int | None = None
