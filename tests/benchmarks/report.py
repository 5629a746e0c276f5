"""Writes the tables of `docs/benchmarks.md` from what `engine` measured; the text around them is kept."""

import statistics
from typing import Any

from tests.benchmarks import families_table
from tests.benchmarks.families_table import CONDITION_NAMES
from tests.benchmarks.page import put, spread
from tests.benchmarks.sdv_baseline import PEERS


def lines(found: dict[str, Any]) -> list[str]:
    about = found["machine"]
    text = [
        (
            f"Machine: {about['processor']}, {about['cores']} cores. Python {about['python']}, torch {about['torch']},"
            f" NumPy {about['numpy']}; SDV {about['sdv']}, ctgan {about['ctgan']}, SDMetrics {about['sdmetrics']}."
        ),
        "",
        "| what | family | SDV | ours | ratio | distinct candidates |",
        "|---|---|---|---|---|---|",
    ]

    def row(what: str, family: str, *measured: str) -> None:
        theirs, ours, ratio, distinct = (*measured, "", "")[:4]
        text.append(f"| {what} | {family} | {theirs} | {ours} | {ratio} | {distinct} |")

    for family in PEERS:
        runs, sdv = found["fits"][family], found["sdv"][family]

        def each(name: str, runs: list[dict[str, Any]] = runs) -> list[float]:
            return [run[name] for run in runs]

        fit, step = statistics.mean(each("fit_seconds")), statistics.mean(each("first_step_seconds"))
        row("fit, seconds", family, f"{sdv['fit_seconds']:.0f}", spread(each("fit_seconds"), 0),
            f"{sdv['fit_seconds'] / fit:.1f} times faster")  # fmt: skip
        row("READY to first step, seconds", family, f"{sdv['first_step_seconds']:.1f}",
            spread(each("first_step_seconds"), 2), f"{sdv['first_step_seconds'] / step:.1f} times less")  # fmt: skip
        row("job accepted to first epoch, seconds", family, "-", spread(each("first_epoch_seconds"), 2))
        for name, what in (("quality", "quality"), ("worst_shape", "worst column shape"), ("auc", "AUC"), ("f1", "F1")):
            row(what, family, f"{sdv[name]:.3f}", spread(each(name), 4))
        own = found["rates"][family]
        row("rows/s, all rows", family, f"{sdv['rows_per_second']:,.0f}", f"{own['all']:,.0f}",
            f"{own['all'] / sdv['rows_per_second']:.1f}")  # fmt: skip
        for name, what in CONDITION_NAMES.items():
            theirs = sdv.get(name)
            reported = "not offered" if theirs is None else f"{theirs['rows_per_second']:,.0f}"
            if theirs is not None and theirs["delivered"] < theirs["requested"]:
                reported += f" ({theirs['delivered']} of {theirs['requested']} delivered)"
            base = theirs["rows_per_second"] if theirs else 0
            for cell in own[name]:
                reuse = f", max_reuse {cell['max_reuse']}" if cell["max_reuse"] > 1 else ""
                row(
                    f"rows/s, {what}, {cell['rows']:,} rows{reuse}",
                    family,
                    reported,
                    f"{cell['rate']:,.0f}",
                    f"{cell['rate'] / base:,.0f}" if base else "",
                    f"{cell['distinct']:,}",
                )
    held = found["resident"]
    text += [
        "",
        "| what | measured |",
        "|---|---|",
        f"| sampler: process start to first row, store warm | {found['startup_seconds']:.2f} s |",
        (
            f"| sampler: resident (RssAnon + RssShmem) with no model, with {held['models']} | {held['bare']:.0f} MB,"
            f" {held['full']:.0f} MB |"
        ),
        f"| trainer: peak over all processes, {found['large']['rows']:,} rows x 15 | {found['large']['peak']:.0f} MB |",
        f"| {found['large']['rows']:,} rows: READY to first step | {found['large']['first_step_seconds']:.0f} s |",
    ]
    return text


def write(found: dict[str, Any]) -> None:
    """Put the tables between the marks of the page: that of the families, and with all of them that beside SDV."""
    put("families", families_table.lines(found))
    if "large" in found and set(PEERS) <= found["sdv"].keys() & found["fits"].keys():
        put("measured", lines(found))
