"""What a score is worth at all thresholds: ROC, AUROC, precision-recall, histogram. No TensorFlow, no images.

Every function takes the rows of one split of a predictions table. A metric is a dict, ready for JSON, with
`value`, `ci95` (None where there is none), `method`, `n` (images) and `patients`. Images of one patient are
alike, so `ci95` comes from drawing patients (`intervals.metric`); `intervals` holds what other methods give.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from covidtf.files import DataError
from covidtf.metrics import intervals
from covidtf.metrics.intervals import Metric
from covidtf.predictions import validate

NORMAL = "No Finding"
_Array = npt.NDArray[np.float64]


def one_split(predictions: pd.DataFrame, positive: str) -> tuple[npt.NDArray[np.bool_], _Array]:
    """Which images have the label `positive`, and their scores for it, both of shape `(n,)`.

    Raises:
        DataError: If the table is not valid, has several splits or no score for `positive`.
    """
    validate(predictions)
    splits = sorted(set(predictions["split"]))
    if len(splits) != 1:
        raise DataError(f"predictions: rows of one split were wanted. Received: {splits}")
    if f"score_{positive}" not in predictions:
        raise DataError(f"predictions: no column `score_{positive}`. Received: {list(predictions.columns)}")
    return (predictions["label"] == positive).to_numpy(), predictions[f"score_{positive}"].to_numpy(float)


def roc(predictions: pd.DataFrame, positive: str = "COVID-19") -> pd.DataFrame:
    """Points of the ROC curve, columns threshold, sensitivity, specificity; from (inf, 0, 1) to (.., 1, 0).

    Raises:
        DataError: If the table is not valid, has several splits or images of one class only.
    """
    is_positive, score = _both_classes(predictions, positive)
    false_positive_rate, sensitivity, threshold = roc_curve(is_positive, score, drop_intermediate=False)
    points = {"threshold": threshold, "sensitivity": sensitivity, "specificity": 1 - false_positive_rate}
    return pd.DataFrame(points)


def precision_recall(predictions: pd.DataFrame, positive: str = "COVID-19") -> pd.DataFrame:
    """Points of the precision-recall curve, columns threshold, sensitivity (falling from 1 to 0), ppv.

    Raises:
        DataError: As `roc`.
    """
    is_positive, score = _both_classes(predictions, positive)
    ppv, sensitivity, threshold = precision_recall_curve(is_positive, score)
    return pd.DataFrame({"threshold": np.append(threshold, np.inf), "sensitivity": sensitivity, "ppv": ppv})


def auroc(predictions: pd.DataFrame, positive: str = "COVID-19", draws: int = 2000, seed: int = 0) -> Metric:
    """Area under the ROC curve: P(score of a positive > score of a negative) + P(equal) / 2.

    Args:
        predictions: Rows of one split.
        positive: Label whose score is judged; every other label is negative.
        draws: Number of bootstrap draws of patients. Draws without one of the classes are left out.
        seed: Of the draws, a non-negative integer.
    Returns:
        Metric; its `intervals` holds the percentile interval of the draws.
    Raises:
        DataError: As `roc`.
    Reference: Hanley & McNeil, Radiology 1982, 143:29-36.
    """

    value, values, smaller = auroc_draws(predictions, positive, draws, seed)
    return intervals.metric(value, values, len(predictions), predictions["patient_id"].nunique(), smaller)


def auroc_draws(
    predictions: pd.DataFrame, positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> tuple[float, _Array, int]:
    """AUROC, its values in the bootstrap draws, shape `(draws,)`, and the patients of the smaller class.

    Of two scores of the same images, in any order of the rows, draw i has the same patients. Arguments and
    errors are those of `auroc`.
    """

    def statistic(positives: _Array, negatives: _Array) -> _Array:
        total = negatives.sum(axis=1, keepdims=True)
        beaten = total - negatives.cumsum(axis=1) + negatives / 2
        return (positives * beaten).sum(axis=1) / (positives.sum(axis=1) * total[:, 0])

    return _ranking(predictions, positive, roc_auc_score, statistic, (draws, seed))


def average_precision(
    predictions: pd.DataFrame, positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> Metric:
    """Average precision: sum over the thresholds of PPV times the gain in sensitivity.

    It rises with the prevalence, which is its chance level and is given beside it as `prevalence`.

    Args:
        predictions: Rows of one split.
        positive: As `auroc`.
        draws: As `auroc`.
        seed: As `auroc`.
    Returns:
        Metric, as `auroc`.
    Raises:
        DataError: As `roc`.
    """

    def statistic(positives: _Array, negatives: _Array) -> _Array:
        found = positives.cumsum(axis=1)
        called = found + negatives.cumsum(axis=1)
        # Above the best image that was drawn nothing is called positive, and nothing is gained.
        ppv = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        defined = negatives.sum(axis=1) > 0
        return np.where(defined, (positives * ppv).sum(axis=1) / found[:, -1], np.nan)

    value, values, smaller = _ranking(
        predictions, positive, average_precision_score, statistic, (draws, seed)
    )
    patients = predictions["patient_id"].nunique()
    result = intervals.metric(value, values, len(predictions), patients, smaller)
    return result | {"prevalence": float((predictions["label"] == positive).mean())}


def histogram(predictions: pd.DataFrame, positive: str = "COVID-19", bins: int = 24) -> pd.DataFrame:
    """Counts of images by score in equal bins on [0, 1], in three groups.

    The groups are the images labelled `positive`, and of the others the "normal" ones (finding "No Finding",
    with or without "Support Devices") and those with "other disease". If the source says nothing of some of
    the others, they are a fourth group, "not stated". A bin holds its lower edge, the last one both edges.

    Args:
        predictions: Rows of one split.
        positive: Label whose score is counted.
        bins: Number of bins, at least 1; 24 as published.
    Returns:
        Columns group, low, high, count; `bins` rows per group, groups in the order above, empty ones too.
    Raises:
        DataError: If the table is not valid or has several splits.
    """
    is_positive, score = one_split(predictions, positive)
    kind = predictions["finding"].map(_kind).mask(is_positive, positive).to_numpy()
    groups = {group: kind == group for group in (positive, "normal", "other disease", "not stated")}
    if not groups["not stated"].any():
        del groups["not stated"]
    edges = np.linspace(0.0, 1.0, bins + 1)
    tables = []
    for group, members in groups.items():
        counts, _ = np.histogram(score[members], edges)
        tables.append(pd.DataFrame({"group": group, "low": edges[:-1], "high": edges[1:], "count": counts}))
    return pd.concat(tables, ignore_index=True)


def _kind(finding: str) -> str:
    if finding == "":
        return "not stated"
    return "normal" if set(finding.split("|")) - {"Support Devices"} == {NORMAL} else "other disease"


def _both_classes(predictions: pd.DataFrame, positive: str) -> tuple[npt.NDArray[np.bool_], _Array]:
    is_positive, score = one_split(predictions, positive)
    if is_positive.all() or not is_positive.any():
        labels = predictions["label"].value_counts().to_dict()
        raise DataError(f"predictions: images labelled {positive} and others were wanted. Received: {labels}")
    return is_positive, score


def _ranking(
    predictions: pd.DataFrame,
    positive: str,
    of_images: Callable[[npt.NDArray[np.bool_], _Array], float],
    of_weights: Callable[[_Array, _Array], _Array],
    draws_seed: tuple[int, int],
) -> tuple[float, _Array, int]:
    """Value `of_images`, draws `of_weights` of the two classes' weights by falling score, smaller class."""
    is_positive, score = _both_classes(predictions, positive)
    order = np.argsort(-score, kind="stable")
    ordered = is_positive[order]
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))

    def statistic(weights: _Array) -> _Array:
        positives = np.add.reduceat(weights * ordered, starts, axis=1)
        negatives = np.add.reduceat(weights * ~ordered, starts, axis=1)
        with np.errstate(invalid="ignore"):
            return of_weights(positives, negatives)

    # Summed over many thresholds, a perfect average precision can come out a rounding error above 1.
    value = min(float(of_images(is_positive, score)), 1.0)
    patient_id = predictions["patient_id"].to_numpy(str)
    values = intervals.bootstrap(statistic, patient_id[order], *draws_seed)
    return value, values, min(len(set(patient_id[members])) for members in (is_positive, ~is_positive))
