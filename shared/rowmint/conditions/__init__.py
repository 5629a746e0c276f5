"""Conditions on rows: canonical form, validation against a schema, evaluation on columns.

A condition is the AND of predicates. `canonical` intersects all predicates on a column into one `ColumnCondition` in
the column's native scale, so that two ways to say the same thing give the same JSON (`ColumnCondition.to_json`) and so
the same plan. A value is first brought to the column's type: a decimal given for a double column means its nearest
float64, and a float given for a decimal column the decimal number that it prints as.

Weights give values of one column their shares among the rows; `canonical_weights` brings them to the same scale.
"""

from rowmint.conditions.canonical import canonical, canonical_steps
from rowmint.conditions.column_condition import ColumnCondition, Interval
from rowmint.conditions.predicate import MAX_PREDICATES, MAX_VALUES, AnyOf, IsNull, NoneOf, Predicate, Range, Test
from rowmint.conditions.weights import (
    MAX_WEIGHTS,
    ColumnWeights,
    WeightedCondition,
    WeightedTest,
    Weights,
    canonical_weights,
    weights_steps,
)

__all__ = [
    "MAX_PREDICATES",
    "MAX_VALUES",
    "MAX_WEIGHTS",
    "AnyOf",
    "ColumnCondition",
    "ColumnWeights",
    "Interval",
    "IsNull",
    "NoneOf",
    "Predicate",
    "Range",
    "Test",
    "WeightedCondition",
    "WeightedTest",
    "Weights",
    "canonical",
    "canonical_steps",
    "canonical_weights",
    "weights_steps",
]
