"""Figures of flights that a person would check, of real ones and of those that models made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

_TIMES = ("dep_time", "sched_dep_time", "arr_time", "sched_arr_time")
_NUMBERS = (*_TIMES, "hour", "dep_delay", "arr_delay", "distance")
_TEXTS = ("origin", "dest", "carrier")
_COMMONEST = 5


@dataclass(frozen=True)
class Figure:
    """One figure of some flights.

    Attributes:
        name: What it is.
        value: Its value; None where no flight has the cells that it rests on.
        is_share: Whether it is a share, 0 to 1.
    """

    name: str
    value: float | None
    is_share: bool = False

    @property
    def text(self) -> str:
        """The value for people."""
        if self.value is None:
            return "-"
        return f"{self.value:.1%}" if self.is_share else f"{self.value:,.1f}".removesuffix(".0")


def read_flights(file: IO[bytes]) -> pa.Table:
    """Return the columns of a CSV of flights that figures are made of: texts, and numbers as float64."""
    types = dict.fromkeys(_TEXTS, pa.string()) | dict.fromkeys(_NUMBERS, pa.float64())
    options = pa_csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True)
    return pa_csv.read_csv(file, convert_options=options)


def delayed_from_jfk(flights: pa.Table) -> pa.Table:
    """Return the flights that satisfy the demo's conditions: from JFK, more than 60 minutes late."""
    return flights.filter(pc.and_kleene(pc.equal(flights["origin"], "JFK"), pc.greater(flights["dep_delay"], 60.0)))


def shares(column: pa.ChunkedArray) -> dict[str, float]:
    """Return the share of each text among the present cells, commonest first."""
    counts = pc.value_counts(column.drop_null())
    total = sum(entry["counts"].as_py() for entry in counts)
    found = {entry["values"].as_py(): entry["counts"].as_py() / total for entry in counts}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class FigureChoice:
    """Which values of a column have a figure of their own: the commonest of the real flights.

    Attributes:
        carriers: Of `carrier`.
        destinations: Of `dest`.
    """

    carriers: Sequence[str]
    destinations: Sequence[str]

    @classmethod
    def of(cls, real: pa.Table) -> "FigureChoice":
        """Return the commonest values of real flights."""
        return cls(list(shares(real["carrier"]))[:_COMMONEST], list(shares(real["dest"]))[:_COMMONEST])

    def figures(self, flights: pa.Table, delayed: pa.Table) -> list[Figure]:
        """Return the figures, in the order in which they are shown.

        Args:
            flights: Flights without conditions, as `read_flights` reads them.
            delayed: Flights that satisfy the demo's conditions.
        """
        carriers, distances = shares(flights["carrier"]), _mean_by(flights, "dest", "distance")
        return [
            Figure("mean arr_delay of the flights that satisfy the conditions", pc.mean(delayed["arr_delay"]).as_py()),
            *(Figure(f"share of carrier {name}", carriers.get(name, 0.0), is_share=True) for name in self.carriers),
            *(Figure(f"mean distance to {name}", distances.get(name)) for name in self.destinations),
            Figure("hour is that of sched_dep_time", _same_hour(flights), is_share=True),
            Figure("clock times that are none, such as 2096", _no_times(flights), is_share=True),
            Figure("routes with two distances", _odd_routes(flights)),
        ]


def _mean_by(flights: pa.Table, by: str, of: str) -> Mapping[str, float]:
    found = flights.group_by(by).aggregate([(of, "mean")])
    return dict(zip(found[by].to_pylist(), found[f"{of}_mean"].to_pylist(), strict=True))


def _same_hour(flights: pa.Table) -> float | None:
    """Return the share of flights whose hour is that of the scheduled departure, which is written as HHMM."""
    share: float | None = pc.mean(
        pc.equal(flights["hour"], pc.floor(pc.divide(flights["sched_dep_time"], 100)))
    ).as_py()
    return share


def _no_times(flights: pa.Table) -> float | None:
    """Return the share of clock times, written as HHMM, of 60 minutes or more or more than 24 hours."""
    times = pa.chunked_array([chunk for name in _TIMES for chunk in flights[name].chunks]).drop_null()
    hours = pc.floor(pc.divide(times, 100))
    minutes = pc.subtract(times, pc.multiply(hours, 100))
    share: float | None = pc.mean(pc.or_(pc.greater_equal(minutes, 60), pc.greater(hours, 24))).as_py()
    return share


def _odd_routes(flights: pa.Table) -> float:
    """Return how many routes, pairs of airports, have more than one distance."""
    found = flights.group_by(["origin", "dest"]).aggregate([("distance", "count_distinct")])
    return float(pc.sum(pc.greater(found["distance_count_distinct"], 1)).as_py() or 0)
