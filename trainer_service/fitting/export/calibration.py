"""The batch that an export is measured on: inputs drawn as the sampler draws them."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.exact.layers import ACTIVATION_MAX
from trainer_service.fitting.keys import key, philox, random
from trainer_service.fitting.networks.draws import deviates_of


class ConditionSource(Protocol):
    """Where condition vectors come from; there are k of them."""

    @property
    def column(self) -> NDArray[np.int64]:
        """Place of each one's column among the modelled ones, shape (k,)."""
        ...

    @property
    def choice(self) -> NDArray[np.int64]:
        """The choice that each sets, shape (k,)."""
        ...

    def __len__(self) -> int:
        """Return k."""
        ...

    def draw_true(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draw condition vectors by the data's frequencies, shape (count,)."""
        ...


@dataclass(frozen=True)
class Calibration:
    """Inputs drawn as the sampler draws them.

    Attributes:
        codes: Input codes, noise and condition vector, uint8, shape (n, z + k).
        real: What they stand for, float32, shape (n, z + k).
        noise: Width of the noise, z.
        conditioned: Place, among the modelled columns, of the column that the condition vector sets, or -1; shape (n,).
        choice: The choice that it is set to, or -1; shape (n,).
    """

    codes: NDArray[np.uint8]
    real: NDArray[np.float32]
    noise: int
    conditioned: NDArray[np.int64]
    choice: NDArray[np.int64]

    @classmethod
    def draw(cls, seed: int, width: int, rows: int, conditions: ConditionSource | None = None) -> Self:
        """Draw the inputs of `rows` rows: noise of `width` codes, and condition vectors by the data's frequencies."""
        words = philox(key(seed, "calibration")).random_raw(-(-rows * width // 8)).astype("<u8")
        codes = tables.input_codes(words.view("<u2"))[: rows * width].reshape(rows, width)
        count = 0 if conditions is None else len(conditions)
        real = np.zeros((rows, width + count), np.float32)
        inputs = np.zeros(real.shape, np.uint8)
        inputs[:, :width], real[:, :width] = codes, deviates_of(codes)
        if conditions is None:
            nothing = np.full(rows, -1)
            return cls(inputs, real, width, nothing, nothing)
        drawn = conditions.draw_true(random(seed, "calibration conditions"), rows)
        place = np.arange(rows), width + drawn
        inputs[place], real[place] = ACTIVATION_MAX, 1
        return cls(inputs, real, width, conditions.column[drawn], conditions.choice[drawn])

    def first(self, rows: int) -> Self:
        """Return the first `rows` inputs."""
        return type(self)(self.codes[:rows], self.real[:rows], self.noise, self.conditioned[:rows], self.choice[:rows])
