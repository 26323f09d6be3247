"""AUROC and differences of AUROC with DeLong's variance, for images that come several to a patient.

No draws are needed, so that it is exact to repeat and gives a p value. Metrics are dicts as in `metrics`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata, t

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics.intervals import FEWEST_PATIENTS, Interval, Metric

_Array = npt.NDArray[np.float64]
_NO_VARIANCE = 1e-12


def auroc(predictions: pd.DataFrame | Sequence[pd.DataFrame], positive: str = "COVID-19") -> Metric:
    """AUROC with DeLong's variance, in Obuchowski's form for clusters: the images of a patient are one.

    The interval is logit(A) ± t * se / (A * (1 - A)), turned back. On the logit scale it stays inside (0, 1)
    and is longer towards 0.5; A ± t * se would leave 1 behind and cover too seldom, because AUROC is skewed
    near 1. t has m - 1 degrees of freedom, m the patients of the smaller class, as in `intervals.metric`.

    Args:
        predictions: Rows of one split; or several scores of the same images, such as those of several seeds,
            whose mean AUROC is judged.
        positive: Label whose score is judged; every other label is negative.
    Returns:
        `value`, `ci95`, `standard_error`, `method`, `n`, `patients`, and `intervals` with `images`, the
        interval if all images were independent (DeLong's own), which is too short. `ci95` is None for fewer
        than three patients of a class, and where the variance is 0 (AUROC 1); `metrics.auroc` has one there.
    Raises:
        DataError: As `metrics.roc`.
    Reference: DeLong et al., Biometrics 1988, 44:837-845; Sun & Xu, IEEE Signal Processing Letters 2014,
        21:1389-1393 (midranks); Obuchowski, Biometrics 1997, 53:567-578 (clusters).
    """
    tables = _several(predictions)
    is_positive, scores = _stacked(tables, positive)
    value, variances = _contrast(scores, np.full(len(tables), 1 / len(tables)), is_positive, tables[0])
    of_groups = {
        name: (_logit_interval(value, variance, groups), variance)
        for name, (variance, groups) in variances.items()
    }
    return _metric(value, of_groups, tables[0], "logit scale", variances["patients"][1])


def difference(
    one: pd.DataFrame | Sequence[pd.DataFrame],
    other: pd.DataFrame | Sequence[pd.DataFrame],
    positive: str = "COVID-19",
) -> Metric:
    """AUROC of `one` minus that of `other` on the same images, by the paired form of `auroc`.

    The interval is D ± t * se, because a difference has no bounds nearby; p is two-sided, of the same t.

    Args:
        one: Predictions of one split, or several scores, as `auroc`.
        other: Another score of the same images, or several, in any order of the rows.
        positive: As `auroc`.
    Returns:
        As `auroc`, with `p`, `p_images` (if all images were independent) and `areas`, the two AUROC (of
        several scores their means). Where the two rank all images alike, or a class has fewer than three
        patients, `ci95` and `p` are None.
    Raises:
        DataError: As `metrics.roc`, or the tables differ in images, patients, split or labels.
    Reference: As `auroc`.
    """
    ones, others = _several(one), _several(other)
    is_positive, scores = _stacked([*ones, *others], positive)
    means = np.repeat([1 / len(ones), -1 / len(others)], [len(ones), len(others)])
    value, variances = _contrast(scores, means, is_positive, ones[0])
    of_groups, p = {}, {}
    for name, (variance, groups) in variances.items():
        limits, p[name] = _linear_interval(value, variance, groups)
        of_groups[name] = limits, variance
    result = _metric(value, of_groups, ones[0], "paired", variances["patients"][1])
    of_each = areas(scores, is_positive)
    both = [float(part.mean()) for part in np.split(of_each, [len(ones)])]
    return result | {"p": p["patients"], "p_images": p["images"], "areas": both}


def areas(scores: _Array, is_positive: npt.NDArray[np.bool_]) -> _Array:
    """AUROC of several scores, shape `(k, n)` to `(k,)`; `is_positive` has shape `(n,)`."""
    return _placements(scores, is_positive)[0].mean(axis=-1)


def covariance(scores: _Array, is_positive: npt.NDArray[np.bool_], groups: npt.ArrayLike) -> _Array:
    """Covariance matrix of the AUROC of several scores of the same images.

    Of each group, P is the sum of the deviations of its positives' placement values from their mean, over
    the number of positives; Q is the same of the negatives. The covariance is I1 / (I1 - 1) * P'P +
    I0 / (I0 - 1) * Q'Q + I / (I - 1) * (P'Q + Q'P), summed over the groups; I1, I0 and I are the groups with
    positives, with negatives and all. With one image a group it is DeLong's.

    Args:
        scores: Shape `(k, n)`.
        is_positive: Shape `(n,)`.
        groups: Patient of each image, shape `(n,)`.
    Returns:
        Shape `(k, k)`; NaN where a class has one group only.
    Reference: Obuchowski 1997, equations 5 to 7.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = [], []
    for members, values in zip((is_positive, ~is_positive), _placements(scores, is_positive), strict=True):
        deviations = (values - values.mean(axis=-1, keepdims=True)) / members.sum()
        of_class = group[members]
        sums.append(np.stack([np.bincount(of_class, row, len(names)) for row in deviations]))
        counts.append(len(np.unique(of_class)))
    of_positives, of_negatives = sums
    mixed = of_positives @ of_negatives.T
    return (
        _correction(counts[0]) * of_positives @ of_positives.T
        + _correction(counts[1]) * of_negatives @ of_negatives.T
        + _correction(len(names)) * (mixed + mixed.T)
    )


def _placements(scores: _Array, is_positive: npt.NDArray[np.bool_]) -> tuple[_Array, _Array]:
    """Share of the negatives below each positive, and of the positives above each negative; ties are half."""
    positives, negatives = scores[:, is_positive], scores[:, ~is_positive]
    ranks = rankdata(np.concatenate([positives, negatives], axis=1), axis=1)
    m, n = positives.shape[1], negatives.shape[1]
    below = (ranks[:, :m] - rankdata(positives, axis=1)) / n
    above = 1 - (ranks[:, m:] - rankdata(negatives, axis=1)) / m
    return below, above


def _contrast(
    scores: _Array, weights: _Array, is_positive: npt.NDArray[np.bool_], table: pd.DataFrame
) -> tuple[float, dict[str, tuple[float, int]]]:
    """Weighted sum of the AUROC; by patient and by image its variance and the groups of the smaller class."""
    variances = {}
    for name, groups in (("patients", table["patient_id"].to_numpy(str)), ("images", np.arange(len(table)))):
        variance = float(weights @ covariance(scores, is_positive, groups) @ weights)
        variances[name] = variance, _smaller(is_positive, groups)
    return float(weights @ areas(scores, is_positive)), variances


def _correction(groups: int) -> float:
    return groups / (groups - 1) if groups > 1 else np.nan


def _smaller(is_positive: npt.NDArray[np.bool_], groups: npt.NDArray) -> int:
    return min(len(np.unique(groups[members])) for members in (is_positive, ~is_positive))


def _logit_interval(value: float, variance: float, groups: int) -> Interval | None:
    if groups < FEWEST_PATIENTS or variance < _NO_VARIANCE:
        return None
    half = t.ppf(0.975, groups - 1) * np.sqrt(variance) / (value * (1 - value))
    odds = value / (1 - value) * np.exp([-half, half])
    return tuple((odds / (1 + odds)).tolist())


def _linear_interval(
    value: float, variance: float, groups: int
) -> tuple[Interval, float] | tuple[None, None]:
    if groups < FEWEST_PATIENTS or variance < _NO_VARIANCE:
        return None, None
    error, freedom = np.sqrt(variance), groups - 1
    half = t.ppf(0.975, freedom) * error
    return (float(value - half), float(value + half)), float(2 * t.sf(abs(value) / error, freedom))


def _metric(
    value: float, of_groups: dict[str, tuple], table: pd.DataFrame, scale: str, smaller: int
) -> Metric:
    limits, variance = of_groups["patients"]
    images = of_groups["images"][0]
    told = {"standard_error": float(np.sqrt(max(variance, 0.0))) if variance == variance else None}
    if limits is not None:
        method = f"DeLong, clustered by patient, {scale}"
    elif smaller < FEWEST_PATIENTS:
        method = f"no interval: {smaller} patients of a class"
    else:
        method = "no interval: DeLong's variance is 0"
    told |= {"ci95": limits and list(limits), "method": method}
    found = {"n": len(table), "patients": int(table["patient_id"].nunique())}
    return {"value": value} | told | found | {"intervals": {"images": images and list(images)}}


def _scores(predictions: pd.DataFrame, positive: str) -> tuple[npt.NDArray[np.bool_], _Array]:
    is_positive, score = metrics.one_split(predictions, positive)
    if is_positive.all() or not is_positive.any():
        labels = predictions["label"].value_counts().to_dict()
        raise DataError(f"predictions: images labelled {positive} and others were wanted. Received: {labels}")
    return is_positive, score


def _several(predictions: pd.DataFrame | Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    return [predictions] if isinstance(predictions, pd.DataFrame) else list(predictions)


def _stacked(tables: list[pd.DataFrame], positive: str) -> tuple[npt.NDArray[np.bool_], _Array]:
    """Labels and scores of the images in the order of the first table, shapes `(n,)` and `(tables, n)`."""
    found = [_scores(table, positive) for table in tables]
    rows = [score[_same_images(tables[0], table)] for (_, score), table in zip(found, tables, strict=True)]
    return found[0][0], np.stack(rows)


def _same_images(one: pd.DataFrame, other: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Rows of `other` in the order of `one`."""
    if set(one["image_id"]) != set(other["image_id"]):
        odd = sorted(set(one["image_id"]) ^ set(other["image_id"]))
        raise DataError(
            f"predictions: two scores of the same images were wanted. Received: {len(one)} and {len(other)} "
            f"images, {len(odd)} of them in one table only, such as {odd[0]!r}"
        )
    order = pd.Index(other["image_id"]).get_indexer(one["image_id"])
    for column in ("patient_id", "split", "label"):
        differs = one[column].to_numpy() != other[column].to_numpy()[order]
        if differs.any():
            raise DataError(
                f"predictions: two scores of the same images with the same `{column}` were wanted. Received: "
                f"{int(differs.sum())} others, such as {one['image_id'][differs].iloc[0]!r}"
            )
    return order
