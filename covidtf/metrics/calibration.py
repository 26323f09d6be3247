"""Whether a score can be read as a probability: reliability, Brier score, ECE, recalibration.

Calibration holds for the prevalence of the images it was measured on, and not for another one.
"""

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd
import statsmodels.api as sm

from covidtf import metrics
from covidtf.metrics import intervals, temperature
from covidtf.metrics.intervals import Metric

_Array = npt.NDArray[np.float64]


def reliability(predictions: pd.DataFrame, positive: str = "COVID-19", bins: int = 10) -> pd.DataFrame:
    """Share of positives among images of similar score, in bins that hold about as many images each.

    Edges are quantiles of the score. Equal scores stay in one bin, so that there can be fewer bins. Bins of
    equal width would leave most of them nearly empty, because scores of networks lie near 0 and 1.

    Args:
        predictions: Rows of one split.
        positive: Label whose score is judged; every other label is negative.
        bins: Number of bins at most, at least 1.
    Returns:
        One row per bin: low, high (lowest and highest score in it), n, mean_score, observed (share of
        positives), observed_low, observed_high (Wilson, of images taken as independent: too short where
        patients have several).
    Raises:
        DataError: If the table is not valid, has several splits or no score for `positive`.
        ValueError: If `bins` is below 1.
    """
    is_positive, score = metrics.one_split(predictions, positive)
    rows = []
    for members in _bins(score, bins):
        found = int(is_positive[members].sum()), int(members.sum())
        low, high = intervals.proportion(*found)
        row = {"low": score[members].min(), "high": score[members].max(), "n": found[1]}
        row |= {"mean_score": score[members].mean(), "observed": found[0] / found[1]}
        rows.append(row | {"observed_low": low, "observed_high": high})
    return pd.DataFrame(rows)


def brier(predictions: pd.DataFrame, positive: str = "COVID-19", draws: int = 2000, seed: int = 0) -> Metric:
    """Brier score: mean of (score - y)^2, y = 1 for `positive` and 0 for others; 0 is best.

    A score that always says the prevalence p has p * (1 - p), given beside it as `of_prevalence`.

    Args:
        predictions: Rows of one split.
        positive: As `reliability`.
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        Metric; `ci95` are the percentiles of the draws.
    Raises:
        DataError: As `reliability`.
    Reference: Brier, Monthly Weather Review 1950, 78:1-3.
    """
    is_positive, score = metrics.one_split(predictions, positive)
    loss = (score - is_positive) ** 2
    patient_id = predictions["patient_id"].to_numpy(str)
    values = intervals.bootstrap(
        lambda weights: weights @ loss / weights.sum(axis=1), patient_id, draws, seed
    )
    limits, p = intervals.percentiles(values), is_positive.mean()
    result = _metric(loss.mean(), limits, predictions, f"percentiles of the bootstrap, {draws} draws")
    return result | {"of_prevalence": float(p * (1 - p))}


def ece(
    predictions: pd.DataFrame, positive: str = "COVID-19", bins: int = 10, draws: int = 2000, seed: int = 0
) -> Metric:
    """Expected calibration error: mean distance of observed share and mean score over the bins, by their n.

    Chance alone keeps ECE above 0, and draws of patients bring chance a second time: in simulated studies
    with calibrated scores, intervals of the bootstrap held the true 0 in half of the studies. So there is
    none. Instead labels are drawn with the scores as their probabilities, the images of a patient by one
    random number: `if_calibrated` is the mean ECE then, `if_calibrated_95` the value that 95 % are below.

    Args:
        predictions: Rows of one split.
        positive: As `reliability`, whose bins are used.
        bins: As `reliability`.
        draws: Of the labels.
        seed: As `brier`.
    Returns:
        Metric without `ci95`, with `if_calibrated` and `if_calibrated_95`.
    Raises:
        DataError: As `reliability`.
        ValueError: If `bins` is below 1.
    Reference: Naeini et al., AAAI 2015, 29:2901-2907; Nixon et al., CVPR Workshops 2019 (bins of equal n).
    """
    is_positive, score = metrics.one_split(predictions, positive)
    members = np.stack(_bins(score, bins), axis=1).astype(float)

    def error(labels: npt.NDArray[np.bool_]) -> _Array:
        return np.abs((score - labels) @ members).sum(axis=-1) / len(score)

    names, patient = np.unique(predictions["patient_id"].to_numpy(str), return_inverse=True)
    generator = np.random.default_rng([seed, 0xCA1])
    drawn = [error(generator.random(len(names))[patient] < score) for _ in range(draws)]
    result = _metric(error(is_positive), None, predictions, "no interval: chance alone keeps ECE above 0")
    return result | {
        "if_calibrated": float(np.mean(drawn)),
        "if_calibrated_95": float(np.quantile(drawn, 0.95)),
    }


