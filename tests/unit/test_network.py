"""The exact network, and the draw of choices from its outputs, against oracles in plain integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.codecs import CategoryCodec, IdentityCodec, NumericCodec
from rowmint.errors import DataLossError
from rowmint.schema import ColumnKind, ColumnSpec, DataType
from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.exact.kernels import choose_kernel
from rowmint.synthesizer.exact.layers import Layer
from rowmint.synthesizer.exact.network import ExactNetwork, load_network
from rowmint.synthesizer.exact.workspace import Workspace
from rowmint.synthesizer.heads import ColumnHead, column_heads
from rowmint.synthesizer.latent.layout import ChoiceLayout
from tests.rounding import nearest_float32

KERNELS = {"numpy": choose_kernel("numpy"), "onnxruntime": choose_kernel("onnxruntime")}


def _layer(random, k, m):
    return Layer(
        random.integers(-127, 128, (k, m)).astype(np.int8),
        random.integers(-20_000, 20_000, m).astype(np.int32),
        random.uniform(1e-4, 2e-2, m).astype(np.float32),
    )


def _scaled(total, scale):
    return round(nearest_float32(nearest_float32(Fraction(int(total))) * Fraction(float(scale))))


def _rows(layer, x, lowest, highest):
    result = []
    for row in x:
        sums = [
            sum(int(a) * int(w) for a, w in zip(row, layer.weight[:, j], strict=True)) + int(layer.bias[j])
            for j in range(layer.weight.shape[1])
        ]
        result.append([min(max(_scaled(s, c), lowest), highest) for s, c in zip(sums, layer.scale, strict=True)])
    return result


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("concatenate", [False, True])
@pytest.mark.parametrize("conditions", [0, 1, 3])
def test_a_network_is_what_its_docstring_says(kernel, concatenate, conditions):
    random = np.random.Generator(np.random.Philox(5))
    hidden, width = [], 6 + conditions
    for units in (5, 4):
        hidden.append(_layer(random, width, units))
        width = units + (width if concatenate else 0)
    output = _layer(random, width, 7)
    network = ExactNetwork(hidden, output, concatenate=concatenate, conditions=conditions, kernel=kernel)
    assert (network.noise_width, network.output_width, network.conditions) == (6, 7, conditions)
    codes = random.integers(0, 128, (9, 6), np.uint8)
    chosen = random.integers(0, conditions, 9) if conditions else None
    expected = codes.tolist()
    if chosen is not None:
        one_hot = [[127 * (place == one) for place in range(conditions)] for one in chosen.tolist()]
        expected = [row + more for row, more in zip(expected, one_hot, strict=True)]
    for layer in hidden:
        made = _rows(layer, expected, 0, 127)
        expected = [a + b for a, b in zip(made, expected, strict=True)] if concatenate else made
    before = codes.copy()
    activations = network.hidden(codes, chosen)
    assert activations.dtype == np.uint8
    assert activations.tolist() == expected
    assert np.array_equal(codes, before)
    outputs = _rows(output, expected, -32768, 32767)
    places = [5, 6, 0, 1, 3]
    found = network.head(np.array(places))(activations)
    assert found.dtype == np.int16
    assert found.T.tolist() == [[row[place] for place in places] for row in outputs]
    # No rows, no work, no failure.
    nothing = network.hidden(codes[:0], None if chosen is None else chosen[:0])
    assert network.head(np.array(places))(nothing).shape == (5, 0)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("concatenate", [False, True])
def test_what_was_made_outlives_the_next_call(kernel, concatenate):
    random = np.random.Generator(np.random.Philox(13))
    hidden, output = [_layer(random, 9, 5)], _layer(random, 14 if concatenate else 5, 4)
    network = ExactNetwork(hidden, output, concatenate=concatenate, conditions=3, kernel=kernel)
    head = network.head(np.arange(4))
    codes = random.integers(0, 128, (2, 20, 6), np.uint8)
    chosen = random.integers(0, 3, (2, 20))
    first = network.hidden(codes[0], chosen[0])
    outputs = head(first)
    before = first.tolist(), outputs.tolist()
    head(network.hidden(codes[1], chosen[1]))
    assert (first.tolist(), outputs.tolist()) == before


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_outputs_saturate(kernel):
    layer = Layer(np.full((1, 2), 127, np.int8), np.zeros(2, np.int32), np.array([3e38, -3e38], np.float32))
    network = ExactNetwork([], layer, concatenate=False, conditions=0, kernel=kernel)
    codes = np.full((1, 1), 127, np.uint8)
    with np.errstate(over="ignore"):
        found = network.head(np.arange(2))(network.hidden(codes, None))
    assert found.T.tolist() == [[32767, -32768]]


def test_layers_that_do_not_fit_are_refused():
    random = np.random.Generator(np.random.Philox(6))

    def network(hidden, output, *, concatenate=False, conditions=0):
        return ExactNetwork(
            hidden, output, concatenate=concatenate, conditions=conditions, kernel=KERNELS["numpy"]
        )  # fmt: skip

    with pytest.raises(DataLossError, match="takes 9 inputs where 5 arrive"):
        network([_layer(random, 4, 5)], _layer(random, 9, 2))
    with pytest.raises(DataLossError, match="takes 5 inputs where 9 arrive"):
        network([_layer(random, 4, 5)], _layer(random, 5, 2), concatenate=True)
    with pytest.raises(DataLossError, match="takes 4 inputs, too few for 4 condition vectors"):
        network([_layer(random, 4, 5)], _layer(random, 5, 2), conditions=4)
    with pytest.raises(DataLossError, match="too few for 3 condition vectors"):
        network([], _layer(random, 2, 2), conditions=3)
    assert network([_layer(random, 4, 5)], _layer(random, 5, 2), conditions=3).noise_width == 1


@pytest.mark.parametrize("count", [0, 9, None, "1", 1.0])
def test_a_number_of_layers_that_cannot_be_is_refused(count):
    with pytest.raises(DataLossError, match="hidden layers"):
        load_network({"hidden_layers": count}, {}, concatenate=False, conditions=0, kernel=KERNELS["numpy"])


def test_a_network_is_restored_from_its_arrays():
    random = np.random.Generator(np.random.Philox(9))
    layers = {"layer.0": _layer(random, 6, 5), "layer.1": _layer(random, 11, 4), "output": _layer(random, 15, 3)}
    arrays = {key: array for name, layer in layers.items() for key, array in layer.to_arrays(name).items()}
    body = {"hidden_layers": 2}
    network = load_network(body, arrays, concatenate=True, conditions=2, kernel=KERNELS["numpy"])
    assert (network.noise_width, network.conditions, network.output_width) == (4, 2, 3)
    with pytest.raises(DataLossError, match=r"layer\.2\.weight"):
        load_network({"hidden_layers": 3}, arrays, concatenate=True, conditions=2, kernel=KERNELS["numpy"])


def test_a_selection_is_in_the_requested_order():
    layer = _layer(np.random.Generator(np.random.Philox(10)), 3, 4)
    chosen = layer.select(np.array([2, 0, 2]))
    assert chosen.weight.tolist() == [[row[2], row[0], row[2]] for row in layer.weight.tolist()]
    assert chosen.bias.tolist() == [layer.bias[2], layer.bias[0], layer.bias[2]]
    assert chosen.scale.tolist() == [layer.scale[2], layer.scale[0], layer.scale[2]]


def test_a_layer_is_restored_from_its_arrays():
    layer = _layer(np.random.Generator(np.random.Philox(7)), 3, 2)
    back = Layer.from_arrays(layer.to_arrays("x"), "x")
    for name in ("weight", "bias", "scale"):
        assert np.array_equal(getattr(back, name), getattr(layer, name))


@pytest.mark.parametrize(
    "changes",
    [
        {"x.weight": np.zeros((3, 2), np.int32)},
        {"x.weight": np.zeros((3, 3), np.int8)},
        {"x.weight": np.zeros(3, np.int8)},
        {"x.bias": np.zeros(2, np.int64)},
        {"x.bias": np.zeros(3, np.int32)},
        {"x.bias": np.zeros(0, np.int32)},
        {"x.bias": np.zeros((1, 2), np.int32)},
        {"x.bias": np.int32(0)},
        {"x.scale": np.zeros(2, np.float64)},
        {"x.scale": np.zeros(3, np.float32)},
        {"x.scale": np.array([1, np.inf], np.float32)},
        {"x.scale": np.array([np.nan, 1], np.float32)},
        {"x.scale": None},
        {"x.bias": None},
        {"x.weight": None},
    ],
)
def test_a_layer_that_cannot_be_is_refused(changes):
    arrays = _layer(np.random.Generator(np.random.Philox(8)), 3, 2).to_arrays("x")
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    with pytest.raises(DataLossError):
        Layer.from_arrays(arrays, "x")


# --- the draw of choices ---------------------------------------------------------------------------------------------

NONE = np.zeros(0)
WORKSPACE = Workspace()
LOGITS = st.one_of(st.integers(-3000, 3000), st.integers(-32768, 32767), st.sampled_from([-32768, 0, 32767]))
WORDS = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 2**32 - 1]))


def _category(choices):
    return CategoryCodec(choices, choices, False, NONE.astype(np.uint64))


def _numeric(modes, points=0, *, nullable=False):
    return NumericCodec(True, 0, 1, 0, True, nullable, 0.0, 9.0, np.ones(modes), np.ones(modes), np.ones(points))


def _heads(codecs):
    columns = [ColumnSpec(f"c{index}", ColumnKind.NUMERICAL, DataType.INT64) for index in range(len(codecs))]
    return list(column_heads(columns, codecs).values())


def _choice_masses(logits):
    """The integer masses of one cell's choices, by the definition."""
    exponentials = tables.exponentials().tolist()
    return [exponentials[min(max(logits) - logit, 4095)] for logit in logits]


