"""The cut-off threshold: chosen on val, carried to test, and what the score is worth there.

An image is called positive where its score is at or above the threshold. Metrics are dicts as in `metrics`.
"""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import intervals
from covidtf.metrics.intervals import Metric

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def choose(val: pd.DataFrame, positive: str = "COVID-19", rule: str = "youden") -> dict[str, object]:
    """Cut-off threshold on the score, chosen on val.

    `youden`: the largest sensitivity + specificity - 1; of equal ones the lowest threshold, which has the
    higher sensitivity. `sensitivity>=0.95` (any number in (0, 1]): the highest threshold with at least that
    sensitivity, hence the best specificity. The threshold lies half-way between the lowest score that is
    called positive and the next lower score (0 if there is none), so that it favours neither side.

    Args:
        val: Rows of the split val.
        positive: Label to detect.
        rule: As above.
    Returns:
        `value`, `rule`, `chosen_on`, `n`, `patients`, and `sensitivity` and `specificity` on val (where they
        are optimistic).
    Raises:
        DataError: If the table is not valid, has rows outside val or images of one class only.
        ValueError: If `rule` is none of the two.
    """
    least = _least_sensitivity(rule)
    points = metrics.roc(val, positive).iloc[1:]
    if (val["split"] != "val").any():
        raise DataError(f"predictions: rows of val were wanted. Received: {sorted(set(val['split']))}")
    if least is None:
        # Rounded, because sums that are equal as fractions can differ in the last bit.
        youden = (points["sensitivity"] + points["specificity"]).round(12)
        best = points[youden == youden.max()].iloc[-1]
    else:
        best = points[points["sensitivity"] >= least].iloc[0]
    return {
        "value": _half_way_down(float(best["threshold"]), points["threshold"]),
        "rule": rule,
        "chosen_on": "val",
        "sensitivity": float(best["sensitivity"]),
        "specificity": float(best["specificity"]),
        "n": len(val),
        "patients": int(val["patient_id"].nunique()),
    }


def at_threshold(
    predictions: pd.DataFrame,
    threshold: float | npt.ArrayLike,
    positive: str = "COVID-19",
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, dict]:
    """Confusion matrix, sensitivity, specificity, PPV, NPV and accuracy of `score >= threshold`.

    Args:
        predictions: Rows of one split.
        threshold: Operating point in [0, 1]; chosen on val, never on test. Shape `(n,)` gives each row its
            own, as the folds of a cross-validation have them.
        positive: Label to detect.
        draws: Number of bootstrap draws of patients. Draws in which a denominator is 0 are left out.
        seed: Of the draws, a non-negative integer.
    Returns:
        `confusion` with the counts tp, fn, fp, tn, and one metric per name in lower case. `intervals` holds
        what Wilson, Clopper-Pearson and the normal approximation give if images are taken as independent, and
        the percentiles of the draws. A metric without images in its denominator has value None.
    Raises:
        DataError: If the table is not valid or has several splits.
        ValueError: If `threshold` is outside [0, 1].
    Reference: Bossuyt et al., STARD 2015, doi:10.1136/bmj.h5527.
    """
    _check(threshold)
    is_positive, score = metrics.one_split(predictions, positive)
    called = score >= threshold
    fractions = {
        "sensitivity": (called, is_positive),
        "specificity": (~called, ~is_positive),
        "ppv": (is_positive, called),
        "npv": (~is_positive, ~called),
        "accuracy": (called == is_positive, np.ones_like(called)),
    }
    found = _fractions(list(fractions.values()), predictions["patient_id"].to_numpy(str), draws, seed)
    counts = {
        "tp": int((called & is_positive).sum()),
        "fn": int((~called & is_positive).sum()),
        "fp": int((called & ~is_positive).sum()),
        "tn": int((~called & ~is_positive).sum()),
    }
    return {"confusion": counts} | dict(zip(fractions, found, strict=True))


