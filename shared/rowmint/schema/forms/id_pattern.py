r"""Patterns of ids: a finite language, its size, and its element of a rank.

A pattern is a run of literals, ``[a-z0-9]`` classes and ``\`` escapes; ``{n}`` after one repeats it n times and
``{m,n}``, which may occur once, m to n times. Elements are ordered by length, then by their positions, the last
position changing first. Where there are more than 2**62, the first positions are *free*: they follow from the rank by a
fixed function, and the others alone tell elements apart.
"""

import bisect
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rowmint.errors import InvalidFieldError
from rowmint.lazy import lazy

MAX_IDS = 1 << 62
"""Ranks of one language."""

_DIGITS = "0123456789"
_MAX_WIDTH = 256
_MAX_PATTERN = 1024
_MAX_CLASS = 4096
_TOKEN = re.compile(r"\[([^\]\\]+)\]|\\(.)|([^\[\]{}\\])")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_COUNT = re.compile(r"\{([0-9]{1,2})(?:,([0-9]{1,2}))?\}")
_CLASS = re.compile(r"(?:(?P<body>\[[^\]\\]+\])|\\.|[^\[\]{}\\])(?:\{(?P<least>\d{1,2})(?:,(?P<most>\d{1,3}))?\})?")
_MORE = 12
_MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: tells positions apart before words are mixed."""


def mixed(word: int) -> int:
    """Return a 64-bit word well mixed: the output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _MASK
    return word ^ (word >> 31)


@dataclass(frozen=True)
class IdPattern:
    """A language of ids. Immutable.

    Attributes:
        layouts: For each length, shortest first, the characters that each position may have.
        free: Positions, from the first on, that follow from the rank.
    """

    layouts: tuple[tuple[str, ...], ...]
    free: int

    @lazy
    def sizes(self) -> tuple[int, ...]:
        """How many elements of each length have a rank."""
        return tuple(math.prod(map(len, layout[self.free :])) for layout in self.layouts)

    @property
    def size(self) -> int:
        """How many elements have a rank, 2 to 2**62."""
        return sum(self.sizes)

    def integers(self) -> tuple[int, int] | None:
        """Return the least and the greatest element where all are integers in plain digits, without gaps; else None."""
        digits = all(letter in _DIGITS for layout in self.layouts for alphabet in layout for letter in alphabet)
        if not digits or self.free or any("0" in layout[0] for layout in self.layouts if len(layout) > 1):
            return None
        least, greatest = int("".join(map(min, self.layouts[0]))), int("".join(map(max, self.layouts[-1])))
        return (least, greatest) if greatest - least + 1 == self.size else None

    def text(self, rank: int) -> str:
        """Return the element of a rank, 0 to `size` - 1."""
        if not 0 <= rank < self.size:
            raise ValueError(f"rank {rank} is not below {self.size}")
        starts = [0, *itertools.accumulate(self.sizes)]
        length = bisect.bisect_right(starts, rank) - 1
        layout, rest = self.layouts[length], rank - starts[length]
        letters = [
            alphabet[(mixed(rank + position * GOLDEN & _MASK) >> 32) * len(alphabet) >> 32]
            for position, alphabet in enumerate(layout[: self.free], 1)
        ]
        ranked: list[str] = []
        for alphabet in reversed(layout[self.free :]):
            rest, digit = divmod(rest, len(alphabet))
            ranked.append(alphabet[digit])
        return "".join(letters + ranked[::-1])


@lru_cache(maxsize=256)
def parse_id_pattern(pattern: str, field: str = "id_pattern") -> IdPattern:
    """Return the language of a pattern.

    Raises:
        InvalidFieldError: The pattern is malformed, or describes fewer than two texts; the error names `field`.
    """
    if len(pattern) > _MAX_PATTERN:
        raise InvalidFieldError(field, f"has {len(pattern)} characters; at most {_MAX_PATTERN}")
    layouts: list[tuple[str, ...]] = [()]
    at = 0
    while at < len(pattern) and len(layouts[-1]) <= _MAX_WIDTH:
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise InvalidFieldError(field, f"{pattern!r} cannot be read at {pattern[at:]!r}")
        alphabet = _alphabet(token[1], field) if token[1] else token[2] or token[3]
        if _NO_TEXT.search(alphabet):
            raise InvalidFieldError(field, f"{pattern!r} holds a character that texts cannot, U+0000 or a surrogate")
        count = _COUNT.match(pattern, token.end())
        at = token.end() if count is None else count.end()
        least, most = (1, 1) if count is None else (int(count[1]), int(count[2] or count[1]))
        if most < 1 or most < least:
            raise InvalidFieldError(field, f"{pattern!r} repeats something {least} to {most} times")
        if most > least and len(layouts) > 1:
            raise InvalidFieldError(field, f"{pattern!r} has more than one {{m,n}}")
        layouts = [layout + (alphabet,) * repeat for layout in layouts for repeat in range(least, most + 1)]
    fits = layouts[0] and len(layouts[-1]) <= _MAX_WIDTH
    if not fits or (len(layouts) == 1 and all(len(alphabet) == 1 for alphabet in layouts[0])):
        raise InvalidFieldError(field, f"{pattern!r} must describe at least two texts of 1 to {_MAX_WIDTH} characters")
    return IdPattern(tuple(layouts), _free_positions(layouts))


def _free_positions(layouts: Sequence[tuple[str, ...]]) -> int:
    """Return the fewest positions that must be free for the others to have no more than 2**62 elements."""
    sizes = [1] * len(layouts)
    free = len(layouts[-1])
    while free:
        grown = [
            size * len(layout[free - 1]) if free <= len(layout) else 1
            for size, layout in zip(sizes, layouts, strict=True)
        ]
        if sum(grown) > MAX_IDS:
            break
        sizes, free = grown, free - 1
    return free


def longer_pattern(pattern: str) -> str:
    """Return a pattern whose first elements are those of a valid one, and that continues with longer ones.

    The last class of the pattern, or the one of several lengths, may be up to twelve characters longer. A pattern that
    cannot be longer is returned as it is.
    """
    free = parse_id_pattern(pattern).free
    classes = [token for token in _CLASS.finditer(pattern) if token["body"]]
    chosen = next((token for token in classes if token["most"]), classes[-1] if classes else None)
    if chosen is None:
        return pattern
    least = int(chosen["least"] or 1)
    most = int(chosen["most"] or least)
    for more in range(_MORE, 0, -1):
        longer = f"{pattern[: chosen.start()]}{chosen['body']}{{{least},{most + more}}}{pattern[chosen.end() :]}"
        try:
            if parse_id_pattern(longer).free == free:
                return longer
        except InvalidFieldError:
            continue  # Longer than ids may be.
    return pattern


@lru_cache(maxsize=256)
def _alphabet(body: str, field: str) -> str:
    letters: list[str] = []
    position = 0
    while position < len(body):
        if position + 2 < len(body) and body[position + 1] == "-":
            first, last = body[position], body[position + 2]
            if first > last:
                raise InvalidFieldError(field, f"class [{body}] runs backwards from {first!r} to {last!r}")
            if ord(last) - ord(first) >= _MAX_CLASS:
                raise InvalidFieldError(
                    field, f"class [{body}] has more than {_MAX_CLASS} characters from {first!r} on"
                )
            letters += [chr(code) for code in range(ord(first), ord(last) + 1)]
            position += 3
        else:
            letters.append(body[position])
            position += 1
    return "".join(dict.fromkeys(letters))
