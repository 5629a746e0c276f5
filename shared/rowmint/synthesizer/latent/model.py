"""Families that run a network on Gaussian noise: what CTGAN and TVAE have in common."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.errors import DataLossError
from rowmint.rng import TileKey
from rowmint.schema import TableSchema
from rowmint.schema.arrays import ColumnArray
from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.exact.network import ExactNetwork
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.latent.condition_vectors import ConditionVectors
from rowmint.synthesizer.latent.layout import ChoiceLayout
from rowmint.synthesizer.latent.random_stream import RandomStream

ROWS_AT_ONCE = 1024  # rows drawn at once: their masses stay in a core's own cache
_SINGLE_GROUPS = 256
_SEVERAL_GROUPS = 32
_MAX_CHOICES = (2**31 - 1) // tables.EXP_ONE  # the masses of so many fit in an int32


class LatentParts:
    """What candidates of one fitted model are made with. Immutable, thread-safe.

    Args:
        heads: The modelled columns by name.
        network: The generator or decoder.
        vectors: Condition vectors, or None.
        noise_scale: Standard deviation of the noise on each column's scalar, by name, units of 1 / ALPHA_ONE (TVAE);
            empty for none.
    """

    def __init__(
        self,
        heads: dict[str, ColumnHead],
        network: ExactNetwork,
        vectors: ConditionVectors | None,
        noise_scale: dict[str, int],
    ) -> None:
        self.heads = heads
        self.network = network
        self.vectors = vectors
        self.noise_scale = noise_scale

    def noise(self, key: TileKey, size: int) -> NDArray[np.uint8]:
        """Return the input codes of `size` candidates, shape (size, noise_width)."""
        width = self.network.noise_width
        return tables.input_codes(key.words16("noise", (size * width + 1) // 2))[: size * width].reshape(size, width)

    def clamped(
        self, condition: NDArray[np.intp] | None, head: ColumnHead
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return which candidates' condition vectors are on `head`, and the choice that the column is clamped to."""
        if self.vectors is None or condition is None:
            return np.zeros(0, np.intp), np.zeros(0, np.intp)
        own = np.flatnonzero((self.vectors.column == head.index)[condition])
        return own, self.vectors.choice[condition[own]]

    def noisy(self, head: ColumnHead, scalars: NDArray[np.int64], words: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Add the column's Gaussian noise to `scalars`; both shape (n,), units of 1 / ALPHA_ONE."""
        scale = np.int64(self.noise_scale[head.column.name])
        return scalars + ((scale * tables.normals().take(words)) >> np.int64(tables.NORMAL_BITS))


class LatentModel(LatentParts):
    """A fitted model: what its candidates are made with, and the groups of columns that were made ready. Thread-safe.

    Args:
        schema: Shape of the rows.
        heads: See `LatentParts`.
        network: Likewise.
        vectors: Likewise.
        noise_scale: Likewise.

    Raises:
        DataLossError: They do not fit each other.
    """

    def __init__(
        self,
        schema: TableSchema,
        heads: dict[str, ColumnHead],
        network: ExactNetwork,
        vectors: ConditionVectors | None,
        noise_scale: dict[str, int],
    ) -> None:
        width = max((head.stop for head in heads.values()), default=0)
        if network.output_width != width:
            raise DataLossError(f"the model's network has {network.output_width} outputs; its columns need {width}")
        for name, head in heads.items():
            if head.codec.choices > _MAX_CHOICES:
                raise DataLossError(
                    f"column {name!r} has {head.codec.choices} choices; a network may have {_MAX_CHOICES}"
                )
        if vectors is not None:
            vectors.validate(heads, network.conditions)
        super().__init__(heads, network, vectors, noise_scale)
        self.schema = schema
        # Not of this object: in a cycle, an evicted model would keep its memory until the collector comes by.
        self._groups = _KeptGroups(LatentParts(heads, network, vectors, noise_scale))

    @property
    def every_column(self) -> "ColumnGroup":
        """All modelled columns, made together."""
        return self.group(self.heads)

    def group(self, names: Iterable[str]) -> "ColumnGroup":
        """Return what makes these columns together, whatever their order.

        It is made by the first caller and kept: the kernel takes milliseconds to prepare it, and every call about the
        same conditions needs the same ones.
        """
        wanted = set(names)
        return self._groups.get(tuple(name for name in self.heads if name in wanted))

    @property
    def memory_bytes(self) -> int:
        """About how much memory the network takes once all groups that are kept have been made."""
        return self.network.memory_bytes(1 + min(len(self.heads), _SINGLE_GROUPS) + _SEVERAL_GROUPS, 4)


class ColumnGroup:
    """Columns of a model that are made together, by one product. Immutable, thread-safe."""

    def __init__(self, model: LatentParts, names: Sequence[str]) -> None:
        self._model = model
        self.layout = ChoiceLayout([model.heads[name] for name in names])
        self.heads = self.layout.heads
        self.outputs = model.network.head(self.layout.outputs) if names else None
        self.workspace = model.network.workspace

    def columns_of(
        self, codes: NDArray[np.uint8], condition: NDArray[np.intp] | None, stream: RandomStream
    ) -> dict[str, ColumnArray]:
        """Return the columns of rows given by their input codes, shape (n, noise_width); see `columns`."""
        drawn = _Drawn(self, len(codes), stream)
        for start in range(0, len(codes), ROWS_AT_ONCE):
            span = slice(start, start + ROWS_AT_ONCE)
            own = None if condition is None else condition[span]
            drawn.add(span, self._model.network.hidden(codes[span], own))
        return self._decode(drawn, condition, stream)

    def columns(
        self, activations: NDArray[np.uint8], condition: NDArray[np.intp] | None, stream: RandomStream
    ) -> dict[str, ColumnArray]:
        """Return the columns by name, n cells each.

        Args:
            activations: What the output layer takes, shape (n, k).
            condition: Condition vector of each row, shape (n,), or None.
            stream: RandomStream of these n rows.
        """
        drawn = _Drawn(self, len(activations), stream)
        drawn.add(slice(0, len(activations)), activations)
        return self._decode(drawn, condition, stream)

    def _decode(
        self, drawn: "_Drawn", condition: NDArray[np.intp] | None, stream: RandomStream
    ) -> dict[str, ColumnArray]:
        made: dict[str, ColumnArray] = {}
        for row, head in enumerate(self.heads):
            own, choice = self._model.clamped(condition, head)
            choices = drawn.choices[row]
            choices[own] = choice
            alpha = None
            if head.codec.scalar:
                alpha = drawn.scalars[self.layout.scalar_of[head.column.name]]
                if self._model.noise_scale:
                    alpha = self._model.noisy(head, alpha, stream.noise(head))
            made[head.column.name] = head.decode(choices, alpha, stream.rare_categories(head))
        return made


class _KeptGroups:
    """The groups of a model, each made once. Thread-safe.

    That of all columns is kept as long as the model. Of single columns, which conditions test and rows know, and of the
    others, projections and what conditions leave, the most recently used are kept. All together hold at most four times
    the output layer.
    """

    def __init__(self, model: LatentParts) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._every: ColumnGroup | None = None
        self._single = _RecentGroups(_SINGLE_GROUPS, model.network.output_width)
        self._several = _RecentGroups(_SEVERAL_GROUPS, 2 * model.network.output_width)

    def get(self, names: tuple[str, ...]) -> ColumnGroup:
        """Return the group of some columns, in the model's order."""
        with self._lock:
            if len(names) == len(self._model.heads):
                self._every = self._every or ColumnGroup(self._model, names)
                return self._every
            recent = self._single if len(names) == 1 else self._several
            return recent.get(names, lambda: ColumnGroup(self._model, names))


class _RecentGroups:
    """The groups used last.

    Args:
        count: Groups kept.
        outputs: Outputs that they make together at most.
    """

    def __init__(self, count: int, outputs: int) -> None:
        self._count = count
        self._outputs = outputs
        self._held = 0
        self._groups: OrderedDict[tuple[str, ...], ColumnGroup] = OrderedDict()

    def get(self, names: tuple[str, ...], make: Callable[[], ColumnGroup]) -> ColumnGroup:
        """Return the group of some columns, made by `make` where it is not kept."""
        found = self._groups.get(names)
        if found is None:
            found = self._groups[names] = make()
            self._held += len(found.layout.outputs)
            while self._held > self._outputs or len(self._groups) > self._count:
                _, gone = self._groups.popitem(last=False)
                self._held -= len(gone.layout.outputs)
        else:
            self._groups.move_to_end(names)
        return found


class _Drawn:
    """Choices and scalars of n rows of a group, being drawn, a few rows at a time."""

    def __init__(self, group: ColumnGroup, count: int, stream: RandomStream) -> None:
        self._group = group
        self._words = np.empty((len(group.heads), count), np.uint32)
        for row, head in enumerate(group.heads):
            self._words[row] = stream.choices(head)
        self.choices = np.empty((len(group.heads), count), np.uint16)
        self.scalars = np.empty((group.layout.scalars, count), np.int64)

    def add(self, span: slice, activations: NDArray[np.uint8]) -> None:
        """Draw the rows of `span`."""
        layout = self._group.layout
        outputs = self._group.outputs(activations) if self._group.outputs else np.zeros((0, 0), np.int16)
        self.choices[:, span] = layout.draw(outputs, self._words[:, span], self._group.workspace)
        self.scalars[:, span] = tables.tanh(outputs[: layout.scalars])