def _drawn(masses, word):
    """The first choice at which the running sum of masses passes the word's share of their sum."""
    threshold = word * sum(masses) >> 32
    return next(choice for choice in range(len(masses)) if sum(masses[: choice + 1]) > threshold)


def _logits(head: ColumnHead, every):
    """The logits of a head in one row of a network's outputs."""
    return every[head.start + head.codec.scalar : head.stop]


def _check_draw(heads, every, words):
    """Compare a layout of `heads` with one column after the other.

    Args:
        heads: The columns.
        every: The network's outputs in its own order, int16, shape (m, n).
        words: By column name, n words.
    """
    layout = ChoiceLayout(heads)
    outputs = np.ascontiguousarray(every[layout.outputs])
    before = outputs.copy()
    drawn = np.array([words[head.column.name] for head in layout.heads], np.uint32).reshape(len(heads), every.shape[1])
    masses = {head.column.name: [_choice_masses(_logits(head, row)) for row in every.T.tolist()] for head in heads}
    expected = {
        name: [_drawn(row, word) for row, word in zip(masses[name], words[name], strict=True)] for name in words
    }
    choices = layout.draw(outputs, drawn, WORKSPACE)
    assert {head.column.name: row.tolist() for head, row in zip(layout.heads, choices, strict=True)} == expected
    made = layout.column_masses(outputs, WORKSPACE)
    assert {name: found.T.tolist() for name, (found, _) in made.items()} == masses
    assert {name: total.tolist() for name, (_, total) in made.items()} == {
        name: [sum(row) for row in rows] for name, rows in masses.items()
    }
    whole, totals = layout.masses(outputs, WORKSPACE)
    assert (whole.dtype, whole.shape) == (np.int32, (len(layout.outputs) - layout.scalars, every.shape[1]))
    assert totals.tolist() == [made[head.column.name][1].tolist() for head in layout.heads]
    assert whole.sum(axis=0, dtype=np.int64).tolist() == totals.sum(axis=0, dtype=np.int64).tolist()
    assert np.array_equal(outputs, before)


