"""Conditions as people write them, Python mappings and texts, as `rowmint.v1.Where`.

A mapping gives one test a column::

    {"origin": "JFK", "dep_delay": (60, None), "carrier": ["AA", "UA"], "tailnum": None}

a scalar for equal, a list or set for one of, a pair for an inclusive range with None for no bound, None for missing.

A text gives tests, all of which must hold::

    origin = JFK            dep_delay > 60          dep_delay between 60 and 90     carrier in (AA, 'U,A')
    origin != JFK           tailnum is null         carrier not in (AA, UA)         "build year" = 'it''s'
    origin = JFK and dep_delay > 60

Names of columns with spaces or operators are quoted by double quotes or backticks, values by single or double ones; a
quote within is doubled. Bare `null` is the missing cell; a quoted one is text. A missing cell is unequal to nothing: it
satisfies `is null` only. All tests together must hold.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from rowmint.client.values import parse_value, typed_value
from rowmint.errors import ColumnNotFoundError, InvalidConditionError
from rowmint.schema import near_names
from rowmint.v1 import condition_pb2, schema_pb2, value_pb2

Conditions = condition_pb2.Where | Mapping[str, object] | str | Sequence[str] | None
"""Whatever states conditions; None and empty ones accept every row."""

_FORMS = (
    "write: column = value (!=, >, >=, <, <=), column between a and b, column in (a, b), column not in (a, b), column"
    " is null, column is not null, joined by `and`"
)
_NAME = re.compile(r"""\s*(?:"((?:[^"]|"")+)"|`((?:[^`]|``)+)`|([^\s"'`=<>!(),]+))\s*""")
_OPERATOR = re.compile(
    r"(>=|<=|==|=|!=|<>|>|<|is\s+not\s+null\b|is\s+null\b|not\s+in\b|in\b|between\b)\s*", re.IGNORECASE
)
QUOTED = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)\"""")
_AND = re.compile(r"(?:^|(?<=[\s)'\"]))and\b\s*", re.IGNORECASE)


def where_message(where: Conditions, schema: schema_pb2.TableSchema) -> condition_pb2.Where:
    """Return conditions as a message, every value typed as its column.

    Args:
        where: A message (returned as it is), a mapping, a text or several, or None.
        schema: The table's columns.

    Raises:
        ColumnNotFoundError: A column does not exist; near names are given.
        InvalidConditionError: A text is not a condition, or a value is not one of its column's.
    """
    if where is None:
        return condition_pb2.Where()
    if isinstance(where, condition_pb2.Where):
        return where
    if isinstance(where, Mapping):
        return condition_pb2.Where(
            predicates=[_mapped_predicate(schema_column(name, schema), test) for name, test in where.items()]
        )
    return parse_where([where] if isinstance(where, str) else where, schema)


def schema_column(name: str, schema: schema_pb2.TableSchema) -> schema_pb2.ColumnSpec:
    """Return a column by name.

    Raises:
        ColumnNotFoundError: It does not exist; near names are given.
    """
    for column in schema.columns:
        if column.name == name:
            return column
    raise ColumnNotFoundError(name, near_names(name, [column.name for column in schema.columns]))


def _mapped_predicate(column: schema_pb2.ColumnSpec, test: object) -> condition_pb2.Predicate:
    if test is None:
        return condition_pb2.Predicate(column=column.name, is_null=True)
    if isinstance(test, tuple):
        if len(test) != 2 or test == (None, None):
            raise InvalidConditionError(
                f"the range of column {column.name!r} is {test!r}; give (minimum, maximum), one of which may be None",
                metadata={"column": column.name},
            )
        low, high = test
        bounds = condition_pb2.ValueRange(
            minimum=None if low is None else typed_value(low, column),
            maximum=None if high is None else typed_value(high, column),
        )
        return condition_pb2.Predicate(column=column.name, range=bounds)
    if isinstance(test, (list, AbstractSet)):
        # A set has no order of its own: a fixed one keeps equal requests equal.
        members: Collection[object] = test if isinstance(test, list) else sorted(test, key=repr)
        return _any_of(column, [typed_value(member, column) for member in members])
    return condition_pb2.Predicate(column=column.name, equals=typed_value(test, column))


def _any_of(column: schema_pb2.ColumnSpec, values: Sequence[value_pb2.Value]) -> condition_pb2.Predicate:
    if not values:
        raise InvalidConditionError(
            f"column {column.name!r} is tested against an empty list; give at least one",
            metadata={"column": column.name},
        )
    return condition_pb2.Predicate(column=column.name, any_of=condition_pb2.ValueSet(values=values))


def _none_of(column: schema_pb2.ColumnSpec, values: Sequence[value_pb2.Value]) -> condition_pb2.Predicate:
    test = _any_of(column, values).any_of
    return condition_pb2.Predicate(column=column.name, none_of=test)


def parse_where(texts: Sequence[str], schema: schema_pb2.TableSchema) -> condition_pb2.Where:
    """Return the conditions that texts state, one or several tests each.

    A lower and an upper bound of one column become one range.

    Raises:
        ColumnNotFoundError: A column does not exist; near names are given.
        InvalidConditionError: A text is not a condition, or a value is not one of its column's.
    """
    predicates: list[condition_pb2.Predicate] = []
    for text in texts:
        for predicate in _Parser(text, schema).predicates():
            if not _joined(predicates, predicate):
                predicates.append(predicate)
    return condition_pb2.Where(predicates=predicates)


def _joined(predicates: Sequence[condition_pb2.Predicate], new: condition_pb2.Predicate) -> bool:
    """Add the bound in `new` to an earlier range of its column that has only the other one; return whether one had."""
    if new.WhichOneof("test") != "range":
        return False
    lower = new.range.HasField("minimum")
    for old in predicates:
        if old.column != new.column or old.WhichOneof("test") != "range":
            continue
        if lower != old.range.HasField("minimum") and lower == old.range.HasField("maximum"):
            old.range.MergeFrom(new.range)
            return True
    return False


class _Parser:
    """Reads one text of conditions from left to right."""

    def __init__(self, text: str, schema: schema_pb2.TableSchema) -> None:
        self._text = text
        self._schema = schema
        self._at = 0

    def predicates(self) -> Iterator[condition_pb2.Predicate]:
        """Yield the tests in order."""
        yield self._predicate()
        while self._rest.strip():
            joined = _AND.match(self._rest.lstrip())
            if joined is None:
                raise self._error(f"what follows is {self._rest.strip()!r}")
            self._at += len(self._rest) - len(self._rest.lstrip()) + joined.end()
            yield self._predicate()

    @property
    def _rest(self) -> str:
        return self._text[self._at :]

    def _error(self, problem: str = "", **metadata: str) -> InvalidConditionError:
        detail = f": {problem}" if problem else ""
        return InvalidConditionError(f"{self._text!r} is not a condition{detail}; {_FORMS}", metadata=metadata)

    def _predicate(self) -> condition_pb2.Predicate:
        name, operator = self._start()
        column = schema_column(name, self._schema)
        match operator:
            case "is null" | "is not null":
                return condition_pb2.Predicate(column=column.name, is_null=operator == "is null")
            case "in":
                return _any_of(column, self._list(column))
            case "not in":
                return _none_of(column, self._list(column))
            case "between":
                return self._between(column)
        value = self._operand(column)
        missing = value.WhichOneof("kind") == "null_value"
        match operator:
            case "=" | "==":
                if missing:
                    return condition_pb2.Predicate(column=column.name, is_null=True)
                return condition_pb2.Predicate(column=column.name, equals=value)
            case "!=" | "<>":
                if missing:
                    return condition_pb2.Predicate(column=column.name, is_null=False)
                return _none_of(column, [value])
        if missing:
            raise self._error("it compares with a missing cell", column=name)
        bounds = condition_pb2.ValueRange()
        if operator.startswith(">"):
            bounds.minimum.CopyFrom(value)
            bounds.minimum_exclusive = operator == ">"
        else:
            bounds.maximum.CopyFrom(value)
            bounds.maximum_exclusive = operator == "<"
        return condition_pb2.Predicate(column=column.name, range=bounds)

    def _start(self) -> tuple[str, str]:
        """Read the name of a column and an operator, which is returned in lower case with single spaces."""
        found = _named_operator(self._rest)
        if found is None:
            raise self._error(self._unquoted_name())
        name, operator, length = found
        self._at += length
        return name, operator

    def _unquoted_name(self) -> str:
        """Return what to write where the text begins with the name of a column that has to be quoted; or nothing."""
        rest = self._rest.strip()
        for column in sorted(self._schema.columns, key=lambda one: -len(one.name)):
            if rest.startswith(column.name):
                quoted = column.name.replace('"', '""')
                return f'the column\'s name has to be quoted: "{quoted}"{rest[len(column.name) :]}'
        return ""

    def _between(self, column: schema_pb2.ColumnSpec) -> condition_pb2.Predicate:
        low = self._operand(column, until_and=True)
        joined = _AND.match(self._rest.lstrip())
        if joined is None:
            raise self._error("between needs two values, joined by `and`", column=column.name)
        self._at += len(self._rest) - len(self._rest.lstrip()) + joined.end()
        high = self._operand(column)
        if "null_value" in {low.WhichOneof("kind"), high.WhichOneof("kind")}:
            raise self._error("it compares with a missing cell", column=column.name)
        return condition_pb2.Predicate(column=column.name, range=condition_pb2.ValueRange(minimum=low, maximum=high))

    def _operand(self, column: schema_pb2.ColumnSpec, *, until_and: bool = False) -> value_pb2.Value:
        """Read one value: quoted, or everything up to the next condition, or to the next `and`."""
        quoted = QUOTED.match(self._rest)
        if quoted is not None:
            self._at += quoted.end()
            return quoted_value(quoted, column)
        rest = self._rest
        end = len(rest)
        for joined in _AND.finditer(rest):
            # An `and` within a value is followed by no operator: "Research and Development".
            if until_and or _named_operator(rest[joined.end() :]) is not None:
                end = joined.start()
                break
        bare = rest[:end].strip()
        if not bare or bare[0] in "'\"=<>":
            raise self._error("a value is missing or its quotes")
        self._at += end
        return bare_value(bare, column)

    def _list(self, column: schema_pb2.ColumnSpec) -> list[value_pb2.Value]:
        """Read values in parentheses, separated by commas."""
        if not self._rest.startswith("("):
            raise self._error("put the values in parentheses")
        self._at += 1
        values = []
        while True:
            self._at += len(self._rest) - len(self._rest.lstrip())
            quoted = QUOTED.match(self._rest)
            if quoted is not None:
                values.append(quoted_value(quoted, column))
                self._at += quoted.end()
            else:
                bare = re.split(r"[,)]", self._rest, maxsplit=1)[0]
                if not bare.strip() or bare.strip()[0] in "'\"":
                    raise self._error("a value is missing or its quotes")
                values.append(bare_value(bare.strip(), column))
                self._at += len(bare)
            remaining = self._rest.lstrip()
            self._at = len(self._text) - len(remaining) + 1
            if remaining.startswith(")"):
                return values
            if not remaining.startswith(","):
                raise self._error("put commas between values, and a parenthesis after them")


def _named_operator(text: str) -> tuple[str, str, int] | None:
    """Return the name and the operator that a text begins with, and their length; None where it does not."""
    name = _NAME.match(text)
    operator = None if name is None else _OPERATOR.match(text, name.end())
    if name is None or operator is None:
        return None
    quoted = (name[1] or "").replace('""', '"') or (name[2] or "").replace("``", "`") or name[3]
    return quoted, " ".join(operator[1].lower().split()), operator.end()


def quoted_value(match: re.Match[str], column: schema_pb2.ColumnSpec) -> value_pb2.Value:
    """Return what `QUOTED` matched as a cell of a column; errors as of `parse_value`."""
    text = match[2].replace('""', '"') if match[1] is None else match[1].replace("''", "'")
    return parse_value(text, column)


def bare_value(operand: str, column: schema_pb2.ColumnSpec) -> value_pb2.Value:
    """Return an operand without quotes as a cell of a column, `null` as a missing one; errors as of `parse_value`."""
    if operand.lower() == "null":
        return value_pb2.Value(null_value=True)
    return parse_value(operand, column)
