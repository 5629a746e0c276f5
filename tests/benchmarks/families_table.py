"""The table of families side by side, of what `engine` measured."""

import statistics
from collections.abc import Callable
from typing import Any

from tests.benchmarks.page import spread

_NONE = "-"
CONDITION_NAMES = {
    "doctorate": "`education = Doctorate`",
    "germany": "`native-country = Germany`",
    "doctorate_black": "Doctorate and Black",
    "range_and_category": "`age >= 55` and Black",
    "range_and_two_categories": "`age >= 55`, Black and Female",
}

Runs = list[dict[str, Any]]


def _each(name: str, digits: int) -> Callable[[Runs], str]:
    def shown(runs: Runs) -> str:
        values = [run[name] for run in runs if name in run]
        return spread(values, digits) if values else _NONE

    return shown


def _with_error(name: str, error: str) -> Callable[[Runs], str]:
    """A mean over runs with the least and the greatest, and the greatest standard error of one."""

    def shown(runs: Runs) -> str:
        if any(name not in run for run in runs):
            return _NONE
        return f"{spread([run[name] for run in runs], 3)} ± {max(run[error] for run in runs):.3f}"

    return shown


def _distance(runs: Runs) -> str:
    if any("distance" not in run for run in runs):
        return _NONE
    return f"{spread([run['distance'] for run in runs], 4)}; hold-out {runs[0]['holdout_distance']:.4f}"


_MEASURES: dict[str, Callable[[Runs], str]] = {
    "fit, seconds": _each("fit_seconds", 1),
    "quality": _each("quality", 4),
    "column shapes": _each("shapes", 4),
    "column pair trends": _each("pairs", 4),
    "worst column shape": _each("worst_shape", 4),
    "AUC": _each("auc", 4),
    "F1": _each("f1", 3),
    "C2ST AUC, 0.5 is ideal": _with_error("c2st", "c2st_error"),
    "log-likelihood of a test row, nats": _each("log_likelihood", 3),
    "test rows that it never makes": _each("impossible", 4),
    "share nearer to training than to test rows": _with_error("nearer", "nearer_error"),
    "distance to the nearest training row, median": _distance,
    "AUC of P(income \\| rest)": _each("predicted_auc", 4),
    "F1 of P(income \\| rest)": _each("predicted_f1", 3),
    "CompleteRows, rows/s, 14 of 15 cells known": _each("completion_rate", 0),
    "ScoreRows, rows/s": _each("score_rate", 0),
}


def _long_rate(cells: list[dict[str, Any]]) -> str:
    """The rate of the longest stream of independent rows."""
    cell = max((cell for cell in cells if cell["max_reuse"] == 1), key=lambda cell: cell["rows"])
    return f"{cell['rate']:,.0f}"


def _first_rows(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f}; {1000 * max(seconds):.0f}"


def lines(found: dict[str, Any]) -> list[str]:
    families, sdv = list(found["fits"]), found.get("sdv", {})
    heads = ["what", *(f"`{family}`" for family in families), *(f"SDV {peer.upper()}" for peer in sdv), "real rows"]
    text = [
        f"Machine: {found['machine']['processor']}, {found['machine']['cores']} cores.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]

    def row(what: str, ours: list[str], theirs: list[str], real: str = "") -> None:
        text.append(f"| {' | '.join([what, *ours, *theirs, real])} |")

    for what, shown in _MEASURES.items():
        real = shown([found["real"]])
        row(what, [shown(found["fits"][family]) for family in families], [shown([sdv[peer]]) for peer in sdv],
            "" if real == _NONE else real)  # fmt: skip
    rates = [found["rates"].get(family) for family in families]

    def rated(shown: Callable[[dict[str, Any]], str]) -> list[str]:
        return [_NONE if own is None else shown(own) for own in rates]

    theirs = [f"{sdv[peer]['rows_per_second']:,.0f}" for peer in sdv]
    row("rows/s, all rows", rated(lambda own: f"{own['all']:,.0f}"), theirs)
    for name, what in CONDITION_NAMES.items():
        theirs = [f"{sdv[peer][name]['rows_per_second']:,.0f}" if name in sdv[peer] else "not offered" for peer in sdv]
        where = f"rows/s, {what} ({found['shares'][name]:.4f} of the rows)"
        row(where, rated(lambda own, name=name: _long_rate(own[name])), theirs)
    row("new conditions to first rows, ms: median; most", rated(lambda own: _first_rows(own["first_row"])),
        [_NONE for _ in sdv])  # fmt: skip
    return text
