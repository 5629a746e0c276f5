"""Completing rows of which some cells are known, from a latent model.

Given the noise, the columns of a latent model are independent, so the likelihood of the known cells under each of n
candidates is a product, w_i = prod_j l_ij, and drawing candidate i with probability w_i / sum(w) and the unknown
columns from it is importance resampling from the model's conditional distribution: what rejection would give, at a cost
that does not grow as the known cells become rare. `rowmint.synthesizer.latent.evidence` says what l_ij is; a known cell
is then set.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.rng import TileKey
from rowmint.schema import Cell
from rowmint.schema.arrays import column_cells
from rowmint.steps import Steps
from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import CompletedCells, CompletionOptions, CompletionSupport, RowKeys
from rowmint.synthesizer.known_facts import KnownChoice, KnownFact, known_fact
from rowmint.synthesizer.latent.evidence import ColumnEvidence
from rowmint.synthesizer.latent.model import ROWS_AT_ONCE, LatentModel

_WIDENINGS = 8
_WEIGHT_BYTES = 128  # sixteen float64 of a candidate are more than is held while weights are computed

Known = tuple[ColumnEvidence, KnownFact]
"""A known cell, and what the candidates say of its column."""


@dataclass(frozen=True)
class CandidateWeights:
    """How much each candidate counts for a row.

    Attributes:
        values: Weights, the greatest 1, shape (n,).
        tolerance: Kernel width used, standard deviations.
        support: Whether candidates agree with the known cells.
    """

    values: NDArray[np.float64]
    tolerance: float
    support: CompletionSupport

    @property
    def effective_sample_size(self) -> float:
        """Kish's effective number of candidates; 0 where none agrees with the known cells."""
        if self.support is CompletionSupport.UNSUPPORTED:
            return 0.0
        # Sums by `cumsum` are made in one order on every processor.
        total = np.cumsum(self.values)[-1]
        return float(total * total / np.cumsum(self.values * self.values)[-1])

    def drawn(self, word: int) -> int:
        """Return the candidate that a 64-bit word draws."""
        running = np.cumsum(self.values)
        share = (word >> 11) / 2.0**53 * running[-1]
        return min(int(np.searchsorted(running, share, side="right")), len(running) - 1)