def sweep(
    predictions: pd.DataFrame,
    positive: str = "COVID-19",
    thresholds: Sequence[float] = THRESHOLDS,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Sensitivity and specificity at several cut-off thresholds, like the DeepCovid paper's tables 2 to 5.

    Args:
        predictions: Rows of one split with images of both classes.
        positive: Label to detect.
        thresholds: Operating points in [0, 1].
        draws: As `at_threshold`.
        seed: As `at_threshold`.
    Returns:
        One row per threshold: `threshold`, and for `sensitivity` and `specificity` the value, its `_n`
        (images) and the limits `_normal_low`, `_normal_high` (as published), `_wilson_..`, `_patients_..`
        (`ci95` of `at_threshold`; NaN where there is none).
    Raises:
        DataError: As `metrics.roc`.
        ValueError: If a threshold is outside [0, 1].
    """
    metrics.roc(predictions, positive)
    for threshold in thresholds:
        _check(threshold)
    is_positive, score = metrics.one_split(predictions, positive)
    pairs = [(score >= threshold, is_positive) for threshold in thresholds]
    pairs += [(score < threshold, ~is_positive) for threshold in thresholds]
    found = _fractions(pairs, predictions["patient_id"].to_numpy(str), draws, seed)
    columns = [pd.DataFrame({"threshold": np.asarray(thresholds, dtype=float)})]
    for name, part in (("sensitivity", found[: len(thresholds)]), ("specificity", found[len(thresholds) :])):
        columns.append(pd.DataFrame([_limits(name, item) for item in part]))
    return pd.concat(columns, axis="columns")


def _limits(name: str, item: Metric) -> dict[str, float]:
    row = {name: item["value"], f"{name}_n": item["n"]}
    for method, limits in (item["intervals"] | {"patients": item["ci95"]}).items():
        if method in ("normal", "wilson", "patients"):
            row[f"{name}_{method}_low"], row[f"{name}_{method}_high"] = limits or (np.nan, np.nan)
    return row


def _fractions(
    pairs: list[tuple[npt.NDArray, npt.NDArray]], patient_id: npt.NDArray, draws: int, seed: int
) -> list[Metric]:
    """One metric per pair (what is counted, among what), all from the same draws of patients."""
    columns = np.column_stack([members for hit, of in pairs for members in (hit & of, of)]).astype(float)
    sums = intervals.bootstrap(lambda weights: weights @ columns, patient_id, draws, seed)
    found = []
    for index, (hit, of) in enumerate(pairs):
        hits, total = sums[:, 2 * index], sums[:, 2 * index + 1]
        values = np.divide(hits, total, out=np.full(draws, np.nan), where=total > 0)
        found.append(_fraction(int((hit & of).sum()), int(of.sum()), len(set(patient_id[of])), values))
    return found


def _fraction(hits: int, n: int, patients: int, values: npt.NDArray) -> Metric:
    if n == 0:
        return intervals.untold("no image in the denominator", 0, 0)
    result = intervals.metric(hits / n, values, n, patients)
    result["intervals"] |= {
        method: list(intervals.proportion(hits, n, method)) for method in intervals.METHODS
    }
    return result


def _check(threshold: float | npt.ArrayLike) -> None:
    if not np.all((np.asarray(threshold) >= 0) & (np.asarray(threshold) <= 1)):
        raise ValueError(f"`threshold` must be in [0, 1]. Received: {threshold}")


def _least_sensitivity(rule: str) -> float | None:
    match = re.fullmatch(r"sensitivity>=(\d*\.?\d+)", rule)
    least = float(match[1]) if match else None
    if rule != "youden" and (least is None or not 0 < least <= 1):
        raise ValueError(f"`rule` must be 'youden' or 'sensitivity>=x' with x in (0, 1]. Received: {rule!r}")
    return least


def _half_way_down(score: float, scores: pd.Series) -> float:
    lower = scores[scores < score].max() if (scores < score).any() else 0.0
    middle = (score + float(lower)) / 2
    # Between neighbouring floats there is no middle.
    return middle if lower < middle else score
