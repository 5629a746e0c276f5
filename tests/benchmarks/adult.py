"""The Adult census table, and how good synthetic rows of it are. Found through `ROWMINT_BENCH_DATA`."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

DATA = "ROWMINT_BENCH_DATA"
TARGET = "income"


@dataclass(frozen=True)
class Adult:
    """UCI Adult (1994), `?` kept as a category.

    Attributes:
        path: The training rows as CSV.
        train: 23,000 x 15.
        test: 9,561 x 15.
    """

    path: Path
    train: pd.DataFrame
    test: pd.DataFrame


def load() -> Adult:
    folder = os.environ.get(DATA)
    if not folder:
        raise SystemExit(f"set {DATA} to a folder that holds adult_train.csv and adult_test.csv (UCI Adult)")
    path = Path(folder) / "adult_train.csv"
    return Adult(path, read(path), read(Path(folder) / "adult_test.csv"))


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def quality(real: pd.DataFrame, synthetic: pd.DataFrame) -> dict[str, float]:
    """SDMetrics' quality report: the mean of column shapes and column pair trends, and the worst shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sdmetrics.reports.single_table import QualityReport

        report = QualityReport()
        columns = {
            name: {"sdtype": "numerical" if pd.api.types.is_numeric_dtype(real[name]) else "categorical"}
            for name in real.columns
        }
        report.generate(real, synthetic[list(real.columns)], {"columns": columns}, verbose=False)
        shapes = report.get_details("Column Shapes")
        scores = report.get_properties().set_index("Property")["Score"]
    return {
        "quality": float(report.get_score()),
        "shapes": float(scores["Column Shapes"]),
        "pairs": float(scores["Column Pair Trends"]),
        "worst_shape": float(shapes["Score"].min()),
    }


def usefulness(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, float]:
    """AUC and F1 on `test` of a classifier of `income` that learned from `train`."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import f1_score, roc_auc_score

    def coded(table: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(
            {
                name: table[name]
                if pd.api.types.is_numeric_dtype(test[name])
                else pd.Categorical(table[name], sorted(test[name].unique())).codes
                for name in test.columns
                if name != TARGET
            }
        )

    positive = max(test[TARGET].unique())
    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(coded(train), train[TARGET] == positive)
    probability = model.predict_proba(coded(test))[:, 1]
    truth = np.asarray(test[TARGET] == positive)
    return {"auc": float(roc_auc_score(truth, probability)), "f1": float(f1_score(truth, probability > 0.5))}
