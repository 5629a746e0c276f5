"""Drawing rows of a latent model that satisfy conditions, by rejection."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.conditions import ColumnCondition
from rowmint.rng import TileKey
from rowmint.schema.arrays import ColumnArray
from rowmint.synthesizer.interface import TILE_SIZE, Candidates, JsonObject, Units
from rowmint.synthesizer.latent.model import LatentModel
from rowmint.synthesizer.latent.random_stream import RandomStream


class LatentProposal:
    """Draws some columns of the candidates of a `LatentModel` that satisfy some conditions.

    The tested columns are made first, one after the other, each for the candidates that passed the tests before.

    NOTE: a candidate whose own condition vector sets a choice that the conditions exclude could never be accepted, as
    its column is clamped to it: it is dropped before any product is computed.
    """

    tile_size = TILE_SIZE

    def __init__(self, model: LatentModel, tests: Sequence[ColumnCondition], columns: Sequence[str]) -> None:
        self._model = model
        self._conditions = tuple(tests)
        self._columns = tuple(columns)
        tested = {test.column for test in tests}
        self._tests = [(test, model.group([test.column])) for test in tests]
        self._rest = model.group(name for name in columns if name not in tested)
        self.plan_inputs: JsonObject = {}
        self.acceptance = self.probability = None if tests else 1.0
        self._possible: NDArray[np.bool_] | None = None
        if model.vectors is not None and tests:
            self._possible = np.ones(len(model.vectors.choice), np.bool_)
            for test in tests:
                head = model.heads[test.column]
                own = model.vectors.column == head.index
                self._possible[own] &= head.reachable(test)[model.vectors.choice[own]]

    @property
    def size_bytes(self) -> int:
        """Bytes of what it keeps beside the model."""
        return 0 if self._possible is None else self._possible.nbytes

    def requesting(self, columns: Sequence[str]) -> "LatentProposal":
        """Return what makes these columns under the same conditions."""
        return LatentProposal(self._model, self._conditions, columns)

    def candidates(self, key: TileKey, size: int) -> Candidates:
        """Draw `size` candidates and keep those that satisfy the conditions."""
        model = self._model
        codes = model.noise(key, size)
        condition = None if model.vectors is None else model.vectors.draw(key, size)
        if not self._tests:
            return _found(codes, condition, {})
        index = np.arange(size)
        if condition is not None and self._possible is not None:
            index = np.flatnonzero(self._possible[condition])
            codes, condition = codes[index], condition[index]
        return self._passing(codes, condition, RandomStream(key, size, index))

    def _passing(
        self, codes: NDArray[np.uint8], condition: NDArray[np.intp] | None, stream: RandomStream
    ) -> Candidates:
        """Return those of some candidates that satisfy the conditions."""
        activations = self._model.network.hidden(codes, condition)
        cells: dict[str, ColumnArray] = {}
        for test, group in self._tests:
            (made,) = group.columns(activations, condition, stream).values()
            passed = np.flatnonzero(test.satisfied(made))
            cells = {name: array.take(passed) for name, array in {**cells, test.column: made}.items()}
            codes, activations, stream = codes[passed], activations[passed], stream.at(passed)
            condition = None if condition is None else condition[passed]
        return _found(codes, condition, cells)

    def finish(self, found: Candidates, key: TileKey) -> Units:
        """Make the requested columns of candidates."""
        made = dict(found.cells)
        if self._rest.heads:
            codes: NDArray[np.uint8] = found.latents["codes"].view(np.uint8)
            condition = found.latents.get("condition")
            own = None if condition is None else condition.astype(np.intp)
            made |= self._rest.columns_of(codes, own, RandomStream(key, found.size, None))
        return Units({name: made[name] for name in self._columns})


def _found(codes: NDArray[np.uint8], condition: NDArray[np.intp] | None, cells: dict[str, ColumnArray]) -> Candidates:
    latents: dict[str, NDArray[np.generic]] = {"codes": codes}
    if condition is not None:
        latents["condition"] = condition.astype(np.int32)
    return Candidates(len(codes), latents, cells)