CODECS = st.one_of(
    st.integers(1, 9).map(_category),
    st.tuples(st.integers(0, 4), st.integers(1, 3), st.booleans()).map(lambda it: _numeric(*it[:2], nullable=it[2])),
)


@settings(max_examples=150)
@given(st.data(), st.lists(CODECS, min_size=1, max_size=6), st.integers(0, 5))
def test_a_draw_over_columns_is_a_draw_for_each(data, codecs, count):
    heads = _heads(codecs)
    size = heads[-1].stop * count
    every = np.array(data.draw(st.lists(LOGITS, min_size=size, max_size=size)), np.int16)
    every = every.reshape(heads[-1].stop, count)
    words = {
        head.column.name: data.draw(st.lists(WORDS, min_size=count, max_size=count))
        for head in data.draw(st.permutations(heads))
    }
    _check_draw(heads, every, words)


@pytest.mark.parametrize("largest", [255, 256, 257, 300])
def test_slots_pass_a_byte(largest):
    random = np.random.Generator(np.random.Philox(largest))
    heads = _heads([_category(largest), _numeric(2), _category(largest - 1), _category(1)])
    every = random.integers(-300, 300, (heads[-1].stop, 40)).astype(np.int16)
    words = {head.column.name: random.integers(0, 2**32, 40).tolist() for head in heads}
    words["c0"][:2] = words["c2"][:2] = [0, 2**32 - 1]
    _check_draw(heads, every, words)


