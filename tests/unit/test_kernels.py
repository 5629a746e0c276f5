"""Kernels: onnxruntime, NumPy and 64-bit integers give the same products."""

import builtins
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.synthesizer.kernels import NumpyLinear, OnnxLinear, choose_linear

FACTORIES = {"numpy": choose_linear("numpy"), "onnxruntime": choose_linear("onnxruntime")}


def _exact(x, weight):
    return x.astype(np.int64) @ weight.astype(np.int64)


def _check(x, weight):
    expected = _exact(x, weight)
    for name, factory in FACTORIES.items():
        product = factory(weight)(x)
        assert (product.dtype, product.shape) == (np.int32, expected.shape), name
        assert np.array_equal(product, expected), name
        assert product.flags.writeable, name


@pytest.mark.parametrize("k", [1, 2, 127, 1023, 1024, 1025, 2048, 5000])
@pytest.mark.parametrize(("low", "high"), [(127, 127), (-127, -127), (-127, 127), (-128, -128)])
def test_extreme_products(k, low, high):
    x = np.full((3, k), 127, np.uint8)
    weight = np.full((k, 2), low, np.int8)
    weight[k // 2 :, 1] = high
    _check(x, weight)
    _check(np.tile(np.array([[127, 0]], np.uint8), (2, k)), np.repeat(weight, 2, axis=0))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9), st.integers(1, 1500), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_random_products(n, k, m, seed):
    random = np.random.Generator(np.random.Philox(seed))
    _check(random.integers(0, 128, (n, k), np.uint8), random.integers(-127, 128, (k, m)).astype(np.int8))


def test_what_is_not_contiguous():
    random = np.random.Generator(np.random.Philox(1))
    x = random.integers(0, 128, (64, 33), np.uint8)
    weight = random.integers(-127, 128, (66, 10)).astype(np.int8)
    _check(x[::2], weight[::2])
    _check(np.asfortranarray(x), np.asfortranarray(weight[:33]))


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_one_kernel_serves_many_threads(factory):
    random = np.random.Generator(np.random.Philox(2))
    weight = random.integers(-127, 128, (300, 50)).astype(np.int8)
    inputs = [random.integers(0, 128, (100 + index, 300), np.uint8) for index in range(8)]
    linear = factory(weight)
    failed = []

    def work(x):
        failed.extend(len(x) for _ in range(10) if not np.array_equal(linear(x), _exact(x, weight)))

    threads = [threading.Thread(target=work, args=(x,)) for x in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_product_does_not_alias_the_next():
    for factory in FACTORIES.values():
        linear = factory(np.ones((2, 2), np.int8))
        first = linear(np.ones((1, 2), np.uint8))
        first += 5
        assert linear(np.ones((1, 2), np.uint8)).tolist() == [[2, 2]]


def test_the_choice_of_a_kernel(monkeypatch):
    weight = np.ones((1, 1), np.int8)
    assert isinstance(choose_linear()(weight), OnnxLinear)
    assert isinstance(choose_linear("numpy")(weight), NumpyLinear)
    with pytest.raises(ValueError, match="'fast'"):
        choose_linear("fast")
    found = builtins.__import__

    def without(name, *arguments, **more):
        if name == "onnxruntime":
            raise ImportError(name)
        return found(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert isinstance(choose_linear()(weight), NumpyLinear)
    with pytest.raises(ImportError):
        choose_linear("onnxruntime")
