"""Converters of conditions. Pure."""

from rowmint.conditions import AnyOf, IsNull, NoneOf, Predicate, Range, Test
from rowmint.errors import InvalidFieldError
from rowmint.rpc.converters import bound_from_proto
from rowmint.rpc.values import value_to_cell
from rowmint.schema import Cell
from rowmint.v1 import condition_pb2


def predicates_from_proto(where: condition_pb2.Where, field: str = "where") -> list[Predicate]:
    """Return the predicates of a `Where`. `InvalidFieldError` names a path under `field`."""
    return [_predicate(predicate, f"{field}.predicates[{index}]") for index, predicate in enumerate(where.predicates)]


def _predicate(predicate: condition_pb2.Predicate, field: str) -> Predicate:
    if not predicate.column:
        raise InvalidFieldError(f"{field}.column", "is required")
    test: Test
    match predicate.WhichOneof("test"):
        case "equals":
            test = AnyOf((value_to_cell(predicate.equals, f"{field}.equals"),))
        case "any_of":
            test = AnyOf(_values(predicate.any_of, f"{field}.any_of"))
        case "none_of":
            test = NoneOf(_values(predicate.none_of, f"{field}.none_of"))
        case "range":
            bounds = predicate.range
            test = Range(
                bound_from_proto(bounds, "minimum", f"{field}.range"),
                bound_from_proto(bounds, "maximum", f"{field}.range"),
                bounds.minimum_exclusive,
                bounds.maximum_exclusive,
            )
        case "is_null":
            test = IsNull(predicate.is_null)
        case _:
            raise InvalidFieldError(field, f"has no test of column {predicate.column!r}; set one")
    return Predicate(predicate.column, test)


def _values(message: condition_pb2.ValueSet, field: str) -> tuple[Cell, ...]:
    return tuple(value_to_cell(value, f"{field}.values[{index}]") for index, value in enumerate(message.values))