def test_as_many_equal_slots_as_there_may_be():
    # 4,096 categories, one choice for the others, one for missing: the sum of their masses is below 2**31.
    heads = _heads([_category(2), CategoryCodec(5000, 4096, True, np.ones(904, np.uint64)), _category(4098)])
    assert [head.codec.choices for head in heads] == [2, 4098, 4098]
    words = [0, 2**31, 2**32 - 1]
    layout = ChoiceLayout(heads)
    outputs = np.zeros((len(layout.outputs), 3), np.int16)
    choices = layout.draw(outputs, np.array([words] * 3, np.uint32), WORKSPACE)
    assert choices.tolist() == [[0, 2049, 4097], [0, 2049, 4097], [0, 1, 1]]
    masses, totals = layout.masses(outputs, WORKSPACE)
    assert set(masses.ravel().tolist()) == {tables.EXP_ONE}
    assert totals[:, 0].tolist() == [4098 * tables.EXP_ONE, 4098 * tables.EXP_ONE, 2 * tables.EXP_ONE]
    assert 4098 * tables.EXP_ONE < 2**31


def test_logits_as_far_apart_as_int16_allows():
    heads = _heads([_category(3), _category(2), _category(3)])
    every = np.array([[-32768, 32767, -32768], [32767, -32768], [32767, -32768, 32767]], object)
    every = np.array([[logit] * 2 for logits in every for logit in logits], np.int16)
    _check_draw(heads, every, {"c0": [0, 2**32 - 1], "c1": [0, 2**32 - 1], "c2": [0, 2**32 - 1]})
    layout = ChoiceLayout(heads)
    choices = layout.draw(every[layout.outputs], np.array([[0, 2**32 - 1]] * 3, np.uint32), WORKSPACE)
    assert {head.column.name: row.tolist() for head, row in zip(layout.heads, choices, strict=True)} == {
        "c0": [1, 1],
        "c1": [0, 0],
        "c2": [0, 2],
    }


def test_frequencies_are_those_of_softmax():
    logits = np.array([0, 256, -300, 700, -5000], np.int16)
    layout = ChoiceLayout(_heads([_category(5)]))
    # One word from the middle of each of 2**16 equal parts: the distribution is enumerated, not sampled.
    words = (np.arange(2**16, dtype=np.uint32) << np.uint32(16)) + np.uint32(2**15)
    (choices,) = layout.draw(np.repeat(logits[:, None], len(words), axis=1), words[None], WORKSPACE)
    shares = np.bincount(choices, minlength=5) / len(words)
    exact = np.exp((logits.astype(float) - 700) / 256.0)
    exact /= exact.sum()
    assert np.abs(shares - exact).max() < 2 / 2**16 + 5 / 2**19
    assert shares[-1] == 0


def test_masses_of_columns_outlive_the_next_draw():
    layout = ChoiceLayout(_heads([_category(3), _category(2)]))
    random = np.random.Generator(np.random.Philox(14))
    one, other = random.integers(-900, 900, (2, 5, 6)).astype(np.int16)
    workspace = Workspace()
    made = layout.column_masses(one, workspace)
    before = {name: (masses.tolist(), total.tolist()) for name, (masses, total) in made.items()}
    layout.draw(other, np.zeros((2, 6), np.uint32), workspace)
    assert {name: (masses.tolist(), total.tolist()) for name, (masses, total) in made.items()} == before


def test_scalars_come_first_then_the_first_slot_of_every_column():
    heads = _heads([_category(1), _numeric(2, 1), _category(2), _numeric(1), _numeric(0, 2)])
    layout = ChoiceLayout(heads)
    # Columns by falling number of choices, as they stand where that is equal.
    assert [head.column.name for head in layout.heads] == ["c1", "c2", "c4", "c0", "c3"]
    assert (layout.scalars, layout.scalar_of) == (2, {"c1": 0, "c3": 1})
    starts = {head.column.name: head.start for head in heads}
    assert starts == {"c0": 0, "c1": 1, "c2": 5, "c3": 7, "c4": 9}
    assert layout.outputs.tolist() == [1, 7, *(2, 5, 9, 0, 8), *(3, 6, 10), *(4,)]


def test_no_columns_need_no_outputs():
    layout = ChoiceLayout([])
    assert (layout.heads, layout.outputs.tolist(), layout.scalars, layout.scalar_of) == ((), [], 0, {})


def test_columns_stand_side_by_side_in_schema_order():
    codecs = [IdentityCodec(True, 0, 10, ""), _numeric(2), CategoryCodec(3, 3, True, NONE.astype(np.uint64))]
    codecs.append(_numeric(0, 1, nullable=True))
    columns = [ColumnSpec(name, ColumnKind.NUMERICAL, DataType.INT64) for name in "abcd"]
    heads = column_heads(columns, codecs)
    assert {name: (head.index, head.start, head.stop) for name, head in heads.items()} == {
        "b": (1, 0, 3),
        "c": (2, 3, 7),
        "d": (3, 7, 9),
    }