class LatentCompleter:
    """n candidates that partial rows are compared with. Thread-safe.

    The columns that some row knows are made for all candidates, once; the others for a chosen candidate alone.
    """

    def __init__(self, model: LatentModel, key: TileKey, options: CompletionOptions) -> None:
        self._model = model
        self._options = options
        self._tolerance = options.tolerance
        self._count = options.candidates
        codes = model.noise(key, self._count)
        self._condition = None if model.vectors is None else model.vectors.draw(key, self._count)
        self._activations = np.empty((self._count, model.network.output_inputs), np.uint8)
        for span in self._spans():
            own = None if self._condition is None else self._condition[span]
            self._activations[span] = model.network.hidden(codes[span], own)
        self._evidence: dict[str, ColumnEvidence] = {}

    def complete(self, rows: Sequence[Mapping[str, Cell]], keys: RowKeys) -> Steps[Sequence[CompletedCells]]:
        """Complete rows, one after the other; see `Completer`."""
        return self._options.until_stopped(self._completed(known, keys.of(place)) for place, known in enumerate(rows))

    def _completed(self, known: Mapping[str, Cell], key: TileKey) -> CompletedCells:
        self._options.check_stopped()
        weights = self.weights(known)
        chosen = weights.drawn(int(key.words("candidate", 1)[0]))
        cells = self._drawn(chosen, [head for name, head in self._model.heads.items() if name not in known], key)
        cells |= {name: cell for name, cell in known.items() if name in self._model.heads}
        return CompletedCells(cells, weights.effective_sample_size, weights.tolerance, weights.support, chosen)

    def weights(self, known: Mapping[str, Cell]) -> CandidateWeights:
        """Return the candidates' weights for a row.

        At the requested tolerance first. Where no candidate has any weight, choices whose mass is rounded to 0 get the
        probability that their logits say, and the kernel is doubled until one has, `_WIDENINGS` times at most. Then
        those count that come nearest, in the columns that some candidate can have so, earlier columns first.
        """
        heads = self._model.heads
        facts = [
            (self._evidence_of(heads[name]), known_fact(heads[name], cell))
            for name, cell in known.items()
            if name in heads
        ]
        # Choices first: they are cheap, and numbers are compared with the candidates that are left.
        choices = [one for one in facts if isinstance(one[1], KnownChoice)]
        numbers = [one for one in facts if not isinstance(one[1], KnownChoice)]
        moved = any(fact.moved for _, fact in facts)
        for beyond in (False, True):
            tolerance = self._tolerance
            agreeing = self._product(np.ones(self._count), choices, tolerance, beyond=beyond)
            for _ in range(_WIDENINGS + 1 if beyond and numbers else 1):
                values = self._product(agreeing, numbers, tolerance, beyond=beyond)
                if values.any():
                    matched = not beyond and not moved
                    support = CompletionSupport.MATCHED if matched else CompletionSupport.WIDENED
                    return CandidateWeights(values, tolerance, support)
                tolerance *= 2
        widest = self._tolerance * 2**_WIDENINGS
        return CandidateWeights(self._nearest(facts, widest), widest, CompletionSupport.UNSUPPORTED)

    def _product(
        self, weights: NDArray[np.float64], facts: Sequence[Known], tolerance: float, *, beyond: bool
    ) -> NDArray[np.float64]:
        """Return the weights, multiplied by the likelihoods of some cells and rescaled; shape (n,)."""
        weights = weights.copy()
        for evidence, fact in facts:
            self._options.check_stopped()
            left = np.flatnonzero(weights)
            weights[left] *= evidence.likelihood(fact, tolerance, left, beyond=beyond)
            top = weights.max(initial=0.0)
            if top > 0:
                weights /= top  # a product of many small factors would underflow
        return weights

    def _nearest(self, facts: Sequence[Known], tolerance: float) -> NDArray[np.float64]:
        """Return weights by how near the candidates come, where none agrees; shape (n,)."""
        far = np.zeros(self._count)
        for evidence, fact in facts:
            farther = far + evidence.remoteness(fact, tolerance)
            if np.isfinite(farther).any():
                far = farther
        behind = np.minimum(np.rint((far - far.min()) * tables.LOGIT_UNIT), tables.UNREACHABLE)
        values: NDArray[np.float64] = tables.deep_exponentials().take(behind.astype(np.intp))
        return values

    def _evidence_of(self, head: ColumnHead) -> ColumnEvidence:
        name = head.column.name
        if name not in self._evidence:  # two threads may both make it: they make the same
            self._evidence[name] = self._made(head)
        return self._evidence[name]

    def _made(self, head: ColumnHead) -> ColumnEvidence:
        """Return what all candidates say of a column."""
        group = self._model.group([head.column.name])
        if group.outputs is None:
            raise TypeError("a column has no outputs")
        differences = np.empty((head.codec.choices, self._count), np.int16)
        distances = differences.view(np.uint16)
        totals = np.empty(self._count, np.int32)
        alpha = np.empty(self._count) if head.codec.scalar else None
        for span in self._spans():
            outputs = group.outputs(self._activations[span])
            if alpha is not None:
                alpha[span] = tables.tanh(outputs[0]) / ALPHA_ONE
            logits = outputs[group.layout.scalars :]
            # A difference of two int16 may wrap; as uint16 it is right.
            np.subtract(logits.max(axis=0), logits, out=differences[:, span])
            np.minimum(distances[:, span], tables.UNREACHABLE - 1, out=distances[:, span])
            masses = np.empty(logits.shape, np.int32)
            tables.falling_exponentials(distances[:, span], masses)
            totals[span] = masses.sum(axis=0, dtype=np.int32)
        own, choice = self._model.clamped(self._condition, head)
        distances[:, own] = tables.UNREACHABLE
        distances[choice, own] = 0
        totals[own] = tables.EXP_ONE
        noise = self._model.noise_scale.get(head.column.name, 0) / ALPHA_ONE
        return ColumnEvidence(head.codec, distances, totals, alpha, noise)

    def _spans(self) -> Iterator[slice]:
        """Yield the candidates in pieces that fit a core's own cache.

        Raises:
            CancelledError: The caller waits no longer.
        """
        for start in range(0, self._count, ROWS_AT_ONCE):
            self._options.check_stopped()
            yield slice(start, min(start + ROWS_AT_ONCE, self._count))

    def _drawn(self, chosen: int, heads: Sequence[ColumnHead], key: TileKey) -> dict[str, Cell]:
        """Return cells of some columns, drawn from one candidate."""
        group = self._model.every_column
        if group.outputs is None:
            return {}
        outputs = group.outputs(self._activations[chosen : chosen + 1])
        made = group.layout.column_masses(outputs, group.workspace)
        scalars = tables.tanh(outputs[: group.layout.scalars]).astype(np.int64)
        condition = None if self._condition is None else self._condition[chosen : chosen + 1]
        cells: dict[str, Cell] = {}
        for head in heads:
            name = head.column.name
            masses, _ = made[name]
            own, choice = self._model.clamped(condition, head)
            masses[:, own] = 0
            masses[choice, own] = tables.EXP_ONE
            running = np.cumsum(masses[:, 0])
            threshold = int(head.choice_words(key, 1)[0]) * int(running[-1]) >> 32
            alpha = None
            if head.codec.scalar:
                alpha = scalars[group.layout.scalar_of[name]]
                if self._model.noise_scale:
                    alpha = self._model.noisy(head, alpha, key.words16(f"alpha:{head.index}", 1))
            choices = np.searchsorted(running, [threshold], side="right")
            (cells[name],) = column_cells(head.decode(choices, alpha, head.rare_category_words(key, 1)), head.column)
        return cells


def completion_bytes(model: LatentModel, known: Collection[str], candidates: int) -> int:
    """Return the most bytes that a completer takes for rows that know these columns."""
    network = model.network
    # Input codes and the words they are made of, what the output layer takes, condition vectors; weights and the arrays
    # that they are multiplied from.
    each: int = 2 * network.noise_width + network.output_inputs + 8 + _WEIGHT_BYTES
    for name in known:
        if name in model.heads:
            codec = model.heads[name].codec
            each += 2 * codec.choices + 4 + 8 * codec.scalar
    return candidates * each
