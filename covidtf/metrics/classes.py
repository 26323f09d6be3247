"""Numbers of a task with any classes, as a source task has: accuracy, and where the right class ranks."""

import numpy as np
import pandas as pd

from covidtf.files import DataError
from covidtf.metrics import intervals
from covidtf.predictions import validate


def evaluate(predictions: pd.DataFrame, draws: int = 2000, seed: int = 0) -> dict:
    """Judge one run on its test images.

    Args:
        predictions: Rows of val and test.
        draws: Number of bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        Ready for JSON: `level`, `classes` (number), `chance` (accuracy of always naming the most frequent
        class), `bootstrap`, and `test` with the metrics `accuracy` (the class with the highest score is the
        label; of equal ones the first) and, of more than five classes, `top5_accuracy` (the label is among
        the five highest).
    Raises:
        DataError: If the table is not valid or has no test.
    """
    test = _test(predictions)
    count = _scores(test).shape[1]
    return {
        "level": "image",
        "classes": count,
        "chance": float(test["label"].value_counts(normalize=True).iloc[0]),
        "bootstrap": {"unit": "patient", "draws": draws, "seed": seed},
        "test": {
            name: _share(ranks(test) <= k, test, draws, seed)
            for name, k in (("accuracy", 1), ("top5_accuracy", 5))
            if k < count
        },
    }


def ranks(predictions: pd.DataFrame) -> np.ndarray:
    """Rank of each image's label among its scores, 1 for the highest; shape `(n,)`."""
    columns = [name for name in predictions if name.startswith("score_")]
    scores = _scores(predictions)
    own = pd.Index(columns).get_indexer("score_" + predictions["label"])
    order = np.argsort(-scores, axis=1, kind="stable")
    return 1 + np.argmax(order == own[:, None], axis=1)


def top_k(predictions: pd.DataFrame, largest: int = 10) -> pd.DataFrame:
    """Share of test images whose label is among the `k` highest scores, and what chance gives.

    Returns:
        Columns k (1 to `largest`, at most the number of classes), share, chance (k / classes).
    """
    test = _test(predictions)
    found, classes = ranks(test), _scores(test).shape[1]
    k = np.arange(1, min(largest, classes) + 1)
    share = [(found <= most).mean() for most in k]
    return pd.DataFrame({"k": k, "share": share, "chance": k / classes})


def _test(predictions: pd.DataFrame) -> pd.DataFrame:
    test = validate(predictions)[predictions["split"] == "test"]
    if test.empty:
        raise DataError(
            f"predictions: rows of test were wanted. Received: {sorted(set(predictions['split']))}"
        )
    return test


def _scores(table: pd.DataFrame) -> np.ndarray:
    return table[[name for name in table if name.startswith("score_")]].to_numpy()


def _share(hits: np.ndarray, test: pd.DataFrame, draws: int, seed: int) -> dict:
    values = intervals.bootstrap(
        lambda weights: weights @ hits / weights.sum(axis=1), test["patient_id"], draws, seed
    )
    return intervals.metric(hits.mean(), values, len(test), test["patient_id"].nunique())
