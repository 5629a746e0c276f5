"""Kernels: onnxruntime, NumPy and plain integers give the same activations and outputs."""

import builtins
import math
import threading
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.synthesizer.exact.kernels import NumpyKernel, OnnxKernel, choose_kernel
from rowmint.synthesizer.exact.layers import Layer
from tests.rounding import nearest_float32

KERNELS = {"numpy": choose_kernel("numpy"), "onnxruntime": choose_kernel("onnxruntime")}
HIDDEN = (0, 127)
OUTPUT = (-32768, 32767)


def _requantised(total, scale, limits):
    """The sum and the product rounded to float32, the rest rounded half to even and clipped; by fractions."""
    real = nearest_float32(nearest_float32(Fraction(total)) * Fraction(float(scale)))
    return min(max(round(real), limits[0]), limits[1])


def requantised(sums, scale, limits):
    """The same of many sums, shape (n, m): a product of two float32 is exact in float64, and rounded once."""
    real = (sums.astype(np.float32).astype(np.float64) * scale.astype(np.float64)).astype(np.float32)
    return np.clip(np.rint(real), *limits).astype(np.int64)


def exact(x, layer, limits):
    """What a layer gives, by 64-bit integers, shape (n, m)."""
    return requantised(
        x.astype(np.int64) @ layer.weight.astype(np.int64) + layer.bias.astype(np.int64), layer.scale, limits
    )


def exact_hidden(x, layers, *, concatenate):
    for layer in layers:
        made = exact(x, layer, HIDDEN)
        x = np.concatenate([made, x], axis=1) if concatenate else made
    return x


def layer_of(random, k, m):
    """A layer whose sums are spread over its range and past both its ends."""
    spread = 74 * 73 * math.sqrt(k)
    return Layer(
        random.integers(-127, 128, (k, m)).astype(np.int8),
        random.integers(-int(4 * spread), int(4 * spread) + 1, m).astype(np.int32),
        (random.uniform(0.2, 2.0, m) * 60 / spread).astype(np.float32),
    )


def inputs_of(random, n, k):
    return random.integers(0, 128, (n, k), np.uint8)


def check_hidden(x, layers, *, concatenate):
    expected = exact_hidden(x, layers, concatenate=concatenate)
    for name, kernel in KERNELS.items():
        found = kernel.hidden(layers, concatenate=concatenate)(x)
        assert (found.dtype, found.shape) == (np.uint8, expected.shape), name
        assert np.array_equal(found, expected), name


def check_output(x, layer):
    expected = exact(x, layer, OUTPUT).T
    for name, kernel in KERNELS.items():
        found = kernel.output(layer)(x)
        assert (found.dtype, found.shape) == (np.int16, expected.shape), name
        assert np.array_equal(found, expected), name


@settings(max_examples=500)
@given(st.integers(-(2**31), 2**31 - 1), st.floats(0, 2**20, width=32), st.sampled_from([HIDDEN, OUTPUT]))
def test_what_is_expected_of_many_sums_is_what_fractions_give(total, scale, limits):
    expected = _requantised(total, scale, limits)
    assert requantised(np.array([[total]]), np.array([scale], np.float32), limits).tolist() == [[expected]]


