"""How much of a map's positive evidence lies in the lungs, beside the share of the area that lungs have."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from covidtf.metrics import intervals
from covidtf.metrics.intervals import Metric

__all__ = ["COLUMNS", "choose", "of_images", "row", "shares", "summary", "told"]

COLUMNS = (
    *("image_id", "patient_id", "source", "label", "called", "score", "explained"),
    *("share", "area", "method"),
)
_KINDS = ("true positive", "false negative", "false positive", "true negative")


def shares(maps: npt.NDArray, masks: npt.NDArray) -> npt.NDArray[np.float64]:
    """Share of the positive part of each map that lies inside its mask.

    Args:
        maps: Shape `(n, h, w)`, of any scale.
        masks: bool, shape `(n, h, w)`.
    Returns:
        Shape `(n,)`, in [0, 1]; NaN where a map has no positive part.

    >>> shares(np.array([[[3.0, 1.0, -5.0]]]), np.array([[[True, False, False]]]))
    array([0.75])
    """
    if np.shape(maps) != np.shape(masks):
        raise ValueError(f"`masks` must be of the maps' shape {np.shape(maps)}. Received: {np.shape(masks)}")
    positive = np.maximum(np.asarray(maps, np.float64), 0)
    total = positive.sum(axis=(1, 2))
    inside = np.where(masks, positive, 0).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.full(len(total), np.nan), where=total > 0)


def told(rows: pd.DataFrame, classes: Sequence[str], positive: str, threshold: float | None) -> pd.DataFrame:
    """What the network says of each image, and the class that is explained.

    Of two classes the positive one is explained, and called from the threshold on; without a threshold, and
    of more classes, the one with the highest score is called. Of more than two it is explained too.

    Args:
        rows: Of a predictions table.
        classes: In the order of the logits.
        positive: The class that is detected.
        threshold: Cut-off threshold on its score, or None.
    Returns:
        image_id, patient_id, source, label, called, score (of the explained class), explained, class_index;
        the index counts from 0.
    """
    scores = rows[[f"score_{name}" for name in classes]].to_numpy()
    called = scores.argmax(axis=1)
    index = called
    if len(classes) == 2:
        index = np.full(len(rows), list(classes).index(positive))
        if threshold is not None:
            called = np.where(scores[np.arange(len(rows)), index] >= threshold, index, 1 - index)
    names = np.array(classes, dtype=object)
    known = rows[["image_id", "patient_id", "source", "label"]].reset_index(drop=True)
    return known.assign(
        called=names[called],
        score=scores[np.arange(len(rows)), index],
        explained=names[index],
        class_index=index,
    )


def of_images(calls: pd.DataFrame, maps: npt.NDArray, masks: npt.NDArray, method: str) -> pd.DataFrame:
    """One row per image with `COLUMNS`.

    Args:
        calls: Of `told`, shape `(n, ...)`.
        maps, masks: As in `shares`; area is the share of a mask in the image.
        method: "Grad-CAM" or "occlusion".
    """
    area = np.asarray(masks, bool).mean(axis=(1, 2))
    table = calls.assign(share=shares(maps, masks), area=area, method=method)
    return table[list(COLUMNS)].reset_index(drop=True)


def summary(table: pd.DataFrame, draws: int = 2000, seed: int = 0) -> dict[str, Metric]:
    """Mean share of evidence in the lungs, mean area of the lungs, and the difference, by patient bootstrap.

    A map that knows nothing of lungs has a share that is the area on average: difference 0. Intervals are
    percentiles of the draws. Images whose map has no positive part are left out of all three, and counted.

    Args:
        table: Of `of_images`, of one method and network.
        draws: Bootstrap draws of patients.
        seed: Of the draws.
    Returns:
        `share`, `area`, `difference`: metrics as of `intervals.metric`, with `images_left_out`.
    """
    kept = table[table["share"].notna()]
    n, patients = len(kept), kept["patient_id"].nunique()
    left_out = {"images_left_out": len(table) - n}
    if n == 0:
        reason = "no map has positive evidence" if len(table) else "no image"
        return {name: intervals.untold(reason, 0, 0) | left_out for name in ("share", "area", "difference")}
    values = np.stack([kept["share"], kept["area"], kept["share"] - kept["area"]], axis=1)
    found = intervals.bootstrap(
        lambda weights: weights @ values / weights.sum(axis=1, keepdims=True), kept["patient_id"], draws, seed
    )
    method = f"percentiles of {draws} draws of patients"
    return {
        name: _metric(values[:, index].mean(), found[:, index], n, patients, method) | left_out
        for index, name in enumerate(("share", "area", "difference"))
    }


def row(table: pd.DataFrame, draws: int = 2000, seed: int = 0) -> dict[str, object]:
    """`summary` as columns of a table: value, `_low` and `_high` of each, NaN where it cannot be told.

    Returns:
        n, patients, images_left_out, share, share_low, share_high, the same of area and difference, and
        `interval`, how the limits were found, or why there are none.
    """
    found = summary(table, draws, seed)
    share = found["share"]
    result = {name: share[name] for name in ("n", "patients", "images_left_out")}
    for name, metric in found.items():
        value, limits = metric["value"], metric["ci95"] or (np.nan, np.nan)
        result |= {name: np.nan if value is None else value}
        result |= {f"{name}_low": limits[0], f"{name}_high": limits[1]}
    return result | {"interval": share["method"]}


def choose(calls: pd.DataFrame, positive: str, examples: int) -> pd.DataFrame:
    """The images that a network is surest of, right and wrong alike.

    Args:
        calls: Of `told`.
        positive: The class that is detected; all others count as negative.
        examples: How many of each kind, at most.
    Returns:
        Rows of `calls`, their index kept, with `kind`: true positive, false negative, false positive, true
        negative, in this order, the surest first; of each patient one image per kind at most. `of_kind` is
        how many images are of that kind.
    """
    truth, called = calls["label"] == positive, calls["called"] == positive
    kinds = np.select([truth & called, truth, called], _KINDS[:3], _KINDS[3])
    # The score may be of another class than the positive one.
    sure = np.where((calls["explained"] == calls["called"]), calls["score"], 1 - calls["score"])
    ranked = calls.assign(kind=kinds, sure=sure).sort_values("sure", ascending=False, kind="stable")
    ranked["of_kind"] = ranked.groupby("kind")["kind"].transform("size")
    ranked = ranked.drop_duplicates(["kind", "patient_id"]).drop(columns="sure")
    return pd.concat([ranked[ranked["kind"] == kind].head(examples) for kind in _KINDS])


def _metric(value: float, found: npt.NDArray, n: int, patients: int, method: str) -> Metric:
    limits = intervals.percentiles(found) if patients > 2 else None
    method = method if limits else f"no interval: patients are {patients}, at least 3 are wanted"
    return {
        "value": float(value),
        "ci95": limits and list(limits),
        "method": method,
        "n": n,
        "patients": patients,
        "n_effective": None,
        "draws_left_out": 0,
        "intervals": {},
    }
