"""Reading a circuit from a model's manifest and weights; whatever does not make a circuit is refused.

`i` is a column's position among the modelled ones. The manifest's ``network`` entry has ``states``, ``components``,
``parents`` (the position of each column's parent; -1 for the root, -2 for a derived column), ``order`` (positions of
the tree's columns, root first, parents before children) and ``derived`` (position of a derived column, as text, to
that of the column it is a function of). Where there are joint columns, ``joint`` has the number of choices of each:
their positions follow those of the modelled columns, and ``parents`` and ``order`` have them, too. The arrays are
``root`` and, by column, ``bins.{i}.of``, ``bins.{i}.weights``, ``emission.{i}``; but for the root ``transition.{i}``,
``mixture.{i}``, ``pairs.{i}.starts``, ``pairs.{i}.bins``, ``pairs.{i}.weights``, ``pairs.{i}.rest``,
``backoff.{i}.group``, ``backoff.{i}.weights``; for a derived column ``derived.{i}`` alone. See
`rowmint.synthesizer.circuit.tree` for what they mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rowmint.codecs import entry
from rowmint.errors import DataLossError
from rowmint.synthesizer.circuit.tree import ONE, Bins, Circuit, DerivedColumn, Edge, TreeColumn

MAX_STATES = 256
MAX_COMPONENTS = 32
MAX_BINS = 512
MAX_CHOICES = 1 << 16
"""Choices are drawn as numbers of 16 bits."""
_ROOT, _DERIVED = -1, -2

Arrays = Mapping[str, NDArray[np.generic]]


def read_circuit(network: Mapping[str, Any], arrays: Arrays, choices: Sequence[int]) -> Circuit:
    """Return the circuit that a model's network entry and arrays describe.

    Args:
        network: The manifest's entry.
        arrays: The weights by name.
        choices: Number of choices of each modelled column.

    Raises:
        DataLossError: They do not make a circuit of these columns.
    """
    try:
        return _read(network, arrays, choices)
    except KeyError as error:
        raise DataLossError(f"the circuit lacks {error.args[0]!r}") from error
    except (ValueError, TypeError) as error:
        raise DataLossError(f"the circuit is malformed: {error}") from error


def _read(network: Mapping[str, Any], arrays: Arrays, choices: Sequence[int]) -> Circuit:
    modelled = len(choices)
    choices = [*choices, *_joint(network, modelled)]
    states = _within(entry.whole(network, "states"), 1, MAX_STATES, "states")
    components = _within(entry.whole(network, "components"), 1, MAX_COMPONENTS, "components")
    for position, count in enumerate(choices):
        _within(count, 1, MAX_CHOICES, f"choices of column {position}")
    parents, order, derived = _shape_of_tree(network, len(choices), modelled)
    root = _array(arrays, "root", np.uint32, states)
    _check_rows("root", root[None])
    bins = {position: _bins(arrays, position, choices[position]) for position in order}
    children: dict[int, list[int]] = {position: [] for position in order}
    for position in order[1:]:
        children[parents[position]].append(position)
    columns = {}
    for position in order:
        emission = _array(arrays, f"emission.{position}", np.uint32, states, bins[position].count)
        _check_rows(f"emission.{position}", emission)
        parent = parents[position]
        edge = None
        if parent != _ROOT:
            edge = _edge(arrays, position, parent, (states, components, bins[parent].count, bins[position].count))
        columns[position] = TreeColumn(position, bins[position], emission, edge, tuple(children[position]))
    return Circuit(
        states,
        components,
        root,
        columns,
        {position: _derived(arrays, position, of, choices) for position, of in derived.items()},
    )


def _joint(network: Mapping[str, Any], modelled: int) -> list[int]:
    """Return the number of choices of each joint column; `ValueError` where there are more than of modelled ones."""
    joint = _positions(network, "joint") if "joint" in network else []
    if len(joint) > modelled:
        raise ValueError(f"{len(joint)} joint columns of {modelled} columns")
    return joint


def _shape_of_tree(
    network: Mapping[str, Any], columns: int, modelled: int
) -> tuple[list[int], list[int], dict[int, int]]:
    """Return the parents, the order and the derived columns; `ValueError` where they are not a tree's.

    Args:
        network: The manifest's entry.
        columns: Number of columns, the joint ones included.
        modelled: Number of those that are no joint ones, which come first.
    """
    parents, order = _positions(network, "parents"), _positions(network, "order")
    if len(parents) != columns:
        raise ValueError(f"{len(parents)} parents for {columns} columns")
    derived: dict[int, int] = {}
    for position, parent in enumerate(parents):
        if parent == _DERIVED:
            derived[position] = entry.whole(network["derived"], str(position))
    if sorted(network["derived"]) != sorted(map(str, derived)):
        raise ValueError("the derived columns are not those without a place in the tree")
    tree = [position for position in range(columns) if position not in derived]
    if sorted(order) != tree:
        raise ValueError("its order is not that of the tree's columns, each once")
    before: set[int] = set()
    for place, position in enumerate(order):
        parent = parents[position]
        if (parent != _ROOT) if place == 0 else (parent not in before):
            raise ValueError(f"column {position} does not follow its parent, {parent}, in the order")
        before.add(position)
    for position, of in derived.items():
        if of not in before:
            raise ValueError(f"column {position} is derived from {of}, which is not in the tree")
    for position in range(modelled, columns):
        if position not in derived.values():  # of a derived one there is none either
            raise ValueError(f"no column is derived from the joint column {position}")
    return parents, order, derived


def _positions(network: Mapping[str, Any], name: str) -> list[int]:
    found = network[name]
    if not isinstance(found, list) or not all(isinstance(each, int) and not isinstance(each, bool) for each in found):
        raise ValueError(f"{name} is not a list of integers")
    return found


def _bins(arrays: Arrays, position: int, choices: int) -> Bins:
    name = f"bins.{position}"
    of_choice = _array(arrays, f"{name}.of", np.uint16, choices)
    weights = _array(arrays, f"{name}.weights", np.uint32, choices)
    count = _within(int(of_choice.max()) + 1, 1, MAX_BINS, f"bins of column {position}")
    _check_weights(f"{name}.weights", weights)
    sums = np.zeros(count, np.uint64)
    np.add.at(sums, of_choice, weights.astype(np.uint64))
    if (sums != ONE).any():
        raise ValueError(f"the weights of a bin in {name!r} do not sum to one")
    return Bins(of_choice, weights, count)


def _edge(arrays: Arrays, position: int, parent: int, sizes: tuple[int, int, int, int]) -> Edge:
    states, components, parent_bins, bins = sizes
    transition = _array(arrays, f"transition.{position}", np.uint32, states, states)
    _check_rows(f"transition.{position}", transition)
    mixture = _array(arrays, f"mixture.{position}", np.uint32, states, components + 1)
    _check_rows(f"mixture.{position}", mixture)
    group = _array(arrays, f"backoff.{position}.group", np.uint16, parent_bins)
    backoff = _array(arrays, f"backoff.{position}.weights", np.uint32, None, bins)
    _check_rows(f"backoff.{position}.weights", backoff)
    if int(group.max()) >= len(backoff):
        raise ValueError(f"a bin of column {parent} has no row in 'backoff.{position}.weights'")
    name = f"pairs.{position}"
    starts = _array(arrays, f"{name}.starts", np.uint32, parent_bins + 1)
    pair_bins = _array(arrays, f"{name}.bins", np.uint16, None)
    ends = starts.astype(np.int64)
    lengths = ends[1:] - ends[:-1]
    if starts[0] != 0 or starts[-1] != len(pair_bins) or (lengths < 0).any():
        raise ValueError(f"'{name}.starts' does not divide the pairs among the bins of column {parent}")
    if len(pair_bins) and int(pair_bins.max()) >= bins:
        raise ValueError(f"'{name}.bins' has a bin that column {position} does not have")
    place = np.repeat(np.arange(parent_bins), lengths) * bins + pair_bins
    if (np.diff(place) <= 0).any():
        raise ValueError(f"'{name}.bins' is not ascending within each bin of column {parent}")
    weights = _array(arrays, f"{name}.weights", np.uint32, components, len(pair_bins))
    rest = _array(arrays, f"{name}.rest", np.uint32, components, parent_bins)
    for part, array in (("weights", weights), ("rest", rest)):
        _check_weights(f"{name}.{part}", array)
    running = np.zeros(len(pair_bins) + 1, np.int64)
    for component in range(components):
        np.cumsum(weights[component], dtype=np.int64, out=running[1:])
        if (running[starts[1:]] - running[starts[:-1]] + rest[component] != ONE).any():
            raise ValueError(f"the weights of a row of '{name}' and its rest do not sum to one")
    return Edge(parent, transition, mixture, starts, pair_bins, weights, rest, group, backoff)


def _derived(arrays: Arrays, position: int, of: int, choices: Sequence[int]) -> DerivedColumn:
    found = _array(arrays, f"derived.{position}", np.uint16, choices[of])
    if int(found.max()) >= choices[position]:
        raise ValueError(f"'derived.{position}' has a choice that the column does not have")
    return DerivedColumn(of, found)


def _array(arrays: Arrays, name: str, dtype: DTypeLike, *shape: int | None) -> NDArray[Any]:
    """Return an array of a type and a shape, None standing for any length; `ValueError` where it has another."""
    found = arrays[name]
    fits = found.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, found.shape, strict=True)
    )
    if found.dtype != np.dtype(dtype) or not fits:
        shown = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(
            f"array {name!r} has type {found.dtype} and shape {found.shape}; it must have {np.dtype(dtype)} and"
            f" ({shown})"
        )
    return found.copy()  # a copy lies as NumPy likes it, wherever in a file it came from


def _check_rows(name: str, rows: NDArray[np.uint32]) -> None:
    _check_weights(name, rows)
    if (rows.sum(axis=1, dtype=np.uint64) != ONE).any():
        raise ValueError(f"a row of {name!r} does not sum to one")


def _check_weights(name: str, weights: NDArray[np.uint32]) -> None:
    if weights.size and int(weights.max()) > ONE:
        raise ValueError(f"a weight of {name!r} is above one")


def _within(number: int, least: int, most: int, what: str) -> int:
    if not least <= number <= most:
        raise ValueError(f"{number} {what}; {least:,} to {most:,} are possible")
    return number
