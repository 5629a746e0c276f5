"""Shapes of texts: digits as zeros, and the bytes of all texts of one shape as arrays."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from trainer_service.datasets.shapes import groups, shapes

texts = st.lists(st.text(st.sampled_from("019aZ €é-."), max_size=6), max_size=30)


def shape_of(text: str) -> str:
    return "".join("0" if letter in "0123456789" else letter for letter in text)


@given(texts, st.integers(0, 3))
def test_a_shape_has_a_zero_for_each_digit(values: list[str], start: int) -> None:
    array = pa.array(["9"] * start + values, pa.string()).slice(start)
    assert shapes(array).to_pylist() == [shape_of(value) for value in values]


@given(texts, st.integers(0, 3))
def test_every_text_is_in_the_group_of_its_shape(values: list[str], start: int) -> None:
    array = pa.array(["xx"] * start + values, pa.string()).slice(start)
    found = {group.shape: group.places.tolist() for group in groups(array, 100)}
    assert found == {
        shape: [place for place, value in enumerate(values) if shape_of(value) == shape]
        for shape in map(shape_of, values)
    }


@given(texts)
def test_the_digits_of_a_group_are_read_at_their_positions(values: list[str]) -> None:
    for group in groups(pa.array(values, pa.string()), 100):
        places = tuple(place for place, letter in enumerate(group.shape) if letter == "0")
        mine = [values[place] for place in group.places]
        assert group.number(places).tolist() == [
            int("".join(value[place] for place in places) or "0") for value in mine
        ]
        assert group.zeros(places).tolist() == [{value[place] for place in places} <= {"0"} for value in mine]
        spelled = group.spelled(["-", *places, "."]).to_pylist()
        assert spelled == ["-" + "".join(value[place] for place in places) + "." for value in mine]


def test_long_texts_are_one_group_of_no_shape() -> None:
    array = pa.array(["1", "12345", "2", "abcdef", "12345"])
    found = [(group.shape, sorted(group.places.tolist())) for group in groups(array, 4)]
    assert found == [("0", [0, 2]), ("", [1, 3, 4])]
    assert [(group.shape, group.places.tolist()) for group in groups(array.slice(1, 1), 4)] == [("", [0])]


def test_no_texts_have_no_groups() -> None:
    assert list(groups(pa.array([], pa.string()), 9)) == []
    assert shapes(pa.array([], pa.string())).to_pylist() == []


def test_many_shapes_are_kept_apart() -> None:
    values = ["a" * (index % 300) + "b" * (index // 300) for index in range(70_000)]
    found = list(groups(pa.array(values), 1000))
    assert len(found) == len(set(values))
    assert np.array_equal(np.sort(np.concatenate([group.places for group in found])), np.arange(70_000))
