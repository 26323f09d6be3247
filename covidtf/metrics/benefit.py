"""What a score is worth in use: predictive values at a stated prevalence, and the decision curve."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from covidtf import metrics
from covidtf.metrics import intervals
from covidtf.metrics.intervals import Metric

PREVALENCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
THRESHOLDS = tuple(round(0.01 * number, 2) for number in range(1, 100))
_Array = npt.NDArray[np.float64]


def predictive_values(
    sensitivity: Metric, specificity: Metric, prevalences: Sequence[float] = PREVALENCES
) -> pd.DataFrame:
    """PPV and NPV at stated prevalences, by Bayes' rule.

    With R = (1 - specificity) / sensitivity and o the odds of the prevalence, PPV = 1 / (1 + R / o); with
    R = (1 - sensitivity) / specificity, NPV = 1 / (1 + R * o). PPV and NPV as counted in a test set hold for
    its own prevalence only.

    The intervals are those of R, out of the `ci95` of the two by MOVER, which takes them as independent, so
    that they go with the intervals of sensitivity and specificity in every other table, and exist where
    these are 0 or 1. The delta method (Mercaldo et al. 2007) needs corrections there.

    Args:
        sensitivity: Metric of `thresholds.at_threshold`.
        specificity: Of the same images and threshold.
        prevalences: In (0, 1).
    Returns:
        One row per prevalence: prevalence, ppv, ppv_low, ppv_high, npv, npv_low, npv_high; NaN where it
        cannot be told: without a value or an interval, and PPV where no image would be called positive.
    Raises:
        ValueError: If a prevalence is not in (0, 1).
    Reference: Zou & Donner, Statistics in Medicine 2008, 27:1693-1702; Donner & Zou, Statistical Methods in
        Medical Research 2012, 21:347-359 (MOVER for ratios).

    >>> found = {"value": 0.9, "ci95": [0.8, 0.95]}
    >>> predictive_values(found, found, [0.1])[["ppv", "npv"]].round(3).values.tolist()
    [[0.5, 0.988]]
    """
    for prevalence in prevalences:
        _check(prevalence, "prevalences")
    found, missed = _limits(sensitivity), _limits(specificity)
    of_positives, of_negatives = _ratio(1 - missed[[0, 2, 1]], found), _ratio(1 - found[[0, 2, 1]], missed)
    rows = []
    for prevalence in prevalences:
        odds = prevalence / (1 - prevalence)
        ppv, npv = 1 / (1 + of_positives / odds), 1 / (1 + of_negatives * odds)
        row = {"prevalence": prevalence}
        for name, (value, high, low) in (("ppv", ppv), ("npv", npv)):
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def decision_curve(
    predictions: pd.DataFrame,
    positive: str = "COVID-19",
    thresholds: Sequence[float] = THRESHOLDS,
    prevalence: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Net benefit of treating the images with score >= t, all, or none, by the threshold probability t.

    Net benefit = p * sensitivity - (1 - p) * (1 - specificity) * t / (1 - t): true positives less the false
    ones at the price that t says, per image. It takes the score as a probability, so it means what it says
    only where `calibration` finds no fault. p is the prevalence among the images, or `prevalence`; a score is
    not moved along with it.

    Args:
        predictions: Rows of one split with images of both classes.
        positive: Label to detect.
        thresholds: Threshold probabilities in [0, 1).
        prevalence: In (0, 1), of where the score would be used; None: that of the images.
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        One row per threshold: threshold, model, model_low, model_high, all, none (0), gain (of the model over
        the better of all and none), gain_low, gain_high. The limits are percentiles at each threshold, NaN
        where there is no interval; they are not made for the curve as a whole.
    Raises:
        DataError: As `metrics.roc`.
        ValueError: If a threshold or `prevalence` is out of its range.
    Reference: Vickers & Elkin, Medical Decision Making 2006, 26:565-574.
    """
    if prevalence is not None:
        _check(prevalence, "prevalence")
    bad = [threshold for threshold in thresholds if not 0 <= threshold < 1]
    if bad:
        raise ValueError(f"`thresholds` must be in [0, 1). Received: {bad[0]}")
    metrics.roc(predictions, positive)
    is_positive, score = metrics.one_split(predictions, positive)
    at = np.asarray(thresholds, dtype=float)
    called, label = score[:, None] >= at, is_positive[:, None]
    columns = np.concatenate([called & label, called & ~label, label, ~label], axis=1).astype(float)

    def benefit(weights: _Array) -> _Array:
        return _benefit(weights @ columns, at, prevalence)

    patient_id = predictions["patient_id"].to_numpy(str)
    values, drawn = (
        benefit(np.ones((1, len(score))))[0],
        intervals.bootstrap(benefit, patient_id, draws, seed),
    )
    names = ("model", "all", "gain")
    table = pd.DataFrame({"threshold": at, "none": 0.0} | dict(zip(names, values, strict=True)))
    for name in ("model", "gain"):
        limits = [intervals.percentiles(drawn[:, names.index(name), i]) for i in range(len(at))]
        table[[f"{name}_low", f"{name}_high"]] = [limit or (np.nan, np.nan) for limit in limits]
    order = ("threshold", "model", "model_low", "model_high", "all", "none", "gain", "gain_low", "gain_high")
    return table[list(order)]


