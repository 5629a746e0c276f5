"""Ids: a keyed permutation of a finite language, so that they are unique without coordination."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.codecs import IdentityCodec, load_codec
from rowmint.codecs.identity import MISSING_ONE, Permutation, identity_key
from rowmint.errors import DataLossError, InvalidFieldError, RowRangeError
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain
from rowmint.schema.forms.id_pattern import parse_id_pattern

KEYS = [hashlib.sha256(bytes([number])).digest()[:16] for number in range(4)]
INTEGER = ColumnSpec("id", ColumnKind.ID, DataType.INT64)
NULLABLE = ColumnSpec("id", ColumnKind.ID, DataType.INT64, Domain(nullable=True))
TEXT = ColumnSpec("id", ColumnKind.ID, DataType.STRING)


@pytest.mark.parametrize("key", KEYS)
def test_every_small_permutation_is_a_bijection(key):
    for size in range(1, 301):
        image = Permutation(size, key)(np.arange(size))
        assert sorted(image.tolist()) == list(range(size))


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 2**17 - 3])
def test_a_larger_permutation_is_a_bijection(size):
    image = Permutation(size, KEYS[0])(np.arange(size))
    assert np.array_equal(np.sort(image), np.arange(size))
    # ... and no near-identity: a random one moves all but about one.
    assert np.count_nonzero(image == np.arange(size)) < 12


@settings(deadline=None, max_examples=50)
@given(st.integers(2**40, 2**62), st.integers(0, 2**61), st.sampled_from(KEYS))
def test_a_huge_permutation_stays_inside_and_does_not_collide(size, start, key):
    start %= size - 1000
    image = Permutation(size, key)(np.arange(start, start + 1000))
    assert len(set(image.tolist())) == 1000
    assert image.min() >= 0
    assert image.max() < size


def test_the_image_of_a_row_does_not_depend_on_its_neighbours():
    permutation = Permutation(1000, KEYS[1])
    whole = permutation(np.arange(1000))
    assert [int(permutation(np.array([row]))[0]) for row in range(0, 1000, 37)] == whole[::37].tolist()


def test_every_key_gives_another_permutation():
    images = {tuple(Permutation(100, key)(np.arange(100)).tolist()) for key in KEYS}
    assert len(images) == len(KEYS)


def test_the_key_depends_on_model_column_and_seed():
    model, other = bytes(32), bytes(31) + b"\1"
    keys = {
        identity_key(model, "", "a", 0),
        identity_key(other, "", "a", 0),
        identity_key(model, "t", "a", 0),
        identity_key(model, "", "b", 0),
        identity_key(model, "", "a", 1),
        identity_key(model, "", "a", 2**64 - 1),
    }
    assert len(keys) == 6
    assert {len(key) for key in keys} == {16}
    assert identity_key(model, "", "a", 0) in keys


@pytest.mark.parametrize(
    ("pattern", "alphabets"),
    [
        ("[01]", ["01"]),
        ("N[0-2]{2}", ["N", "012", "012"]),
        ("[a-cx-z]", ["abcxyz"]),
        ("[aab-]", ["ab-"]),
        ("[-a]", ["-a"]),
        (r"\[[ab]\]\\\{", ["[", "ab", "]", "\\", "{"]),
        ("x{3}[ab]", ["x", "x", "x", "ab"]),
        ("[é-ëł].", ["éêëł", "."]),
        ("[ab]{1}", ["ab"]),
        ("[^a]", ["^a"]),
    ],
)
def test_patterns_and_the_whole_of_their_languages(pattern, alphabets):
    assert parse_id_pattern(pattern).layouts == (tuple(alphabets),)
    language = ["".join(letters) for letters in itertools.product(*alphabets)]
    assert parse_id_pattern(pattern).size == len(language)
    assert [parse_id_pattern(pattern).text(rank) for rank in range(len(language))] == language
    codec = IdentityCodec(False, 0, len(language), pattern)
    assert codec.texts(np.arange(len(language))) == language
    made = codec.texts(codec.values(0, len(language), KEYS[0]))
    assert sorted(made) == sorted(language)
    assert codec.texts(np.zeros(0, np.int64)) == []


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a",
        "abc",
        "[a]",
        "[]",
        "[",
        "]",
        "{2}",
        "a{",
        "[ab]{100}",
        "[ab]{}",
        "[ab]{0}",
        "[ab]{0,0}",
        "[ab]{3,2}",
        "[ab]{,2}",
        "[ab]{1,}",
        "[ab]{1,2}[ab]{1,2}",
        "[ab]{0,3}",
        "a{1,100}",
        "[ab]{1,99}" + "x{99}" * 2,
        "[z-a]",
        "[a\\]",
        "\\",
        "[ab]\0",
        "[\0-a]",
        "[\ud7ff-\ue000]",
        "[ab]" + "x" * 256,
        "[ab]" + "x{99}" * 3,
    ],
)
def test_a_malformed_pattern_names_the_field(pattern):
    with pytest.raises(InvalidFieldError) as caught:
        parse_id_pattern(pattern, "columns[0].id_pattern")
    assert [violation.field for violation in caught.value.violations] == ["columns[0].id_pattern"]


def test_a_hostile_pattern_is_refused_before_it_is_read_to_its_end():
    with pytest.raises(InvalidFieldError, match="more than 4096 characters"):
        parse_id_pattern("[\U00010000-\U0010ffff]" * 200)
    with pytest.raises(InvalidFieldError, match="1 to 256"):
        parse_id_pattern("x" * 1_000)
    with pytest.raises(InvalidFieldError, match="has 1000000 characters"):
        parse_id_pattern("x" * 1_000_000)


def test_the_largest_languages():
    assert parse_id_pattern("[01]{62}").size == 2**62
    codec = IdentityCodec(False, 0, 2**62, "[01]{62}")
    assert codec.texts(np.array([2**62 - 1, 1])) == ["1" * 62, "0" * 61 + "1"]
    assert len(codec.texts(codec.values(2**62 - 1, 1, KEYS[0]))[0]) == 62


@pytest.mark.parametrize("pattern", ["[ab]{0,2}c", "x[01]{1,3}[a-c]", "[a-z]{2,3}@example.com", "a{1,4}"])
def test_a_language_of_several_lengths_is_in_order_of_length(pattern):
    language = parse_id_pattern(pattern)
    texts = [language.text(rank) for rank in range(language.size)]
    assert texts == sorted(texts, key=lambda text: (len(text), text))
    assert len(set(texts)) == language.size
    codec = IdentityCodec(False, 0, language.size, pattern)
    assert codec.texts(np.arange(language.size)) == texts
    assert sorted(codec.texts(codec.values(0, language.size, KEYS[0]))) == sorted(texts)
    assert codec.texts(np.zeros(0, np.int64)) == []


@pytest.mark.parametrize(
    ("pattern", "free"),
    [
        ("1[0-7][0-9]{18}", 2),
        ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", 20),
        ("[01]{63}", 1),
        ("[a-z]{8,20}@example.com", 7),
        ("[\u1000-\u1fff]" * 200, 195),
        ("[\u1000-\u1fff]{1,99}", 94),
    ],
)
def test_positions_beyond_62_bits_follow_from_the_rank(pattern, free):
    language = parse_id_pattern(pattern)
    assert language.free == free
    assert 2 <= language.size <= 2**62
    codec = IdentityCodec(False, 0, language.size, pattern)
    ranks = codec.values(0, 2000, KEYS[1])
    ranks[:3] = 0, 1, language.size - 1
    texts = codec.texts(ranks)
    assert texts == [language.text(rank) for rank in ranks.tolist()]
    assert len(set(texts)) == 2000
    for text in texts[::100]:
        layout = next(layout for layout in language.layouts if len(layout) == len(text))
        assert all(letter in alphabet for letter, alphabet in zip(text, layout, strict=True))
    # What follows from the rank takes every value, too.
    varied = next(position for position in range(free) if len(language.layouts[-1][position]) > 1)
    assert len({text[varied] for text in texts}) > min(len(language.layouts[-1][varied]), 500) / 2


def test_ids_in_order_follow_one_another():
    assert IdentityCodec(True, 1, 1000, "", sequential=True).values(5, 3, KEYS[0]).tolist() == [6, 7, 8]
    codec = IdentityCodec(False, 1, 999, "N[0-9]{3}", sequential=True)
    assert codec.texts(codec.values(0, 2, KEYS[0])) == ["N001", "N002"]
    assert codec.texts(codec.values(998, 1, KEYS[3])) == ["N999"]
    with pytest.raises(RowRangeError):
        codec.values(999, 1, KEYS[0])


def test_the_first_rows_have_the_smallest_ids():
    codec = IdentityCodec(True, 100, 9_900, "", first=900)
    made = codec.values(0, 9_900, KEYS[0])
    assert sorted(made.tolist()) == list(range(100, 10_000))
    assert sorted(made[:900].tolist()) == list(range(100, 1_000))
    assert made[:900].tolist() != list(range(100, 1_000))
    assert made[900:].tolist() == list(range(1_000, 10_000))
    for start, count in ((0, 900), (899, 2), (900, 5), (5, 0), (9_899, 1)):
        assert codec.values(start, count, KEYS[0]).tolist() == made[start : start + count].tolist()


@pytest.mark.parametrize(
    ("pattern", "integers"),
    [
        ("[1-9][0-9]{3}", (1000, 9999)),
        ("[1-9][0-9]{0,3}", (1, 9999)),
        ("4[2-5][0-9]", (420, 459)),
        ("[0-9]", (0, 9)),
        ("[0-9]{2}", None),
        ("[13][0-9]", None),
        ("[1-2][0-5]", None),
        ("[1-2][0-9]{1,2}", None),
        ("N[0-9]", None),
        ("[1-9][0-9]{30}", None),
    ],
)
def test_a_pattern_of_integers_has_a_range(pattern, integers):
    assert parse_id_pattern(pattern).integers() == integers


def test_the_share_of_missing_ids_is_kept_and_belongs_to_the_row():
    codec = IdentityCodec(True, 0, 2**40, "", missing=MISSING_ONE // 4)
    whole = codec.cells(0, 40_000, KEYS[0])
    missing = whole.missing()
    assert 0.24 < missing.mean() < 0.26
    assert not whole.values[missing].any()
    assert np.array_equal(whole.values[~missing], codec.values(0, 40_000, KEYS[0])[~missing])
    for start, count in ((0, 1), (17, 4000), (39_999, 1)):
        part = codec.cells(start, count, KEYS[0])
        assert np.array_equal(part.missing(), missing[start : start + count])
    assert not np.array_equal(codec.cells(0, 40_000, KEYS[1]).missing(), missing)
    assert codec.cells(0, 9, KEYS[0]).valid is not None
    assert IdentityCodec(True, 0, 10, "").cells(0, 9, KEYS[0]).valid is None
    assert IdentityCodec(True, 0, 100, "", missing=MISSING_ONE).cells(0, 99, KEYS[0]).missing().all()


@pytest.mark.parametrize(("base", "size"), [(0, 10), (100_000, 900_000), (-5, 7), (2**63 - 10, 10), (-(2**63), 2**62)])
def test_integers_lie_between_base_and_base_and_size(base, size):
    codec = IdentityCodec(True, base, size, "")
    made = codec.values(0, min(size, 1000), KEYS[2]).tolist()
    assert len(set(made)) == len(made)
    assert min(made) >= base
    assert max(made) < base + size
    if size <= 1000:
        assert sorted(made) == list(range(base, base + size))
    assert codec.values(3, 2, KEYS[2]).tolist() == made[3:5]


def test_a_row_past_the_last_id_is_out_of_range():
    codec = IdentityCodec(True, 0, 10, "")
    assert len(codec.values(9, 1, KEYS[0])) == 1
    for start, count in ((9, 2), (10, 1), (0, 11), (10**15, 1)):
        with pytest.raises(RowRangeError, match=f"row {start + count - 1} has no id") as caught:
            codec.values(start, count, KEYS[0])
        assert caught.value.metadata == {"size": "10"}


@pytest.mark.parametrize(
    ("column", "codec"),
    [
        (INTEGER, IdentityCodec(True, -3, 2**62, "")),
        (INTEGER, IdentityCodec(True, 10**9, 9 * 10**9, "")),
        (TEXT, IdentityCodec(False, 0, 1000, "N[0-9]{3}")),
        (TEXT, IdentityCodec(False, 0, 1110, "N[0-9]{1,3}")),
        (TEXT, IdentityCodec(False, 10, 990, "N[0-9]{3}", sequential=True)),
        (NULLABLE, IdentityCodec(True, 1, 2**62, "", sequential=True, missing=7)),
        (INTEGER, IdentityCodec(True, 10, 2**62, "", first=90)),
    ],
)
def test_a_codec_is_restored_from_its_manifest(column, codec):
    body, arrays = codec.to_manifest()
    assert load_codec(column, body, arrays) == codec


@pytest.mark.parametrize(
    ("column", "codec"),
    [
        (INTEGER, IdentityCodec(True, 0, 0, "")),
        (INTEGER, IdentityCodec(True, 0, 2**62 + 1, "")),
        (INTEGER, IdentityCodec(True, 2**63 - 9, 10, "")),
        (INTEGER, IdentityCodec(True, -(2**63) - 1, 10, "")),
        (TEXT, IdentityCodec(False, 0, 10, "")),
        (TEXT, IdentityCodec(False, 0, 1001, "N[0-9]{3}")),
        (TEXT, IdentityCodec(False, 0, 10, "[")),
        (TEXT, IdentityCodec(False, 1, 1000, "N[0-9]{3}", sequential=True)),
        (TEXT, IdentityCodec(False, -1, 10, "N[0-9]{3}", sequential=True)),
        (INTEGER, IdentityCodec(True, 0, 10, "", missing=1)),
        (INTEGER, IdentityCodec(True, 0, 10, "", first=11)),
        (INTEGER, IdentityCodec(True, 0, 10, "", first=-1)),
        (INTEGER, IdentityCodec(True, 0, 10, "", sequential=True, first=5)),
        (NULLABLE, IdentityCodec(True, 0, 10, "", missing=MISSING_ONE + 1)),
        (NULLABLE, IdentityCodec(True, 0, 10, "", missing=-1)),
    ],
)
def test_a_codec_that_cannot_be_is_refused(column, codec):
    body, arrays = codec.to_manifest()
    with pytest.raises(DataLossError):
        load_codec(column, body, arrays)


def test_an_unknown_order_is_refused():
    body, arrays = IdentityCodec(True, 0, 10, "", sequential=True).to_manifest()
    assert body["order"] == "sequential"
    with pytest.raises(DataLossError, match="backwards"):
        load_codec(INTEGER, {**body, "order": "backwards"}, arrays)


def test_a_wider_pattern_is_suggested():
    codec = IdentityCodec(False, 0, 1000, "N[0-9]{3}")
    for rows in (1001, 9_999, 10_000, 123_456_789):
        assert parse_id_pattern(codec.wider_pattern(rows)).size >= rows
    assert codec.wider_pattern(10_500) == "N[0-9]{3}[0-9]{2}"
    assert IdentityCodec(True, 0, 10, "").wider_pattern(123) == "[1-9][0-9]{3}"
