"""Which columns identify rows, by name or by shape: unique values alone prove nothing, as numbers rarely repeat."""

import re
from dataclasses import dataclass
from enum import StrEnum

from rowmint.schema import DataType

ENOUGH_ROWS = 20
"""Rows from which on the shape of values says something without the name."""
ID_VALUES = 100
"""Values from which on text that mostly occurs once is an id."""
ID_SHARE = 0.5
"""Share of rows whose value occurs once, from which on text is an id."""
REPORTED_SHARE = 0.1
"""Share from which on it is reported."""

_MOST_DIGITS = 18
_KEY_TEXT = "id ids key uuid guid nr no num number index idx code pk row rowid serial token ref email mail"
_KEY_WORDS = frozenset(_KEY_TEXT.split())
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_UNNAMED = re.compile(r"#|Unnamed: ?\d+|column1|", re.IGNORECASE)


class KeyEvidence(StrEnum):
    """Why a column of unique values identifies rows."""

    NAME = "its name says so"
    ROW_NUMBER = "it counts the rows"
    SHAPE = "its values look like keys"


@dataclass(frozen=True)
class KeyFacts:
    """What is known of a column whose values are all different and none missing.

    Attributes:
        name: Its name.
        data_type: Its type.
        rows: Rows of the table.
        is_row_number: Whether it counts the rows from 0 or 1.
        is_code: Whether texts are of a kind that identifies; see `LearnedPattern`.
    """

    name: str
    data_type: DataType
    rows: int
    is_row_number: bool
    is_code: bool


def key_evidence(facts: KeyFacts) -> KeyEvidence | None:
    """Return why a column identifies rows; None if it does not."""
    if facts.data_type not in (DataType.INT64, DataType.STRING):
        return None
    named = names_key(facts.name)
    if facts.is_row_number and (named or facts.rows >= ENOUGH_ROWS):
        return KeyEvidence.ROW_NUMBER
    if named:
        return KeyEvidence.NAME
    if facts.is_code and facts.rows >= ENOUGH_ROWS:
        return KeyEvidence.SHAPE
    return None


def made_digits(minimum: int | None, maximum: int | None) -> int:
    """Return the digits of made integer ids: those of the largest found.

    Args:
        minimum: Smallest id found; None if there is none.
        maximum: Largest id found.
    """
    return min(len(str(max(abs(minimum or 0), abs(maximum or 0)))), _MOST_DIGITS)


def names_key(name: str) -> bool:
    """Return whether the last word of a column's name is one that keys have, or the name is that of an index."""
    words = _WORDS.findall(name)
    return bool(_UNNAMED.fullmatch(name)) or bool(words and words[-1].lower() in _KEY_WORDS)
