"""The parts of a stored model, as a family's loader takes them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.schema import TableSchema
from rowmint.synthesizer.exact.kernels import Kernel
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import JsonObject


@dataclass(frozen=True)
class ModelParts:
    """A stored model, codecs parsed, the family's own parts as they were read.

    Attributes:
        schema: Shape of the rows, ids included.
        heads: The modelled columns by name.
        network: The manifest's ``network`` entry; empty where the family writes none.
        arrays: The weights by name.
        kernel: Runs the networks.
    """

    schema: TableSchema
    heads: dict[str, ColumnHead]
    network: JsonObject
    arrays: Mapping[str, NDArray[np.generic]]
    kernel: Kernel
