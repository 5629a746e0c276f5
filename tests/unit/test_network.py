"""The exact network and the categorical draw, against oracles in plain integers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.codecs import CategoryCodec, IdentityCodec, NumericCodec
from rowmint.errors import DataLossError
from rowmint.schema import ColumnKind, ColumnSpec, DataType
from rowmint.synthesizer import tables
from rowmint.synthesizer.heads import column_heads, draw_slots, slot_masses
from rowmint.synthesizer.kernels import choose_linear
from rowmint.synthesizer.network import ExactNetwork, Layer

LINEARS = {"numpy": choose_linear("numpy"), "onnxruntime": choose_linear("onnxruntime")}


def _layer(random, k, m, conditions=1):
    return Layer(
        random.integers(-127, 128, (k, m)).astype(np.int8),
        random.integers(-20_000, 20_000, (conditions, m)).astype(np.int32),
        random.uniform(1e-4, 2e-2, m).astype(np.float32),
    )


def _nearest_float32(value):
    """Round a Fraction to float32, ties to even, without floating point."""
    if value == 0:
        return Fraction(0)
    exponent = math.floor(math.log2(abs(value))) - 23
    while abs(value) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    while abs(value) < Fraction(2) ** (exponent + 23):
        exponent -= 1
    return round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent


def _scaled(total, scale):
    return round(_nearest_float32(_nearest_float32(Fraction(int(total))) * Fraction(float(scale))))


def _rows(layer, x, conditions, lowest, highest):
    result = []
    for row, condition in zip(x, conditions, strict=True):
        sums = [
            sum(int(a) * int(w) for a, w in zip(row, layer.weight[:, j], strict=True)) + int(layer.bias[condition, j])
            for j in range(layer.weight.shape[1])
        ]
        result.append([min(max(_scaled(s, c), lowest), highest) for s, c in zip(sums, layer.scale, strict=True)])
    return result


@pytest.mark.parametrize("linear", LINEARS.values(), ids=LINEARS)
@pytest.mark.parametrize("concatenate", [False, True])
@pytest.mark.parametrize("conditions", [1, 3])
def test_a_network_is_what_its_docstring_says(linear, concatenate, conditions):
    random = np.random.Generator(np.random.Philox(5))
    widths = [6, 5, 4]
    hidden, width = [], widths[0]
    for units in widths[1:]:
        hidden.append(_layer(random, width, units, conditions))
        width = units + (width if concatenate else 0)
    output = _layer(random, width, 7, conditions)
    network = ExactNetwork(hidden, output, concatenate=concatenate, linear=linear)
    assert (network.input_width, network.output_width, network.conditions) == (6, 7, conditions)
    x = random.integers(0, 128, (9, 6), np.uint8)
    chosen = random.integers(0, conditions, 9)
    expected = x.tolist()
    for layer in hidden:
        made = _rows(layer, expected, chosen, 0, 127)
        expected = [a + b for a, b in zip(made, expected, strict=True)] if concatenate else made
    condition = None if conditions == 1 else chosen
    activations = network.hidden(x, condition)
    assert activations.dtype == np.uint8
    assert activations.tolist() == expected
    outputs = _rows(output, expected, chosen, -(2**20), 2**20)
    spans = [slice(5, 7), slice(0, 2)]
    found = network.head(spans)(activations, condition)
    assert found.dtype == np.int32
    assert found.T.tolist() == [row[5:7] + row[0:2] for row in outputs]
    # No rows, no work, no failure.
    nothing = None if condition is None else condition[:0]
    assert network.head(spans)(network.hidden(x[:0], nothing), nothing).shape == (4, 0)


def test_outputs_saturate():
    layer = Layer(np.full((1, 2), 127, np.int8), np.zeros((1, 2), np.int32), np.array([3e38, -3e38], np.float32))
    network = ExactNetwork([], layer, concatenate=False, linear=LINEARS["numpy"])
    with np.errstate(over="ignore"):
        found = network.head([slice(0, 2)])(np.full((1, 1), 127, np.uint8), None)
    assert found.T.tolist() == [[2**20, -(2**20)]]


def test_layers_that_do_not_fit_are_refused():
    random = np.random.Generator(np.random.Philox(6))
    linear = LINEARS["numpy"]
    with pytest.raises(DataLossError, match="takes 9 inputs where 5 arrive"):
        ExactNetwork([_layer(random, 4, 5)], _layer(random, 9, 2), concatenate=False, linear=linear)
    with pytest.raises(DataLossError, match="takes 5 inputs where 9 arrive"):
        ExactNetwork([_layer(random, 4, 5)], _layer(random, 5, 2), concatenate=True, linear=linear)
    with pytest.raises(DataLossError, match="numbers of conditions"):
        ExactNetwork([_layer(random, 4, 5, 2)], _layer(random, 5, 2), concatenate=False, linear=linear)


def test_a_layer_comes_back_from_its_arrays():
    layer = _layer(np.random.Generator(np.random.Philox(7)), 3, 2, 4)
    back = Layer.from_arrays(layer.to_arrays("x"), "x")
    for name in ("weight", "bias", "scale"):
        assert np.array_equal(getattr(back, name), getattr(layer, name))


@pytest.mark.parametrize(
    "changes",
    [
        {"x.weight": np.zeros((3, 2), np.int32)},
        {"x.weight": np.zeros((3, 3), np.int8)},
        {"x.weight": np.zeros(3, np.int8)},
        {"x.bias": np.zeros((4, 2), np.int64)},
        {"x.bias": np.zeros(2, np.int32)},
        {"x.bias": np.zeros((0, 2), np.int32)},
        {"x.bias": np.zeros((4, 3), np.int32)},
        {"x.scale": np.zeros(2, np.float64)},
        {"x.scale": np.zeros(3, np.float32)},
        {"x.scale": np.array([1, np.inf], np.float32)},
        {"x.scale": None},
        {"x.bias": None},
        {"x.weight": None},
    ],
)
def test_a_layer_that_cannot_be_is_refused(changes):
    arrays = _layer(np.random.Generator(np.random.Philox(8)), 3, 2, 4).to_arrays("x")
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    with pytest.raises(DataLossError):
        Layer.from_arrays(arrays, "x")


# --- the categorical draw --------------------------------------------------------------------------------------------

LOGITS = st.one_of(st.integers(-3000, 3000), st.integers(-(2**20), 2**20), st.sampled_from([-(2**20), 0, 2**20]))


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 8), st.integers(0, 6))
def test_a_draw_is_exact(data, slots, count):
    logits = np.array(
        data.draw(st.lists(st.lists(LOGITS, min_size=count, max_size=count), min_size=slots, max_size=slots)), np.int32
    ).reshape(slots, count)
    word = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 2**32 - 1]))
    words = np.array(data.draw(st.lists(word, min_size=count, max_size=count)), np.uint64)
    exponentials = tables.exponentials().tolist()
    expected = []
    for column, drawn in zip(logits.T.tolist(), words.tolist(), strict=True):
        masses = [exponentials[min(max(column) - logit, 4095)] for logit in column]
        threshold = drawn * sum(masses) >> 32
        expected.append(next(slot for slot in range(slots) if sum(masses[: slot + 1]) > threshold))
    before = logits.copy()
    assert draw_slots(logits, words).tolist() == expected
    assert np.array_equal(logits, before)


def test_frequencies_are_those_of_softmax():
    logits = np.array([0, 256, -300, 700, -5000], np.int32)
    # One word from the middle of each of 2**16 equal parts: the distribution is enumerated, not sampled.
    words = (np.arange(2**16, dtype=np.uint64) << np.uint64(16)) + np.uint64(2**15)
    slots = draw_slots(np.repeat(logits[:, None], len(words), axis=1), words)
    shares = np.bincount(slots, minlength=5) / len(words)
    exact = np.exp((logits - 700) / 256.0)
    exact /= exact.sum()
    assert np.abs(shares - exact).max() < 2 / 2**16 + 5 / 2**19
    assert shares[-1] == 0


def test_as_many_equal_slots_as_there_may_be():
    logits = np.zeros((4098, 3), np.int32)
    words = np.array([0, 2**31, 2**32 - 1], np.uint64)
    assert draw_slots(logits, words).tolist() == [0, 2049, 4097]
    assert slot_masses(logits).max() == tables.EXP_ONE


def test_columns_stand_side_by_side_in_schema_order():
    none = np.zeros(0)
    numeric = NumericCodec(True, 0, 1, 0, True, False, 0.0, 9.0, np.ones(2), np.ones(2), none)
    points = NumericCodec(True, 0, 1, 0, True, True, 0.0, 9.0, none, none, np.ones(1))
    category = CategoryCodec(3, 3, True, none.astype(np.uint64))
    identity = IdentityCodec(True, 0, 10, "")
    columns = [ColumnSpec(name, ColumnKind.NUMERICAL, DataType.INT64) for name in "abcd"]
    heads = column_heads(columns, [identity, numeric, category, points])
    assert {name: (head.index, head.span) for name, head in heads.items()} == {
        "b": (1, slice(0, 3)),
        "c": (2, slice(3, 7)),
        "d": (3, slice(7, 9)),
    }
