"""Conditions as people write them, Python mappings and texts, as `rowmint.v1.Where`.

A mapping gives one test a column::

    {"origin": "JFK", "dep_delay": (60, None), "carrier": ["AA", "UA"], "tailnum": None}

a scalar for equal, a list or set for one of, a pair for an inclusive range with None for no bound, None for missing.

A text gives one test::

    origin = JFK            dep_delay > 60          dep_delay <= 90         carrier in (AA, 'U,A')
    tailnum is null         tailnum is not null     "my column" = 'it''s'

Bare `null` is the missing cell; a quoted one is text. All tests together must hold.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

from rowmint.client.values import parse_value, typed_value
from rowmint.errors import ColumnNotFoundError, InvalidConditionError
from rowmint.schema import near_names
from rowmint.v1 import condition_pb2, schema_pb2, value_pb2

Conditions = condition_pb2.Where | Mapping[str, object] | str | Sequence[str] | None
"""Whatever states conditions; None and empty ones accept every row."""

_FORMS = (
    "write one of: column = value, column > value (>=, <, <=), column in (a, b), column is null, column is not null"
)
_COLUMN = re.compile(r"""\s*(?:"((?:[^"]|"")+)"|([^\s"'=<>!(),]+))\s*""")
_OPERATOR = re.compile(r"(>=|<=|==|=|>|<|is\s+not\s+null\s*$|is\s+null\s*$|in\b)\s*", re.IGNORECASE)
_QUOTED = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)\"""")


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
            predicates=[_mapped_predicate(_column(name, schema), test) for name, test in where.items()]
        )
    return parse_where([where] if isinstance(where, str) else where, schema)


def _column(name: str, schema: schema_pb2.TableSchema) -> schema_pb2.ColumnSpec:
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


def parse_where(texts: Sequence[str], schema: schema_pb2.TableSchema) -> condition_pb2.Where:
    """Return the conditions that texts state, one test each.

    A lower and an upper bound of one column become one range.

    Raises:
        ColumnNotFoundError: A column does not exist; near names are given.
        InvalidConditionError: A text is not a condition, or a value is not one of its column's.
    """
    predicates: list[condition_pb2.Predicate] = []
    for text in texts:
        predicate = _parse_predicate(text, schema)
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


def _parse_predicate(text: str, schema: schema_pb2.TableSchema) -> condition_pb2.Predicate:
    name_match = _COLUMN.match(text)
    if name_match is None:
        raise InvalidConditionError(f"{text!r} is not a condition; {_FORMS}")
    name = name_match[2] if name_match[1] is None else name_match[1].replace('""', '"')
    operator_match = _OPERATOR.match(text, name_match.end())
    if operator_match is None:
        hint = "; there is no `not equal`" if text[name_match.end() :].startswith(("!", "<>")) else ""
        raise InvalidConditionError(f"{text!r} is not a condition{hint}; {_FORMS}")
    column = _column(name, schema)
    operator = " ".join(operator_match[1].lower().split())
    rest = text[operator_match.end() :].strip()
    if operator.startswith("is"):
        return condition_pb2.Predicate(column=column.name, is_null=operator == "is null")
    if operator == "in":
        return _any_of(column, _parse_list(rest, text, column))
    value = _parse_operand(rest, text, column)
    if operator in ("=", "=="):
        if value.WhichOneof("kind") == "null_value":
            return condition_pb2.Predicate(column=column.name, is_null=True)
        return condition_pb2.Predicate(column=column.name, equals=value)
    if value.WhichOneof("kind") == "null_value":
        raise InvalidConditionError(f"{text!r} compares with a missing cell; {_FORMS}", metadata={"column": name})
    bounds = condition_pb2.ValueRange()
    if operator.startswith(">"):
        bounds.minimum.CopyFrom(value)
        bounds.minimum_exclusive = operator == ">"
    else:
        bounds.maximum.CopyFrom(value)
        bounds.maximum_exclusive = operator == "<"
    return condition_pb2.Predicate(column=column.name, range=bounds)


def _unquoted(match: re.Match[str]) -> str:
    return match[2].replace('""', '"') if match[1] is None else match[1].replace("''", "'")


def _parse_operand(operand: str, text: str, column: schema_pb2.ColumnSpec) -> value_pb2.Value:
    """Return one operand: quoted, or everything that is left."""
    quoted = _QUOTED.fullmatch(operand)
    if quoted is not None:
        return parse_value(_unquoted(quoted), column)
    if not operand or operand[0] in "'\"=<>":
        raise InvalidConditionError(f"{text!r} is not a condition: a value is missing or its quotes; {_FORMS}")
    return _bare(operand, column)


def _bare(operand: str, column: schema_pb2.ColumnSpec) -> value_pb2.Value:
    if operand.lower() == "null":
        return value_pb2.Value(null_value=True)
    return parse_value(operand, column)


def _parse_list(rest: str, text: str, column: schema_pb2.ColumnSpec) -> list[value_pb2.Value]:
    if not (rest.startswith("(") and rest.endswith(")")):
        raise InvalidConditionError(f"{text!r} is not a condition: put the values in parentheses; {_FORMS}")
    body = rest[1:-1]
    values = []
    position = 0
    while True:
        position += len(body[position:]) - len(body[position:].lstrip())
        quoted = _QUOTED.match(body, position)
        if quoted is not None:
            values.append(parse_value(_unquoted(quoted), column))
            position = quoted.end()
        else:
            end = body.find(",", position)
            end = len(body) if end < 0 else end
            bare = body[position:end].strip()
            if not bare or bare[0] in "'\"":
                raise InvalidConditionError(f"{text!r} is not a condition: a value is missing or its quotes; {_FORMS}")
            values.append(_bare(bare, column))
            position = end
        remaining = body[position:].lstrip()
        if not remaining:
            return values
        if not remaining.startswith(","):
            raise InvalidConditionError(f"{text!r} is not a condition: put commas between values; {_FORMS}")
        position = len(body) - len(remaining) + 1