def _benefit(sums: _Array, at: _Array, prevalence: float | None) -> _Array:
    """Net benefit of the model and of all, and the model's gain: `(draws, 2 * k + 2)` to `(draws, 3, k)`."""
    k, odds = len(at), at / (1 - at)
    positives, negatives = sums[:, -2:-1], sums[:, -1:]
    p = positives / (positives + negatives) if prevalence is None else prevalence
    with np.errstate(invalid="ignore", divide="ignore"):
        model = p * sums[:, :k] / positives - (1 - p) * sums[:, k : 2 * k] / negatives * odds
    everyone = np.broadcast_to(p - (1 - p) * odds, model.shape)
    return np.stack([model, everyone, model - np.maximum(everyone, 0)], axis=1)


def _limits(metric: Metric) -> _Array:
    """Value, low and high; NaN where there is none."""
    value = np.nan if metric["value"] is None else metric["value"]
    low, high = metric["ci95"] or (np.nan, np.nan)
    # Limits can leave [0, 1] by rounding.
    return np.array([value, low, high], dtype=float).clip(0, 1)


def _ratio(above: _Array, below: _Array) -> _Array:
    """Ratio of two quantities in [0, 1], each with its limits, and the ratio's limits by MOVER."""
    (a, a_low, a_high), (b, b_low, b_high) = above, below
    # Not inf where `b` is not known.
    ratio = a / b if b > 0 else np.inf if a > 0 and b == 0 else np.nan
    if np.isnan([ratio, a_low, b_low]).any():
        return np.array([ratio, np.nan, np.nan])
    # Rounding can leave a square just below 0.
    low_root = np.sqrt(max(0.0, (a * b) ** 2 - a_low * b_high * (2 * a - a_low) * (2 * b - b_high)))
    high_root = np.sqrt(max(0.0, (a * b) ** 2 - a_high * b_low * (2 * a - a_high) * (2 * b - b_low)))
    # The root is multiplied out of the denominator, because 2 * b - b_high can be 0.
    low = a_low * (2 * a - a_low) / (a * b + low_root) if a > 0 and a_low > 0 else 0.0
    high = (a * b + high_root) / (b_low * (2 * b - b_low)) if b_low > 0 else np.inf
    return np.array([ratio, low, high])


def _check(prevalence: float, name: str) -> None:
    if not 0 < prevalence < 1:
        raise ValueError(f"`{name}` must be in (0, 1). Received: {prevalence}")
