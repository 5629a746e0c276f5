"""Columns of truth values: the words that say true and false."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from rowmint.schema import DataType
from rowmint.schema.forms import BooleanForm, WrittenForm
from trainer_service.datasets.inference.decision import ColumnNotices, Decision
from trainer_service.datasets.shapes import ShapeGroup
from trainer_service.datasets.target import Target

_CANONICAL = ("true", "false")
_PAIRS = (
    _CANONICAL,
    ("yes", "no"),
    ("y", "n"),
    ("t", "f"),
    ("on", "off"),
    ("ja", "nein"),
    ("j", "n"),
    ("oui", "non"),
    ("s\u00ed", "no"),
    ("si", "no"),
    ("sim", "n\u00e3o"),
    ("1", "0"),
)
"""Words that a column may be declared boolean with; without a declaration only the first pair is."""
_MAX_WORDS = 8


class BooleanState:
    """The words of a column.

    Args:
        declared: The declared form, whose words are the only ones; None if there is none.
        any_pair: Whether every pair of words counts, as the column is declared boolean.

    Attributes:
        words: Rows by word.
    """

    def __init__(self, declared: BooleanForm | None, *, any_pair: bool) -> None:
        if declared is not None:
            self._pairs: tuple[tuple[str, str], ...] = ((declared.true_text, declared.false_text),)
        else:
            self._pairs = _PAIRS if any_pair else _PAIRS[:1]
        self._declared = declared
        self.words: Counter[str] = Counter()
        self._dead = False

    @property
    def alive(self) -> bool:
        """Whether every text was one of few words."""
        return not self._dead

    def add(self, group: ShapeGroup, weights: NDArray[np.int64]) -> None:
        """Take in the texts of one shape; `weights` are rows of each, shape (n,)."""
        if self._dead:
            return
        if "0" not in group.shape:
            self.words[group.shape] += int(weights.sum())
        elif group.shape == "0":
            digits = group.digit(0)
            for digit in np.unique(digits).tolist():
                self.words[str(digit)] += int(weights[digits == digit].sum())
        else:
            self.words[group.shape] += 1
        self._dead = len(self.words) > _MAX_WORDS or not self._fitting()

    def _fitting(self) -> list[tuple[str, str]]:
        found = {self._folded(word) for word in self.words}
        return [pair for pair in self._pairs if found <= set(pair)]

    def _folded(self, word: str) -> str:
        return word if self._declared is not None else word.casefold()

    def decide(self, name: str) -> Decision:
        """Return the type of the column, whose words all belong to one pair."""
        pair = self._fitting()[0]
        form = self._declared
        notices = ColumnNotices(name)
        if form is None:
            spellings = Counter[BooleanForm]()
            for word, rows in self.words.items():
                spellings[_like(word, pair)] += rows
            form = notices.commonest(spellings, lambda words: f"{words.true_text}/{words.false_text}")
        canonical = (form.true_text, form.false_text) == _CANONICAL
        why = f"every value is {form.true_text} or {form.false_text}"
        return Decision(
            Target(DataType.BOOL, WrittenForm() if canonical else WrittenForm(form), why=why), notices.all()
        )


def _like(word: str, pair: tuple[str, str]) -> BooleanForm:
    """Return a pair of words in the case of one of them."""
    if word.islower() or not word.isalpha():
        return BooleanForm(*pair)
    if word.isupper() and (len(word) > 1 or max(map(len, pair)) == 1):
        return BooleanForm(pair[0].upper(), pair[1].upper())
    return BooleanForm(pair[0].title(), pair[1].title())


def words_of(form: BooleanForm | None) -> tuple[list[str], list[str]]:
    """Return the words that are read as true, and as false, by a column of a form.

    Args:
        form: The form; None for the canonical words.
    """
    if form is None:
        return [*_cases("true"), "1"], [*_cases("false"), "0"]
    return _cases(form.true_text), _cases(form.false_text)


def _cases(word: str) -> list[str]:
    return list(dict.fromkeys([word, word.lower(), word.upper(), word.title()]))
