"""Writes the tables of `docs/benchmarks.md` from what `engine` measured; the text around them is kept."""

import statistics
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NAMES = {
    "doctorate": "`education = Doctorate`",
    "germany": "`native-country = Germany`",
    "doctorate_black": "Doctorate and Black",
    "range_and_category": "`age >= 55` and Black",
}


def spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.mean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


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

    for family, runs in found["fits"].items():
        sdv = found["sdv"][family]

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
        for name, what in NAMES.items():
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
    """Put the tables between the marks of the page."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines(found)) + f"\n{END}{after}")
    print(f"wrote {PAGE}")
