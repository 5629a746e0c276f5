"""Converters of conditions and weights. Pure."""

from rowmint.conditions import AnyOf, IsNull, NoneOf, Predicate, Range, Test, WeightedTest, Weights
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
            test = _range(predicate.range, f"{field}.range")
        case "is_null":
            test = IsNull(predicate.is_null)
        case _:
            raise InvalidFieldError(field, f"has no test of column {predicate.column!r}; set one")
    return Predicate(predicate.column, test)


def weights_from_proto(where: condition_pb2.Where, field: str = "where") -> Weights | None:
    """Return the weights of a `Where`, None where there are none. `InvalidFieldError` names a path under `field`."""
    if not where.weights:
        return None
    if len(where.weights) > 1:
        columns = ", ".join(repr(one.column) for one in where.weights)
        raise InvalidFieldError(f"{field}.weights", f"are of {columns}; one column of a request may have weights")
    (weights,) = where.weights
    path = f"{field}.weights[0]"
    if not weights.column:
        raise InvalidFieldError(f"{path}.column", "is required")
    entries = [_weighted(entry, f"{path}.entries[{index}]") for index, entry in enumerate(weights.entries)]
    return Weights(weights.column, tuple(entries))


def _weighted(entry: condition_pb2.WeightedValues, field: str) -> WeightedTest:
    match entry.WhichOneof("test"):
        case "any_of":
            return WeightedTest(AnyOf(_values(entry.any_of, f"{field}.any_of")), entry.share)
        case "range":
            return WeightedTest(_range(entry.range, f"{field}.range"), entry.share)
        case "is_null":
            return WeightedTest(IsNull(entry.is_null), entry.share)
        case _:
            raise InvalidFieldError(field, "has no test; set one")


def _range(bounds: condition_pb2.ValueRange, field: str) -> Range:
    return Range(
        bound_from_proto(bounds, "minimum", field),
        bound_from_proto(bounds, "maximum", field),
        bounds.minimum_exclusive,
        bounds.maximum_exclusive,
    )


def _values(message: condition_pb2.ValueSet, field: str) -> tuple[Cell, ...]:
    return tuple(value_to_cell(value, f"{field}.values[{index}]") for index, value in enumerate(message.values))
