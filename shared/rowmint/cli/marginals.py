"""Marginals of two tables, side by side: shares of categories, means, quantiles and missing cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Marginal:
    """One measure of one column in both tables.

    Attributes:
        column: The column.
        measure: What is measured, such as `share of B6` or `median`.
        real: In the real table; None where the column has no present cell.
        synthetic: In the synthetic table, likewise.
        is_share: Whether it is a share, 0 to 1.
    """

    column: str
    measure: str
    real: float | None
    synthetic: float | None
    is_share: bool

    @staticmethod
    def _text(value: float | None, is_share: bool) -> str:
        if value is None:
            return "-"
        return f"{value:.1%}" if is_share else f"{value:,.1f}"

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """The measure as cells of a table for people."""
        real, synthetic = (self._text(value, self.is_share) for value in (self.real, self.synthetic))
        return self.column, self.measure, real, synthetic


def shares(column: pa.ChunkedArray) -> dict[str, float]:
    """Return the share of each category among the present cells, commonest first."""
    counts = pc.value_counts(column.cast(pa.string()).drop_null())
    total = sum(entry["counts"].as_py() for entry in counts)
    found = {entry["values"].as_py(): entry["counts"].as_py() / total for entry in counts}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _numbers(column: pa.ChunkedArray) -> dict[str, float | None]:
    present = column.cast(pa.float64()).drop_null()
    if not len(present):
        return dict.fromkeys(("mean", "10 % quantile", "median", "90 % quantile"))
    low, middle, high = pc.quantile(present, q=[0.1, 0.5, 0.9]).to_pylist()
    return {
        "mean": pc.mean(present).as_py(),
        "10 % quantile": low,
        "median": middle,
        "90 % quantile": high,
    }


def _null_share(column: pa.ChunkedArray) -> float | None:
    return column.null_count / len(column) if len(column) else None


def compare(
    real: pa.Table, synthetic: pa.Table, *, categorical: Sequence[str], numerical: Sequence[str], top: int = 6
) -> list[Marginal]:
    """Return the marginals of both tables.

    Args:
        real: The real rows.
        synthetic: The synthetic rows.
        categorical: Columns whose commonest `top` values, by the real rows, are compared.
        numerical: Columns whose mean, quantiles and missing cells are compared.
        top: Values compared of a categorical column.
    """
    found: list[Marginal] = []
    for name in categorical:
        ours, theirs = shares(real[name]), shares(synthetic[name])
        found.extend(
            Marginal(name, f"share of {value}", share, theirs.get(value, 0.0), is_share=True)
            for value, share in list(ours.items())[:top]
        )
    for name in numerical:
        real_numbers, synthetic_numbers = _numbers(real[name]), _numbers(synthetic[name])
        found.extend(
            Marginal(name, measure, value, synthetic_numbers[measure], is_share=False)
            for measure, value in real_numbers.items()
        )
        found.append(Marginal(name, "missing", _null_share(real[name]), _null_share(synthetic[name]), is_share=True))
    return found
