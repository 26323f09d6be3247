"""What each patient brings to the metrics of several classes, so that draws are judged quickly."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from covidtf.files import DataError
from covidtf.metrics import intervals
from covidtf.predictions import validate

METRICS = ("sensitivity", "specificity", "ppv", "f1", "auroc")
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """What each patient brings, so that a draw is a weighting of patients and not of slices.

    `confusion` (patients, C, C); `beaten` (C, patients, patients): over the rows of the first patient with
    label c, how many rows of the second with other labels have a lower score for c, equal ones half.
    """

    classes: tuple[str, ...]
    patients: npt.NDArray[np.str_]
    confusion: _Array
    beaten: _Array


def check(predictions: pd.DataFrame, level: str = "slice") -> None:
    """Refuse anything but rows of one split, and at level "case" anything but one row per case.

    Raises:
        DataError: If the table is not valid, has several splits, or a case has several rows.
        ValueError: If `level` is neither "slice" nor "case".
    """
    if level not in ("slice", "case"):
        raise ValueError(f"`level` must be 'slice' or 'case'. Received: {level!r}")
    splits = sorted(set(validate(predictions)["split"]))
    if len(splits) != 1:
        raise DataError(f"predictions: rows of one split were wanted. Received: {splits}")
    repeated = predictions["case_id"].duplicated()
    if level == "case" and repeated.any():
        case = predictions["case_id"][repeated].iloc[0]
        raise DataError(f"predictions: one row per case was wanted. Received: several of {case!r}")


def scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """The score columns, one per class."""
    return predictions[[name for name in predictions if name.startswith("score_")]]


def tally(predictions: pd.DataFrame) -> Tally:
    """Count per patient; rows as `check` lets them pass."""
    table = scores(predictions)
    classes = tuple(name.removeprefix("score_") for name in table)
    patients, patient = np.unique(predictions["patient_id"].to_numpy(str), return_inverse=True)
    label = pd.Index(classes).get_indexer(predictions["label"])
    confusion = np.zeros((len(patients), len(classes), len(classes)))
    np.add.at(confusion, (patient, label, table.to_numpy().argmax(axis=1)), 1)
    beaten = [
        _beaten(table.iloc[:, index].to_numpy(), label == index, patient, len(patients))
        for index in range(len(classes))
    ]
    return Tally(classes, patients, confusion, np.stack(beaten))


def draw(counts: Tally, draws: int, seed: int) -> tuple[_Array, _Array]:
    """What `measure` gives of all rows, and of each of `draws` bootstrap draws of patients.

    Returns:
        Values, shape (6, C + 1), and values of the draws, shape (draws, 6, C + 1).
    """
    all_rows = measure(np.ones((1, len(counts.patients))), counts)[0]
    return all_rows, intervals.bootstrap(lambda w: measure(w, counts), counts.patients, draws, seed)


def measure(weights: _Array, counts: Tally) -> _Array:
    """`METRICS` and accuracy of weighted patients.

    Args:
        weights: How often each patient is in each draw, shape (draws, patients).
        counts: Of the patients.
    Returns:
        Shape (draws, 6, C + 1): `METRICS` and accuracy, of each class and, last, their mean over the classes.
        NaN where undefined.
    """
    cells = np.tensordot(weights, counts.confusion, axes=1)
    total, rows, columns = cells.sum(axis=(1, 2))[:, None], cells.sum(axis=2), cells.sum(axis=1)
    hits = np.diagonal(cells, axis1=1, axis2=2)
    pairs = np.stack([((weights @ of_class) * weights).sum(axis=1) for of_class in counts.beaten], axis=1)
    accuracy = hits.sum(axis=1, keepdims=True) / total
    parts = [
        _divide(hits, rows),
        _divide(total - rows - columns + hits, total - rows),
        _divide(hits, columns),
        # Of a class without rows F1 would be 0 whatever the scores.
        np.where(rows > 0, _divide(2 * hits, rows + columns), np.nan),
        _divide(pairs, rows * (total - rows)),
        np.broadcast_to(accuracy, hits.shape),
    ]
    found = np.stack(parts, axis=1)
    return np.concatenate([found, found.mean(axis=2, keepdims=True)], axis=2)


def _beaten(score: _Array, positive: npt.NDArray, patient: npt.NDArray, patients: int) -> _Array:
    result = np.zeros((patients, patients))
    for other in np.unique(patient[~positive]):
        lower = np.sort(score[~positive & (patient == other)])
        # Left counts the lower scores, right the equal ones too: their mean counts equal ones half.
        count = sum(np.searchsorted(lower, score[positive], side) for side in ("left", "right")) / 2
        result[:, other] = np.bincount(patient[positive], count, minlength=patients)
    return result


def _divide(part: _Array, whole: _Array) -> _Array:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