def slope_intercept(predictions: pd.DataFrame, positive: str = "COVID-19") -> dict[str, Metric]:
    """Logistic recalibration: how log odds of the label depend on those of the score.

    `slope` is b in logit P(y = 1) = a + b * logit(score): 1 is right, below 1 the scores are too extreme.
    `intercept` is a where b is held at 1: 0 is right, below 0 the scores are too high on the whole.

    Args:
        predictions: Rows of one split.
        positive: As `reliability`.
    Returns:
        `slope` and `intercept`, metrics with intervals by the variance that is robust to several images of
        a patient; None with the reason where a class has fewer than three patients, all scores are
        equal, or a threshold separates the classes and the slope has no limit.
    Raises:
        DataError: As `reliability`.
    Reference: Van Calster et al., BMC Medicine 2019, 17:230.
    """
    is_positive, score = metrics.one_split(predictions, positive)
    logit = _logit(predictions, positive)
    reason = _why_not(is_positive, score, predictions["patient_id"])
    if reason:
        untold = intervals.untold(reason, len(score), predictions["patient_id"].nunique())
        return {"slope": untold, "intercept": dict(untold)}
    design = np.column_stack([np.ones(len(logit)), logit])
    slope = _fit(is_positive, design, predictions["patient_id"])
    intercept = _fit(is_positive, design[:, :1], predictions["patient_id"], offset=logit)
    method = "logistic regression, variance by patient"
    return {
        "slope": _metric(*slope, predictions, method),
        "intercept": _metric(*intercept, predictions, method),
    }


def evaluate(
    val: pd.DataFrame,
    test: pd.DataFrame,
    positive: str = "COVID-19",
    bins: int = 10,
    draws: int = 2000,
    seed: int = 0,
) -> dict:
    """Calibration of test before and after a temperature that is fitted on val.

    Returns:
        Ready for JSON: `temperature` (`value`, `chosen_on`, `n`, `patients`, `at_limit`: whether it is one of
        `temperature.LIMITS`), and under `before` and `after` `brier`, `ece`, `slope`, `intercept` and
        `reliability` (a list of rows).
    Raises:
        DataError: As `temperature.fit` and `reliability`.
    """
    value = temperature.fit(val)
    chosen = {"value": value, "chosen_on": "val", "n": len(val), "patients": int(val["patient_id"].nunique())}
    result = {"temperature": chosen | {"at_limit": bool(np.isclose(value, temperature.LIMITS).any())}}
    for name, table in (("before", test), ("after", temperature.scaled(test, value))):
        result[name] = {
            "brier": brier(table, positive, draws, seed),
            "ece": ece(table, positive, bins, draws, seed),
            **slope_intercept(table, positive),
            "reliability": reliability(table, positive, bins).to_dict("records"),
        }
    return result


def _bins(score: _Array, bins: int) -> list[npt.NDArray[np.bool_]]:
    """Members of each bin by rising score; none is empty."""
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1. Received: {bins}")
    edges = np.quantile(score, np.arange(1, bins) / bins, method="higher")
    place = np.searchsorted(np.unique(edges), score, side="right")
    return [place == number for number in np.unique(place)]


def _logit(predictions: pd.DataFrame, positive: str) -> _Array:
    """Log odds; those of the others are summed, because 1 - score loses what is left near 1."""
    others = [name for name in predictions if name.startswith("score_") and name != f"score_{positive}"]
    parts = predictions[f"score_{positive}"], predictions[others].sum(axis=1)
    own, rest = (np.log(np.maximum(part.to_numpy(float), temperature.LEAST_SCORE)) for part in parts)
    return own - rest


def _why_not(is_positive: npt.NDArray[np.bool_], score: _Array, patient_id: pd.Series) -> str:
    if is_positive.all() or not is_positive.any():
        return "all images are of one class"
    smaller = min(patient_id[side].nunique() for side in (is_positive, ~is_positive))
    if smaller < intervals.FEWEST_PATIENTS:
        return f"{smaller} patients of a class"
    if score.min() == score.max():
        return "all scores are equal"
    separated = score[is_positive].min() >= score[~is_positive].max()
    turned = score[is_positive].max() <= score[~is_positive].min()
    return "a threshold separates the classes" if separated or turned else ""


def _fit(
    is_positive: npt.NDArray[np.bool_], design: _Array, patient_id: pd.Series, offset: _Array | None = None
) -> tuple[float, intervals.Interval]:
    """Last coefficient and its interval."""
    groups = pd.factorize(patient_id)[0]
    with warnings.catch_warnings():
        # Scores of exactly 0 or 1 on the right side make fitted values of 0 and 1, which is no fault.
        warnings.simplefilter("ignore", RuntimeWarning)
        model = sm.GLM(is_positive.astype(float), design, family=sm.families.Binomial(), offset=offset)
        found = model.fit(cov_type="cluster", cov_kwds={"groups": groups})
    return float(found.params[-1]), tuple(found.conf_int()[-1].tolist())


def _metric(
    value: float, limits: intervals.Interval | None, predictions: pd.DataFrame, method: str
) -> Metric:
    patients = int(predictions["patient_id"].nunique())
    if limits and patients < intervals.FEWEST_PATIENTS:
        limits, method = None, f"no interval: {patients} patients"
    result = {"value": float(value), "ci95": limits and list(limits), "method": method}
    return result | {"n": len(predictions), "patients": patients}
