"""Patterns of ids: what made ids look like, learned from the texts of a column without copying any of them.

A position is a literal only where all of at least twenty texts agree, or where it is punctuation; else it is the
smallest of a few classes that holds what was seen there.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rowmint.schema.forms.id_pattern import parse_id_pattern
from trainer_service.datasets.shapes import bytes_of, shapes

MAX_WIDTH = 64
"""Longest id that is made."""
_MAX_LENGTHS = 16
_LITERAL_ROWS = 20
_SET_ROWS = 100
_SET_SIZE = 4
_ROOM = 20
"""Made ids there must be for each row found."""
_CODE_WIDTH = 8
_PERSONAL_DIGITS = 9
_PHONE_MARKS = frozenset("+-() ")
_LOCAL_WIDTH = 32
_EMAIL = r"^(?P<local>[^@\s]+)@(?P<domain>[A-Za-z0-9.-]+\.[A-Za-z]{2,})$"
_MOST = 0.95
_DIGITS, _LOWER, _UPPER = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CLASSES = (
    ("1-9", _DIGITS[1:]),
    ("0-9", _DIGITS),
    ("A-Z", _UPPER),
    ("a-z", _LOWER),
    ("A-F0-9", "ABCDEF" + _DIGITS),
    ("a-f0-9", "abcdef" + _DIGITS),
    ("A-Z0-9", _UPPER + _DIGITS),
    ("a-z0-9", _LOWER + _DIGITS),
    ("A-Za-z", _UPPER + _LOWER),
    ("A-Za-z0-9", _UPPER + _LOWER + _DIGITS),
)
_HEX_CLASSES = _CLASSES[4:6]
_HEX_WIDTH = 16
_SPELLED = frozenset(_LOWER + _UPPER + "\0")
"""Characters of texts that are more than digits and punctuation."""
_MAX_SHAPES = 4096
_LETTERS = 0  # bytes past ASCII count as this one
_UINT64_DIGITS = 20
_UINT64_END = "18446744073709551616"
_UINT64_PATTERNS = {19: "[1-9][0-9]{18}", 20: "1[0-7][0-9]{18}"}
"""Numbers below 2**64 whatever the digits, by their number."""


@dataclass(frozen=True)
class LearnedPattern:
    """The pattern of a column's ids.

    Attributes:
        pattern: The pattern, for `ColumnSpec.id_pattern`.
        others: Rows that are of another layout.
        is_code: Whether texts are of a kind that identifies rows: all of one width of at least eight, with letters and
            digits, or e-mail addresses.
        is_personal: Whether they are that, or numbers such as those of phones and insurances: all of one width and with
            at least nine digits, or at least nine characters that are digits or occur in phone numbers.
    """

    pattern: str
    others: int
    is_code: bool = False
    is_personal: bool = False


@dataclass
class _Layouts:
    """Which bytes occur where.

    Attributes:
        rows: Rows by length in bytes.
        seen: By length, whether a byte occurs at a position, shape (length, 128); of lengths up to `MAX_WIDTH`.
        anywhere: Whether a byte occurs, shape (128,).
        heads: Whether a byte occurs at a position counted from the beginning, shape (MAX_WIDTH, 128).
        largest: The largest of the texts of twenty digits.
        shapes: Rows by shape, of texts of digits and punctuation; empty past `_MAX_SHAPES` shapes.
        has_shapes: Whether there are not more.
        has_zeros: Whether a group of digits begins with 0.
    """

    rows: Counter[int] = field(default_factory=Counter)
    seen: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    anywhere: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(128, np.bool_))
    heads: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((MAX_WIDTH, 128), np.bool_))
    largest: str = ""
    shapes: Counter[str] = field(default_factory=Counter)
    has_shapes: bool = True
    has_zeros: bool = False

    def add(self, texts: pa.Array) -> None:
        offsets, data = bytes_of(texts)
        letters = np.where(data < 128, data, np.uint8(_LETTERS))
        self.anywhere[letters] = True
        lengths = np.diff(offsets)
        for length in np.unique(lengths).tolist():
            starts = offsets[:-1][lengths == length].astype(np.int64)
            self.rows[length] += len(starts)
            keep = length <= MAX_WIDTH and (length in self.seen or len(self.seen) <= _MAX_LENGTHS)
            if keep:
                self.seen.setdefault(length, np.zeros((length, 128), np.bool_))
            for position in range(min(length, MAX_WIDTH)):
                found = letters[starts + position]
                self.heads[position, found] = True
                if keep:
                    self.seen[length][position, found] = True
        digits = texts.filter(pc.equal(pc.binary_length(texts), _UINT64_DIGITS))
        if len(digits):
            self.largest = max(self.largest, pc.max(digits).as_py())
        if self.has_shapes:
            self._add_shapes(texts)

    def _add_shapes(self, texts: pa.Array) -> None:
        if _SPELLED.isdisjoint(_bytes(self.anywhere)):
            for one in shapes(texts).value_counts().to_pylist():
                self.shapes[one["values"]] += one["counts"]
            self.has_zeros |= bool(pc.any(pc.match_substring_regex(texts, "(^|[^0-9])0[0-9]")).as_py())
            self.has_shapes = len(self.shapes) <= _MAX_SHAPES
        else:
            self.has_shapes = False
        if not self.has_shapes:
            self.shapes.clear()


def learn_pattern(batches: Iterable[pa.Array]) -> LearnedPattern | None:
    """Return the pattern of a column of text; None if it has no text of at least one character.

    Args:
        batches: The column, in any order.
    """
    whole, local, domains = _Layouts(), _Layouts(), set[str]()
    addresses = total = 0
    for batch in batches:
        texts = batch.drop_null()
        texts = texts.filter(pc.greater(pc.binary_length(texts), 0))
        if not len(texts):
            continue
        total += len(texts)
        whole.add(texts)
        parts = pc.extract_regex(texts, _EMAIL).drop_null()
        addresses += len(parts)
        if len(parts):
            local.add(parts.field("local"))
            found = parts.field("domain").unique().to_pylist()
            domains |= set(found[:2]) if len(domains) < 2 else set()
    if not total:
        return None
    if addresses == total:
        domain = domains.pop() if len(domains) == 1 and total >= _LITERAL_ROWS else "example.com"
        least, most = (min(length, _LOCAL_WIDTH) for length in (min(local.rows), max(local.rows)))
        letters = "[a-z0-9]" if local.anywhere[ord("0") : ord("9") + 1].any() else "[a-z]"
        return LearnedPattern(
            _with_room([(letters, least, most)], total) + f"@{domain}", 0, is_code=True, is_personal=True
        )
    return _of_layouts(whole, total)


def all_emails(texts: pa.Array) -> bool:
    """Return whether all texts are e-mail addresses, missing ones aside."""
    return bool(pc.all(pc.match_substring_regex(texts, _EMAIL), min_count=0).as_py())


def _of_layouts(layouts: _Layouts, total: int) -> LearnedPattern:
    length, rows = layouts.rows.most_common(1)[0]
    # Of equally common lengths the shortest, whatever the order of rows.
    length = min(other for other, count in layouts.rows.items() if count == rows)
    found = set(_bytes(layouts.anywhere))
    marks = found - set(_DIGITS)
    # A dash alone separates parts of dates too.
    is_number = min(layouts.rows) >= _PERSONAL_DIGITS and marks <= _PHONE_MARKS and marks != {"-"}
    if (
        not marks
        and length in _UINT64_PATTERNS
        and max(layouts.rows) == _UINT64_DIGITS
        and layouts.largest < _UINT64_END
    ):
        return LearnedPattern(_UINT64_PATTERNS[length], total - rows, is_personal=is_number)
    if length in layouts.seen and rows >= _MOST * total:
        seen = layouts.seen[length]
        classes = _hexadecimal(seen) if length >= _HEX_WIDTH and total < _LITERAL_ROWS else _CLASSES
        parts = [(_alphabet(_bytes(at), total, classes), 1, 1) for at in seen]
        one_width = rows == total and length >= _CODE_WIDTH
        is_code = one_width and _has(found, _DIGITS) and _has(found, _LOWER + _UPPER)
        digits = sum(not set(_bytes(at)) - set(_DIGITS) for at in seen)
        is_personal = is_code or is_number or (one_width and digits >= _PERSONAL_DIGITS)
        return LearnedPattern(_with_room(parts, total), total - rows, is_code, is_personal)
    shortest, longest = min(layouts.rows), max(layouts.rows)
    parts, head = [], 0
    while head < min(shortest, MAX_WIDTH) - 1 and _is_literal(_bytes(layouts.heads[head]), total):
        parts.append((_alphabet(_bytes(layouts.heads[head]), total), 1, 1))
        head += 1
    rest = layouts.heads[head:] if longest <= MAX_WIDTH else layouts.anywhere[np.newaxis]
    if layouts.has_shapes and longest <= MAX_WIDTH and set(_bytes(np.logical_or.reduce(rest))) - set(_DIGITS):
        # Where punctuation stands is more of a layout than how many digits there are.
        most = max(layouts.shapes.values())
        shape = min(shape for shape, count in layouts.shapes.items() if count == most)
        pattern = _of_shape(shape, total, has_zeros=layouts.has_zeros)
        return LearnedPattern(pattern, total - most, is_personal=is_number)
    alphabet = _alphabet(_bytes(np.logical_or.reduce(rest)), 0)
    parts.append((alphabet, max(1, min(shortest, MAX_WIDTH) - head), max(1, min(longest, MAX_WIDTH) - head)))
    return LearnedPattern(_with_room(parts, total), 0, is_personal=is_number)


def _of_shape(shape: str, total: int, *, has_zeros: bool) -> str:
    """Return the pattern of a shape; groups of digits begin with 0 if some do."""
    parts = []
    for place, letter in enumerate(shape):
        starts = letter == "0" and not shape[:place].endswith("0") and shape[place + 1 : place + 2] == "0"
        digit = "[1-9]" if starts and not has_zeros else "[0-9]"
        parts.append((digit if letter == "0" else _alphabet(letter, total), 1, 1))
    return _with_room(parts, total)


def _bytes(seen: NDArray[np.bool_]) -> str:
    return "".join(chr(code) for code in np.flatnonzero(seen))


def _has(found: set[str], letters: str) -> bool:
    return bool(found & set(letters))


def _hexadecimal(seen: NDArray[np.bool_]) -> tuple[tuple[str, str], ...]:
    """Return the class of hexadecimal digits if few long ids are made of them, else all classes.

    Some position shows that letters and digits are of one alphabet.
    """
    words = [{letter for letter in _bytes(at) if letter.isalnum()} for at in seen]
    mixed = any(at & set(_DIGITS) and at - set(_DIGITS) for at in words)
    every = set().union(*words)
    return next(((name,) for name in _HEX_CLASSES if mixed and every <= set(name[1])), _CLASSES)


def _is_literal(seen: str, rows: int) -> bool:
    """Return whether a position has one character in all rows, which is punctuation or was seen often enough."""
    return len(seen) == 1 and seen != chr(_LETTERS) and (rows >= _LITERAL_ROWS or not seen.isalnum())


def _alphabet(seen: str, rows: int, classes: tuple[tuple[str, str], ...] = _CLASSES) -> str:
    """Return the expression of a position, of the characters seen there.

    Args:
        seen: The characters; U+0000 stands for any past ASCII.
        rows: Rows that they were seen in.
        classes: Classes to choose from, the smallest first.
    """
    letters = seen.replace(chr(_LETTERS), "a")
    if _is_literal(seen, rows):
        return f"\\{letters}" if letters in "[]{}\\" else letters
    if len(letters) <= _SET_SIZE and rows >= _SET_ROWS and letters.isalnum():
        return f"[{letters}]"
    words = {letter for letter in letters if letter.isalnum()}
    marks = "".join(
        letter for letter in letters if not letter.isalnum() and letter.isprintable() and letter not in "]\\-"
    )
    ranges = next((ranges for ranges, known in classes if words <= set(known)), "A-Za-z0-9") if words else ""
    dash = "-" if "-" in letters else ""
    return f"[{ranges}{marks}{dash}]" if ranges or marks or dash else "[a-z]"


def _with_room(parts: list[tuple[str, int, int]], rows: int) -> str:
    """Return the pattern of parts, made longer where it has too few elements.

    Args:
        parts: Expression of an alphabet, and fewest and most of its repetitions.
        rows: Rows of the column.
    """
    if _room(parts) < _ROOM * rows:
        # First digits and the sets seen at a position may vary more, then what varies becomes longer.
        parts = [(_widened(alphabet), least, most) for alphabet, least, most in parts]
        place = max((index for index, part in enumerate(parts) if _size(part[0]) > 1), default=-1)
        if place < 0:
            parts.append(("[0-9]", 1, 1))
        alphabet, least, most = parts[place]
        fixed = least == most
        while _room(parts) < _ROOM * rows:
            most += 1
            parts[place] = (alphabet, most if fixed else least, most)
    merged: list[tuple[str, int, int]] = []
    for alphabet, least, most in parts:
        if merged and merged[-1][0] == alphabet and len(alphabet) > 1:
            _, before, behind = merged.pop()
            merged.append((alphabet, least + before, most + behind))
        else:
            merged.append((alphabet, least, most))
    return "".join(alphabet + _count(least, most) for alphabet, least, most in merged)


def _count(least: int, most: int) -> str:
    if least == most:
        return "" if least == 1 else f"{{{least}}}"
    return f"{{{least},{most}}}"


def _room(parts: list[tuple[str, int, int]]) -> int:
    """Return about how many elements the pattern of parts has: those of the greatest length."""
    return math.prod(_size(alphabet) ** most for alphabet, _, most in parts)


def _letters(alphabet: str) -> str:
    # A pattern of one element is none, so another position is added.
    return parse_id_pattern(alphabet + "[01]").layouts[0][0]


def _size(alphabet: str) -> int:
    return len(_letters(alphabet))


def _widened(alphabet: str) -> str:
    """Return an alphabet with all letters of the kinds that vary in it, and all digits where it is a digit."""
    letters = set(_letters(alphabet))
    if letters <= set(_DIGITS):
        return "[0-9]"
    for ranges, known in (("A-Z", _UPPER), ("a-z", _LOWER)):
        if len(letters) > 1 and letters <= set(known):
            return f"[{ranges}]"
    return alphabet
