"""Splits by case, as CT data sets are divided: in shares of each class, and folds of a cross-validation."""

from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from covidtf.duplicates import groups
from covidtf.files import DataError
from covidtf.images.store import Prepared

__all__ = ["fold", "folded", "split_cases", "units"]


def split_cases(
    table: pd.DataFrame, pairs: pd.DataFrame, test: float = 0.3, val: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Split at random by case, each class by itself: all slices of a case go one way.

    Of n cases of a class `round(test * n)` become test, halves to the even number, as the published 18, 28
    and 21 of 61, 95 and 69 do; then `round(val * rest)`, at least 1, become val. Cases that share a patient
    or a slice count as one, of several classes as one of the rarest. Slices do not enter: a class may have
    more of its slices in test than its share.

    Args:
        table: Manifest, one row per slice or per case; `split` is overwritten. Row order does not matter.
        pairs: As from `duplicates.duplicates`; exact ones tie cases together.
        test: Share of the cases of each label, in `[0, 1)`.
        val: Share of the rest, in `[0, 1)`.
        seed: Any integer >= 0.
    Returns:
        Copy of `table` with `split`.
    Raises:
        ValueError: If a share is out of range.
        DataError: If a class has too few cases to be in every split; gives the counts.
    """
    for name, share in (("test", test), ("val", val)):
        if not 0 <= share < 1:
            raise ValueError(f"`{name}` must be in [0, 1). Received: {share}")
    unit = units(table, pairs)
    cases = table.groupby("label")["case_id"].nunique()
    labels = table.groupby(unit)["label"].agg(
        lambda values: min(set(values), key=lambda one: (cases[one], one))
    )
    chosen = pd.Series("train", index=labels.index)
    for number, label in enumerate(sorted(set(labels))):
        names = labels.index[labels == label].sort_values().to_numpy(str)
        order = np.random.default_rng([seed, 4, number]).permutation(names)
        tested = round(test * len(order))
        judged = max(1, round(val * (len(order) - tested))) if val else 0
        if len(order) <= tested + judged or (test and not tested):
            raise DataError(
                f"label {label!r} has {len(order)} cases, too few for train, val and test. "
                f"Cases: {labels.value_counts().to_dict()}"
            )
        chosen[order[:tested]] = "test"
        chosen[order[tested : tested + judged]] = "val"
    return table.assign(split=unit.map(chosen).to_numpy())


def fold(table: pd.DataFrame, folds: int, index: int) -> pd.DataFrame:
    """One division of a cross-validation: train and val are cut anew by patient, one fold becomes test.

    Fold `index` is test, the next one val, the others train; patients, and cases with an equal slice, stay
    together, labels in proportion. The folds are the same for every seed. What the data set itself calls test
    is left out (split `""`), so that it stays unseen. Each image of train and val is in test in exactly one
    of the divisions.

    Args:
        table: Manifest with `split`.
        folds: Number of folds, at least 3.
        index: Which division, in `[0, folds)`.
    Returns:
        Copy of `table`; augmented images, which belong to train alone, get split `""`.
    Raises:
        ValueError: If an argument is out of range.
        DataError: If a class has fewer patients than there are folds.
    """
    if folds < 3 or not 0 <= index < folds:
        raise ValueError(f"`folds` must be at least 3 and `index` below it. Received: {folds} and {index}")
    pool = table["split"].isin(("train", "val")) & (table["parent_id"] == "")
    rows = table[pool].sort_values("image_id")
    for label, patients in rows.groupby("label")["patient_id"]:
        if patients.nunique() < folds:
            raise DataError(
                f"{folds} folds need as many patients of {label!r}. Received: {patients.nunique()}"
            )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    together = rows.groupby(units(rows, _equal(rows)))["patient_id"].transform("min")
    parts = [rows.index[held] for _, held in splitter.split(rows, rows["label"], together)]
    split = pd.Series("", index=table.index).mask(pool, "train")
    split[parts[index]] = "test"
    split[parts[(index + 1) % folds]] = "val"
    return table.assign(split=split)


def folded(prepared: Prepared, folds: int, index: int) -> Prepared:
    """A prepared data set whose manifest is divided as by `fold`."""
    return replace(prepared, manifest=fold(prepared.manifest, folds, index))


def units(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """What must stay together: the slices of a case, the cases of a patient or with an equal slice.

    Args:
        table: Manifest.
        pairs: As from `duplicates.duplicates`; exact ones tie.
    Returns:
        Name of the unit of each row, indexed as `table`.
    """
    first = table.groupby("case_id")["image_id"].transform("min")
    same_case = pd.DataFrame({"image_id_a": table["image_id"], "image_id_b": first})
    return groups(table, pd.concat([pairs[pairs["kind"] == "exact"], same_case], ignore_index=True))


def _equal(rows: pd.DataFrame) -> pd.DataFrame:
    """Pairs of images of one sha256, each with the first of them."""
    known = rows[rows["sha256"] != ""]
    first = known.groupby("sha256")["image_id"].transform("min")
    pairs = pd.DataFrame({"image_id_a": known["image_id"], "image_id_b": first}).assign(kind="exact")
    return pairs[pairs["image_id_a"] != pairs["image_id_b"]]
