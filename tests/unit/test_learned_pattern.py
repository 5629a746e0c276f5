"""Patterns of ids that are learned from texts: they hold what was seen, and copy none of it."""

import re
import uuid
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.schema.forms.id_pattern import longer_pattern, parse_id_pattern
from trainer_service.datasets.inference.identifiers import learn_pattern

UUIDS = [str(uuid.UUID(int=place * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128, version=4)) for place in range(200)]


def learned(texts: list[str]) -> str:
    found = learn_pattern([pa.array(texts[:7], pa.string()), pa.array(texts[7:], pa.string())])
    assert found is not None
    return found.pattern


@pytest.mark.parametrize(
    ("text", "rows", "pattern"),
    [
        (lambda place: f"KD-{place * 7919 % 10**6:06d}", 200, "KD-[0-9]{6}"),
        (lambda place: f"KD-{place:06d}", 12, "[A-Z]{2}-[0-9]{6}"),
        (lambda place: f"u-{place:04d}", 200, "u-[0-9]{4}"),
        (lambda place: f"KD-{place + 1}", 200, "KD-[0-9]{1,4}"),
        (lambda place: f"+4930{10**7 + place * 79_241_651 % (9 * 10**7)}", 200, "+4930[1-9][0-9]{7}"),
        (lambda place: f"+{10 ** (8 + place % 3) + place}", 12, "+[0-9]{9,11}"),
        (lambda place: f"10.{place}.{100 + place}.7", 200, "[1-9][0-9].[1-9][0-9]{2}.[1-9][0-9]{2}.[0-9]"),
        (lambda place: f"+{1 + place % 3} {10**6 * 10 ** (place % 2) + place}", 200, "+[0-9] [1-9][0-9]{6}"),
        (lambda place: f"DE{10**19 + place * 7_924_165_123_456_789_101 % (8 * 10**19)}", 200, "DE[1-9][0-9]{19}"),
        (lambda place: f"DE{10**19 + place * 7_924_165_123_456_789_101 % (8 * 10**19)}", 12, "[A-Z]{2}[1-9][0-9]{19}"),
        (lambda place: UUIDS[place], 12, "[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}"),
        (lambda place: UUIDS[place], 200, "[a-f0-9]{8}-[a-f0-9]{4}-4[a-f0-9]{3}-[89ab][a-f0-9]{3}-[a-f0-9]{12}"),
        (lambda place: f"anna.{place}@mail{place % 3}.org", 3_000, "[a-z0-9]{6,9}@example.com"),
        (lambda place: f"anna{place}@mail.org", 3_000, "[a-z0-9]{5,8}@mail.org"),
        (lambda place: f"anna{place}@mail.org", 12, "[a-z0-9]{5,6}@example.com"),
        (lambda place: str(2**63 + place * 0x5A7B3C9D1E2F4061 % 2**63), 200, None),
        (lambda place: f"[{place * 7919 % 10**5:05d}]", 200, "\\[[0-9]{5}\\]"),
        (lambda place: f"{place:03d}", 100, "[0-9]{4}"),
        (lambda place: "word " * (1 + place % 20), 200, "word[a-z ]{1,60}"),
        (lambda place: "ab" * 100 + str(place), 200, None),
    ],
)
def test_a_pattern(text: Callable[[int], str], rows: int, pattern: str | None) -> None:
    found = learned([text(place) for place in range(rows)])
    assert found == pattern or pattern is None
    assert parse_id_pattern(found).size >= 20 * rows


def test_unsigned_integers_stay_below_their_limit() -> None:
    texts = [str(2**63 + place * 0x5A7B3C9D1E2F4061 % 2**63) for place in range(200)]
    found = learn_pattern([pa.array(texts)])
    assert found is not None
    assert (found.pattern, found.others) == ("1[0-7][0-9]{18}", sum(len(text) == 19 for text in texts))
    shorter = learn_pattern([pa.array([text for text in texts if len(text) == 19] + texts[:9])])
    assert shorter is not None
    assert shorter.pattern == "[1-9][0-9]{18}"
    beyond = learn_pattern([pa.array([*texts, "9" * 20])])
    assert beyond is not None
    assert beyond.pattern != found.pattern


def test_no_texts_have_no_pattern() -> None:
    assert learn_pattern([pa.array([None, ""], pa.string())]) is None


@given(st.lists(st.from_regex(r"\A[A-Z]{2}[0-9a-f]{4}[-_ ]x?\Z"), min_size=1, max_size=60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_the_language_holds_every_text_of_one_length(texts: list[str], cut: int) -> None:
    texts = [text for text in texts if len(text) == len(texts[0])]
    found = learn_pattern([pa.array(texts[:cut], pa.string()), pa.array(texts[cut:], pa.string())])
    assert found == learn_pattern([pa.array(texts[::-1], pa.string())])
    assert found is not None
    layout = parse_id_pattern(found.pattern).layouts[0]
    # Patterns with too few elements are longer than their texts.
    for text in texts:
        assert all(letter in alphabet for letter, alphabet in zip(text, layout, strict=False))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=80), st.integers(1, 120))
@settings(max_examples=80, deadline=None)
def test_any_text_has_a_pattern(text: str, rows: int) -> None:
    found = learn_pattern([pa.array([f"{text}{row % 7}" for row in range(rows)])])
    assert found is not None
    assert parse_id_pattern(found.pattern).size >= 20 * rows
    if rows < 20:
        assert not re.search("[A-Za-z0-9]", re.sub(r"\[[^\]]*\]|\{[^}]*\}|@example\.com$", "", found.pattern))


@given(
    st.lists(
        st.sampled_from(["A", "-", "[0-9]", "[a-c]{2}", "[01]{3}", "\\[", "[x-z]{1,2}"]), min_size=1, max_size=5
    ).filter(lambda parts: parts.count("[x-z]{1,2}") <= 1 and any(part.startswith("[") for part in parts))
)
def test_a_longer_pattern_begins_with_the_same_elements(parts: list[str]) -> None:
    pattern = "".join(parts)
    whole, longer = parse_id_pattern(pattern), parse_id_pattern(longer_pattern(pattern))
    assert longer.size > whole.size
    for rank in {0, 1, whole.size // 2, whole.size - 1}:
        assert longer.text(rank) == whole.text(rank)
