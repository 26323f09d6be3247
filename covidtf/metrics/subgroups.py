"""The numbers of a run within groups of patients and images: view, sex, age band, finding, source."""

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import intervals, thresholds

METRICS = ("auroc", "sensitivity", "specificity")
KINDS = ("view", "sex", "age", "finding", "source")
AGE_BANDS = ("0-19", "20-39", "40-59", "60-79", "80+")
UNKNOWN = "unknown"
FEW_PATIENTS = 10
_AGE_EDGES = (0, 20, 40, 60, 80, np.inf)
_Mask = npt.NDArray[np.bool_]


def subgroups(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame | None,
    threshold: float | npt.ArrayLike | None,
    positive: str = "COVID-19",
    draws: int = 2000,
    seed: int = 0,
    kinds: Collection[str] = KINDS,
) -> pd.DataFrame:
    """AUROC, sensitivity and specificity of all images and within each group, at one threshold.

    View, source and finding are those of the predictions table, sex and age those of the manifest, joined by
    `image_id`. What a group is told by can be absent: these images are the group "unknown", last of its kind.
    A finding is set against all images of `positive`: the group holds both, and its sensitivity is that of
    all. An image of several findings (joined by "|") is in the group of each.

    The groups were not made to be compared: with some 20 of them, one interval in 20 misses by chance.

    Args:
        predictions: Rows of one split.
        manifest: With these images, and any others; without it, or without its columns `sex` and `age`, sex
            and age are unknown.
        threshold: Operating point in [0, 1], the one of all images, chosen on val; of a cross-validation one
            per row, shape `(n,)`. None: there is none, and sensitivity and specificity cannot be told.
        positive: Label to detect.
        draws: Bootstrap draws of patients within each group.
        seed: Of the draws, a non-negative integer.
        kinds: Some of `KINDS`, by which groups are made.
    Returns:
        One row per group: by ("all", "view", "sex", "age", "finding", "source"), group, n, patients,
        positives, positive_patients, other_patients; of each of `METRICS` the value, `_low` and `_high` (NaN
        where there is none), and note: why a number or an interval is absent, and which class has fewer than
        `FEW_PATIENTS` patients; "" otherwise. Ages are in `AGE_BANDS`, of years.
    Raises:
        DataError: If the table is not valid, has several splits, or images that are not in the manifest.
        ValueError: If `threshold` is outside [0, 1], or `kinds` are none of `KINDS`.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"`kinds` must be some of {KINDS}. Received: {unknown}")
    is_positive, _ = metrics.one_split(predictions, positive)
    rows = []
    for by, group, members in _groups(predictions, manifest, is_positive):
        if by not in ("all", *kinds):
            continue
        own = threshold if threshold is None else np.broadcast_to(threshold, len(predictions))[members]
        found = _numbers(predictions[members], own, positive, draws, seed)
        rows.append({"by": by, "group": group} | found)
    return pd.DataFrame(rows)


def _groups(
    predictions: pd.DataFrame, manifest: pd.DataFrame | None, is_positive: _Mask
) -> Iterator[tuple[str, str, _Mask]]:
    """What the group is told by, its name, and its members."""
    sex, age = _sex_and_age(predictions, manifest)
    view, source = (_known(predictions[name]) for name in ("view", "source"))
    yield "all", "all", np.ones(len(predictions), dtype=bool)
    for by, values in (("view", view), ("sex", sex), ("age", age)):
        for group in _in_order(values):
            yield by, group, (values == group).to_numpy()
    findings = predictions["finding"].str.split("|").map(lambda names: {name or UNKNOWN for name in names})
    for group in _in_order(findings[~is_positive].explode()):
        members = findings.map(lambda names, group=group: group in names).to_numpy(bool)
        yield "finding", group, members | is_positive
    for group in _in_order(source):
        yield "source", group, (source == group).to_numpy()


def _sex_and_age(predictions: pd.DataFrame, manifest: pd.DataFrame | None) -> tuple[pd.Series, pd.Series]:
    unknown = pd.Series(UNKNOWN, index=predictions.index)
    if manifest is None:
        return unknown, unknown
    rows = manifest.set_index("image_id").reindex(predictions["image_id"])
    absent = ~predictions["image_id"].isin(manifest["image_id"])
    if absent.any():
        raise DataError(
            f"manifest: a row for each scored image was wanted. Received: none for {int(absent.sum())} of "
            f"{len(absent)}, such as {predictions['image_id'][absent].iloc[0]!r}"
        )
    sex, age = unknown, unknown
    if "sex" in rows:
        sex = _known(rows["sex"].set_axis(predictions.index))
    if "age" in rows:
        years = pd.to_numeric(rows["age"], errors="coerce").to_numpy(float)
        bands = pd.cut(years, _AGE_EDGES, right=False, labels=AGE_BANDS)
        age = pd.Series(bands, index=predictions.index).astype(object).fillna(UNKNOWN)
    return sex, age


def _known(values: pd.Series) -> pd.Series:
    return values.fillna(UNKNOWN).replace({"": UNKNOWN, "UNKNOWN": UNKNOWN})


def _in_order(values: pd.Series) -> list[str]:
    """Names in the order of the alphabet, unknown last."""
    return sorted(set(values), key=lambda name: (name == UNKNOWN, name))


def _numbers(
    rows: pd.DataFrame, threshold: npt.NDArray | None, positive: str, draws: int, seed: int
) -> dict[str, float | str]:
    if threshold is None:
        untold = intervals.untold("no threshold", len(rows), rows["patient_id"].nunique())
        found = {"sensitivity": untold, "specificity": untold}
    else:
        found = thresholds.at_threshold(rows, threshold, positive, draws, seed)
    label = rows["label"] == positive
    patients = {
        name: rows["patient_id"][of].nunique() for name, of in (("positive", label), ("other", ~label))
    }
    if label.nunique() == 2:
        found["auroc"] = metrics.auroc(rows, positive, draws, seed)
    else:
        reason = f"all images are {positive}" if label.all() else f"no image is {positive}"
        found["auroc"] = intervals.untold(reason, len(rows), rows["patient_id"].nunique())
    result = {"n": len(rows), "patients": rows["patient_id"].nunique(), "positives": int(label.sum())}
    result |= {f"{name}_patients": count for name, count in patients.items()}
    for name in METRICS:
        value, (low, high) = found[name]["value"], found[name]["ci95"] or (np.nan, np.nan)
        result |= {name: np.nan if value is None else value, f"{name}_low": low, f"{name}_high": high}
    return result | {"note": _note(found, patients)}


def _note(found: dict[str, dict], patients: dict[str, int]) -> str:
    notes = [
        f"{name}: {found[name]['method']}"
        for name in METRICS
        if found[name]["value"] is None or found[name]["ci95"] is None
    ]
    few = [f"{count} {name}" for name, count in patients.items() if 0 < count < FEW_PATIENTS]
    return "; ".join(notes + ([f"few patients: {', '.join(few)}"] if few else []))