# 1,024 is where the NumPy kernel begins a second product.
@settings(max_examples=40)
@given(
    st.integers(0, 9),
    st.one_of(st.integers(1, 40), st.integers(1000, 1060)),
    st.lists(st.integers(1, 30), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_random_layers(n, k, widths, concatenate, seed):
    random = np.random.Generator(np.random.Philox(seed))
    layers, width = [], k
    for units in widths:
        layers.append(layer_of(random, width, units))
        width = units + (width if concatenate else 0)
    x = inputs_of(random, n, k)
    check_hidden(x, layers, concatenate=concatenate)
    check_output(inputs_of(random, n, width), layer_of(random, width, 17))


@pytest.mark.parametrize("k", [1, 2, 127, 1023, 1024, 1025, 2048, 5000])
@pytest.mark.parametrize(("low", "high"), [(127, 127), (-127, -127), (-127, 127), (-128, -128)])
def test_extreme_products(k, low, high):
    weight = np.full((k, 2), low, np.int8)
    weight[k // 2 :, 1] = high
    # Scales that bring such sums to the middle of each range, so that a sum off by little shows.
    layer = Layer(weight, np.array([3, -5], np.int32), np.array([1, -1], np.float32) / np.float32(k * 130))
    wide = Layer(weight, layer.bias, layer.scale * np.float32(180))
    full = np.full((3, k), 127, np.uint8)
    every_other = full * (np.arange(k) % 2).astype(np.uint8)
    for x in (full, every_other, np.zeros((2, k), np.uint8)):
        check_hidden(x, [layer], concatenate=False)
        check_output(x, wide)
    check_hidden(full, [layer], concatenate=True)


@pytest.mark.parametrize("k", [1000, 1024, 1025, 2048, 3000, 5000])
def test_a_large_sum_is_exact_to_its_last_digit(k):
    random = np.random.Generator(np.random.Philox(k))
    weight = random.integers(100, 128, (k, 40)).astype(np.int8)
    x = np.repeat(random.integers(100, 128, (1, k), np.uint8), 2, axis=0)
    sums = x[0].astype(np.int64) @ weight.astype(np.int64)
    # Biases that leave only the last digits, of products whose sum may be beyond the precision of a float32.
    layer = Layer(weight, (np.arange(40) - sums).astype(np.int32), np.ones(40, np.float32))
    for kernel in KERNELS.values():
        assert kernel.output(layer)(x).T.tolist() == [list(range(40))] * 2
        assert kernel.hidden([layer], concatenate=False)(x).tolist() == [list(range(40))] * 2


# Hidden layers are run on 512 rows at once.
@pytest.mark.parametrize("n", [511, 512, 513, 1024, 1111])
def test_many_rows_and_columns_share_their_work_otherwise_than_few(n):
    random = np.random.Generator(np.random.Philox(12))
    layers = [layer_of(random, 40, 33), layer_of(random, 73, 21)]
    x = inputs_of(random, n, 40)
    check_hidden(x, layers, concatenate=True)
    check_output(x, layer_of(random, 40, 37))


def by_bias(sums, scales):
    """A layer of one input whose sums at x = 0 are `sums`."""
    return Layer(
        np.ones((1, len(sums)), np.int8),
        np.array(sums, np.int32),
        np.broadcast_to(scales, len(sums)).astype(np.float32),
    )


NOTHING = np.zeros((2, 1), np.uint8)


def test_a_tie_goes_to_the_even_one():
    sums = list(range(-9, 300))
    check_hidden(NOTHING, [by_bias(sums, 0.5)], concatenate=False)
    check_output(NOTHING, by_bias(sums, 0.5))
    assert KERNELS["onnxruntime"].output(by_bias([-5, -3, -1, 1, 3, 5], 0.5))(NOTHING)[:, 0].tolist() == [
        -2, -2, 0, 0, 2, 2,
    ]  # fmt: skip


def test_sums_that_are_no_float32_are_rounded_before_they_are_scaled():
    # From 2**24 on neighbours of int32 are one float32; ties there go to even too.
    sums = [
        sign * (2**power + offset) for sign in (1, -1) for power in range(24, 31) for offset in range(-130, 131, 13)
    ]
    sums += [2**31 - 1, 2**31 - 64, -(2**31)]
    for scale in (1 / 2**24, 3 / 2**26, 1.1e-6, 7.3e-6):
        check_hidden(NOTHING, [by_bias(sums, scale)], concatenate=False)
        check_output(NOTHING, by_bias(sums, scale))


def test_the_product_is_rounded_to_float32_before_it_is_rounded_to_a_whole():
    random = np.random.Generator(np.random.Philox(4))
    sums = random.integers(1, 2**20, 4000)
    # Products that lie as near to a half as a float64 says, some of them exactly there as float32.
    scales = (random.integers(0, 127, 4000) + 0.5) / sums
    check_hidden(NOTHING, [by_bias(sums, scales)], concatenate=False)
    check_output(NOTHING, by_bias(sums, scales * 250))


def test_what_passes_a_range_is_at_its_end():
    sums, scales = [-1, 0, 1, 255, 256, 127, 128, 129, 32767, 32768, -32768, -32769, 2**31 - 1, -(2**31)], 1.0
    check_hidden(NOTHING, [by_bias(sums, scales)], concatenate=False)
    check_output(NOTHING, by_bias(sums, scales))
    for scale in (3e38, -3e38, 1e-45, 0.0):
        layer = by_bias([127 * 127, -127 * 127, 0], scale)
        with np.errstate(over="ignore"):  # a product may be infinite as float32
            check_hidden(NOTHING, [layer], concatenate=False)
            check_output(NOTHING, layer)


@pytest.mark.parametrize("concatenate", [False, True])
def test_no_rows_no_work_no_failure(concatenate):
    random = np.random.Generator(np.random.Philox(3))
    layers = [layer_of(random, 5, 4), layer_of(random, 9 if concatenate else 4, 3)]
    for kernel in KERNELS.values():
        found = kernel.hidden(layers, concatenate=concatenate)(np.zeros((0, 5), np.uint8))
        assert (found.dtype, found.shape) == (np.uint8, (0, 12 if concatenate else 3))
        found = kernel.output(layers[0])(np.zeros((0, 5), np.uint8))
        assert (found.dtype, found.shape) == (np.int16, (4, 0))


def test_what_is_not_contiguous():
    random = np.random.Generator(np.random.Philox(1))
    x = inputs_of(random, 64, 66)
    layer = layer_of(random, 33, 10)
    mixed = Layer(np.asfortranarray(layer.weight), layer.bias[::-1], layer.scale[::-1])
    for rows in (x[::2, :33], x[:, ::2], np.asfortranarray(x[:, 33:]), x[::-1, 32::-1]):
        check_output(rows, layer)
        check_hidden(rows, [layer], concatenate=True)
        check_output(rows, mixed)
        check_hidden(rows, [mixed], concatenate=False)


@pytest.mark.parametrize("name", KERNELS)
def test_one_layer_serves_many_threads(name):
    random = np.random.Generator(np.random.Philox(2))
    layer = layer_of(random, 300, 50)
    inputs = [inputs_of(random, 20 + index, 300) for index in range(8)]
    hidden, output = KERNELS[name].hidden([layer], concatenate=True), KERNELS[name].output(layer)
    expected = [(exact_hidden(x, [layer], concatenate=True), exact(x, layer, OUTPUT).T) for x in inputs]
    failed = []

    def work(x, activations, outputs):
        for _ in range(10):
            same = np.array_equal(hidden(x), activations) and np.array_equal(output(x), outputs)
            failed.extend([] if same else [len(x)])

    threads = [threading.Thread(target=work, args=(x, *made)) for x, made in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_several_threads_of_one_product_change_nothing():
    random = np.random.Generator(np.random.Philox(6))
    layer = layer_of(random, 90, 40)
    x = inputs_of(random, 500, 90)
    expected = exact(x, layer, OUTPUT).T
    assert np.array_equal(choose_kernel("onnxruntime", threads=3).output(layer)(x), expected)


def test_a_result_does_not_alias_the_next_nor_the_input():
    layer = by_bias([5, 6], 1.0)
    for kernel in KERNELS.values():
        for call in (kernel.output(layer), kernel.hidden([layer], concatenate=True)):
            x = np.zeros((1, 1), np.uint8)
            first = call(x)
            before = first.tolist()
            first += 5
            assert x.tolist() == [[0]]
            assert call(x).tolist() == before


def test_the_choice_of_a_kernel(monkeypatch):
    assert isinstance(choose_kernel(), OnnxKernel)
    assert isinstance(choose_kernel("onnxruntime"), OnnxKernel)
    assert isinstance(choose_kernel("numpy"), NumpyKernel)
    with pytest.raises(ValueError, match="'fast'"):
        choose_kernel("fast")
    found = builtins.__import__

    def without(name, *arguments, **more):
        if name == "onnxruntime":
            raise ImportError(name)
        return found(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert isinstance(choose_kernel(), NumpyKernel)
    assert isinstance(choose_kernel("numpy"), NumpyKernel)
    with pytest.raises(ImportError):
        choose_kernel("onnxruntime")
