"""Hyper-parameters, each declared once: default, range and help text, from which everything else follows.

A family's configuration is a frozen dataclass of fields made here. Checks, converters, JSON form, documentation and the
test of the proto's comments read the declarations.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self

from rowmint.errors import InvalidFieldError

_KEY = "hyperparameter"
_NETWORK_COPIES = 6  # of each weight: itself, gradient, two moments, average, workspace
_NETWORK_TENSORS = 40  # of a batch's width alive at once, forward and backward
_NUMBER_BYTES = 4


class Hyperparameter(Protocol):
    """What one hyper-parameter may be.

    Attributes:
        help: What it is, one phrase.
    """

    @property
    def help(self) -> str:
        """See the class."""
        ...

    @property
    def range(self) -> str:
        """Its range in words; empty where its type is the whole range."""
        ...

    def validate(self, path: str, value: Any) -> None:
        """Check a value; `path` names it in errors.

        Raises:
            InvalidFieldError: It is out of range.
        """
        ...


@dataclass(frozen=True)
class Integer:
    """An integer of a range, both ends included."""

    help: str
    least: int
    greatest: int

    @property
    def range(self) -> str:
        """See `Hyperparameter`."""
        return f"{self.least:,} to {self.greatest:,}"

    def validate(self, path: str, value: int) -> None:
        """See `Hyperparameter`."""
        check_integer(path, value, self.least, self.greatest)


@dataclass(frozen=True)
class Number:
    """A finite number, above 0 or not below it."""

    help: str
    positive: bool

    @property
    def range(self) -> str:
        """See `Hyperparameter`."""
        return "above 0" if self.positive else "0 or more"

    def validate(self, path: str, value: float) -> None:
        """See `Hyperparameter`."""
        if not math.isfinite(value) or value < 0 or (self.positive and value == 0):
            expected = "a finite number above 0" if self.positive else "a finite number, 0 or more"
            raise InvalidFieldError(path, f"is {value}; must be {expected}")


@dataclass(frozen=True)
class Share:
    """A number of 0 to `greatest`, both included."""

    help: str
    greatest: float

    @property
    def range(self) -> str:
        """See `Hyperparameter`."""
        return f"0 to {self.greatest:g}"

    def validate(self, path: str, value: float) -> None:
        """See `Hyperparameter`."""
        if not 0 <= value <= self.greatest:  # NaN fails too
            raise InvalidFieldError(path, f"is {value}; must be {self.range}")


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    help: str
    choices: tuple[str, ...]

    @property
    def range(self) -> str:
        """See `Hyperparameter`."""
        return " or ".join(self.choices)

    def validate(self, path: str, value: str) -> None:
        """See `Hyperparameter`."""
        if value not in self.choices:
            raise InvalidFieldError(path, f"is {value}; must be {self.range}")


@dataclass(frozen=True)
class Flag:
    """True or false."""

    help: str
    range: str = ""

    def validate(self, path: str, value: bool) -> None:
        """See `Hyperparameter`."""


@dataclass(frozen=True)
class Layers:
    """Widths of hidden layers."""

    help: str
    most: int
    widest: int

    @property
    def range(self) -> str:
        """See `Hyperparameter`."""
        return f"1 to {self.most} layers of 1 to {self.widest:,}"

    def validate(self, path: str, value: tuple[int, ...]) -> None:
        """See `Hyperparameter`."""
        if not 1 <= len(value) <= self.most:
            raise InvalidFieldError(path, f"has {len(value)} layers; must have 1 to {self.most}")
        for index, width in enumerate(value):
            check_integer(f"{path}[{index}]", width, 1, self.widest)


@dataclass(frozen=True)
class Names:
    """Names, each once, at least one of them; what they name is checked where that is known."""

    help: str
    most: int

    @property
    def range(self) -> str:
        """See `Hyperparameter`."""
        return f"1 to {self.most} names"

    def validate(self, path: str, value: tuple[str, ...]) -> None:
        """See `Hyperparameter`."""
        if not 1 <= len(value) <= self.most:
            raise InvalidFieldError(path, f"has {len(value)} names; must have {self.range}")
        for index, name in enumerate(value):
            if name in value[:index]:
                raise InvalidFieldError(f"{path}[{index}]", f"names {name!r} a second time")


def check_integer(path: str, value: int, least: int, greatest: int) -> None:
    """Check that an integer lies in a range, both ends included.

    Raises:
        InvalidFieldError: It does not.
    """
    if not least <= value <= greatest:
        raise InvalidFieldError(path, f"is {value}; must be {least:,} to {greatest:,}")


def value_text(value: object) -> str:
    """Return a value of a hyper-parameter as documentation writes it, which is also how the command reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(str(member) for member in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def integer(default: int, least: int, greatest: int, about: str) -> int:
    """Declare an integer of `least` to `greatest`."""
    return field(default=default, metadata={_KEY: Integer(about, least, greatest)})


def positive(default: float, about: str) -> float:
    """Declare a finite number above 0."""
    return field(default=default, metadata={_KEY: Number(about, positive=True)})


def not_negative(default: float, about: str) -> float:
    """Declare a finite number, 0 or more."""
    return field(default=default, metadata={_KEY: Number(about, positive=False)})


def flag(*, default: bool, about: str) -> bool:
    """Declare a truth value."""
    return field(default=default, metadata={_KEY: Flag(about)})


def layers(default: tuple[int, ...], about: str, most: int = 8, widest: int = 4096) -> tuple[int, ...]:
    """Declare the widths of 1 to `most` hidden layers, each 1 to `widest`."""
    return field(default=default, metadata={_KEY: Layers(about, most, widest)})


def names(default: tuple[str, ...], about: str, most: int = 16) -> tuple[str, ...]:
    """Declare 1 to `most` different names."""
    return field(default=default, metadata={_KEY: Names(about, most)})


@dataclass(frozen=True)
class FitSize:
    """What the memory of a fit follows from.

    Attributes:
        parameters: Numbers that are learned by steps.
        rows_per_step: Training rows of a step; 0 where there are no steps.
        width: Width of an encoded row in a network.
        columns: Columns that are modelled.
    """

    parameters: int
    rows_per_step: int
    width: int
    columns: int


@dataclass(frozen=True)
class FamilyConfig:
    """Hyper-parameters of a family: a subclass declares them as fields, with the functions above. Immutable."""

    @classmethod
    def hyperparameters(cls) -> dict[str, Hyperparameter]:
        """Return the declarations by name, in the order declared."""
        return {declared.name: declared.metadata[_KEY] for declared in fields(cls)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the defaults by name."""
        return {declared.name: declared.default for declared in fields(cls)}

    def validate(self, path: str) -> None:
        """Check each hyper-parameter, then what they have to be to each other.

        Args:
            path: Names the family's part of the configuration in errors.

        Raises:
            InvalidFieldError: One is out of range; the error names it.
        """
        for name, parameter in self.hyperparameters().items():
            parameter.validate(f"{path}.{name}", getattr(self, name))
        self.validate_together(path)

    def validate_together(self, path: str) -> None:
        """Check what concerns several hyper-parameters, each valid by itself; a family with such rules overrides it.

        Raises:
            InvalidFieldError: They do not fit together.
        """

    @property
    def least_rows(self) -> int:
        """Training rows that the family needs, 2 or more."""
        return 2

    def steps_per_epoch(self, rows: int) -> int:
        """Return the steps of an epoch over `rows` training rows; 0 where nothing is iterated."""
        del rows
        return 0

    def settled(self, rows: int, columns: int) -> Self:
        """Return hyper-parameters that are the same for any table, and for one of this size what these are.

        What follows from the table's size is chosen: a fit to a sample of the table then takes the steps of the whole.

        Args:
            rows: Training rows.
            columns: Columns that are modelled.
        """
        del rows, columns
        return self

    def trials(self, rows: int, columns: int) -> float:
        """Return how many fits are made only to choose hyper-parameters, as multiples of the fit that follows.

        Arguments as of `settled`.
        """
        del rows, columns
        return 0.0

    def fitting_bytes(self, size: FitSize) -> int:
        """Return the bytes that what is learned and a step take, at most about; by default those of networks."""
        batch = size.rows_per_step * size.width * _NETWORK_TENSORS
        return _NUMBER_BYTES * (size.parameters * _NETWORK_COPIES + batch)
