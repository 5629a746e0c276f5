"""Shares of a column's values among the rows, as people write them, as `rowmint.v1.ColumnWeights`.

A mapping gives each of some values its share, relative to the others'; what has none never occurs::

    {"income": {"<=50K": 50, ">50K": 50}}
    {"age": {(None, 30): 1, (30, 60): 2, (60, None): 1}}
    {"carrier": {frozenset({"AA", "UA"}): 3, "DL": 2, None: 1}}

a scalar for a value, a frozen set for several, None for a missing cell, a pair for a range with None for no bound. A
text says the same::

    income = <=50K:50, >50K:50        age = ..30:1, 30..60:2, 60..:1        carrier = AA|UA:3, DL:2, null:1

A range begins with its lower bound and ends before its upper one, so that neighbours share a bound and no value. In
texts, names and values are quoted as in conditions: a value with a comma, `|`, `..` or a colon in single or double
quotes. Bare `null` is the missing cell.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from rowmint.client.values import typed_value
from rowmint.client.where import QUOTED, bare_value, quoted_value, schema_column
from rowmint.errors import InvalidConditionError
from rowmint.rpc.converters import kind_from_proto
from rowmint.schema import ColumnKind
from rowmint.v1 import condition_pb2, schema_pb2, value_pb2

Weights = Mapping[str, Mapping[object, float]] | str | Sequence[str] | None
"""Whatever states weights; None and empty ones state none."""

_FORMS = "write: column = value:share, value|value:share, low..high:share, null:share"
_NAME = re.compile(r"""\s*(?:"((?:[^"]|"")+)"|`((?:[^`]|``)+)`|([^"`=]*[^"`=\s]))\s*=\s*""")
_ORDERED = {ColumnKind.NUMERICAL, ColumnKind.DATETIME}


def weights_messages(weights: Weights, schema: schema_pb2.TableSchema) -> list[condition_pb2.ColumnWeights]:
    """Return weights as messages, one a column, every value typed as its column.

    Args:
        weights: A mapping, a text or several, or None.
        schema: The table's columns.

    Raises:
        ColumnNotFoundError: A column does not exist; near names are given.
        InvalidConditionError: A text does not state weights, a value is not one of its column's, or a share is not a
            positive number.
    """
    if not weights:
        return []
    if isinstance(weights, Mapping):
        return [_mapped(schema_column(name, schema), shares) for name, shares in weights.items()]
    return [_Parser(text, schema).weights() for text in ([weights] if isinstance(weights, str) else weights)]


def _mapped(column: schema_pb2.ColumnSpec, shares: Mapping[object, float]) -> condition_pb2.ColumnWeights:
    if not isinstance(shares, Mapping):
        raise InvalidConditionError(
            f"the weights of column {column.name!r} are {shares!r}; give a mapping of values to shares",
            metadata={"column": column.name},
        )
    entries = []
    for values, share in shares.items():
        entry = condition_pb2.WeightedValues(share=_share(share, column))
        if values is None:
            entry.is_null = True
        elif isinstance(values, tuple):
            if len(values) != 2 or values == (None, None):
                raise InvalidConditionError(
                    f"a range of column {column.name!r} is {values!r}; give (minimum, maximum), one of which may be"
                    " None",
                    metadata={"column": column.name},
                )
            low, high = (None if bound is None else typed_value(bound, column) for bound in values)
            entry.range.CopyFrom(_range(low, high))
        else:
            members = sorted(values, key=repr) if isinstance(values, frozenset) else [values]
            entry.any_of.values.extend(typed_value(member, column) for member in members)
        entries.append(entry)
    return condition_pb2.ColumnWeights(column=column.name, entries=entries)


def _share(share: object, column: schema_pb2.ColumnSpec) -> float:
    try:
        number = float(share)  # type: ignore[arg-type]  # it raises where it is not a number
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise InvalidConditionError(
            f"a share of column {column.name!r} is {share!r}; it must be a positive number",
            metadata={"column": column.name},
        )
    return number


def _range(low: value_pb2.Value | None, high: value_pb2.Value | None) -> condition_pb2.ValueRange:
    return condition_pb2.ValueRange(minimum=low, maximum=high, maximum_exclusive=high is not None)


class _Parser:
    """Reads the weights of one column from a text, from left to right."""

    def __init__(self, text: str, schema: schema_pb2.TableSchema) -> None:
        self._text = text
        name = _NAME.match(text)
        if name is None:
            raise self._error("it begins with no column")
        quoted = (name[1] or "").replace('""', '"') or (name[2] or "").replace("``", "`") or name[3]
        self._column = schema_column(quoted, schema)
        kind = kind_from_proto(self._column.kind, f"schema.{quoted}.kind")
        self._ordered = kind in _ORDERED
        self._at = name.end()

    def weights(self) -> condition_pb2.ColumnWeights:
        return condition_pb2.ColumnWeights(column=self._column.name, entries=self._entries())

    def _error(self, problem: str) -> InvalidConditionError:
        return InvalidConditionError(f"{self._text!r} does not state weights: {problem}; {_FORMS}")

    def _entries(self) -> Iterator[condition_pb2.WeightedValues]:
        while True:
            yield self._entry()
            if self._at >= len(self._text):
                return
            self._at += 1  # the comma

    def _entry(self) -> condition_pb2.WeightedValues:
        """Read values and their share, up to the comma after them or the end."""
        values: list[value_pb2.Value] = []
        while True:
            operand, share = self._operand()
            ranged = self._ordered and isinstance(operand, str) and ".." in operand
            if ranged and (values or share is None):
                raise self._error("a range stands alone")
            if not ranged:
                values.append(bare_value(operand, self._column) if isinstance(operand, str) else operand)
            if share is not None:
                break
        entry = condition_pb2.WeightedValues(share=_share(share.removesuffix("%"), self._column))
        if ranged and isinstance(operand, str):
            entry.range.CopyFrom(self._bounds(operand))
        elif len(values) == 1 and values[0].WhichOneof("kind") == "null_value":
            entry.is_null = True
        else:
            entry.any_of.values.extend(values)
        return entry

    def _operand(self) -> tuple[str | value_pb2.Value, str | None]:
        """Read one operand, as a text where it is not quoted, and the share after it, None where a `|` follows."""
        self._at += len(self._text[self._at :]) - len(self._text[self._at :].lstrip())
        quoted = QUOTED.match(self._text, self._at)
        begin = self._at if quoted is None else quoted.end()
        self._at = next((at for at in range(begin, len(self._text)) if self._text[at] in ",|"), len(self._text))
        rest = self._text[begin : self._at].strip()
        share = None
        if self._text[self._at : self._at + 1] == "|":
            self._at += 1
        else:
            rest, colon, share = rest.rpartition(":")
            if not colon or not share.strip():
                raise self._error("a value has no share")
        if quoted is not None:
            if rest.strip():
                raise self._error(f"{rest.strip()!r} follows a quoted value")
            return quoted_value(quoted, self._column), share
        if not rest.strip():
            raise self._error("a value is missing")
        return rest.strip(), share

    def _bounds(self, operand: str) -> condition_pb2.ValueRange:
        low, _, high = (part.strip() for part in operand.partition(".."))
        if not low and not high:
            raise self._error("a range has no bound")
        bounds = [bare_value(bound, self._column) if bound else None for bound in (low, high)]
        if any(bound is not None and bound.WhichOneof("kind") == "null_value" for bound in bounds):
            raise self._error("a range is bounded by a missing cell")
        return _range(*bounds)
