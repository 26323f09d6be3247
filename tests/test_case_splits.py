"""Splits by case: the published numbers, nothing that belongs together apart, folds that cover all once."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from covidtf import manifest
from covidtf.case_splits import fold, split_cases
from covidtf.files import DataError

NO_PAIRS = pd.DataFrame(columns=["image_id_a", "image_id_b", "kind"])


def slices(cases, per_case=3, patients=None):
    """Manifest of slices; `cases` is number by label, patients by case number where given."""
    rows, number = [], 0
    for label, count in cases.items():
        for _ in range(count):
            patient = (patients or {}).get(number, number)
            rows += [
                {"source": "s", "path": f"{number}#{i}", "label": label, "finding": label, "view": "UNKNOWN",
                 "patient_id": f"s:p{patient}", "case_id": f"s:{number}"}
                for i in range(per_case)
            ]  # fmt: skip
            number += 1
    return manifest.make(rows, "test")


def cases_of(table):
    """Cases by label and split."""
    return table.groupby(["label", "split"])["case_id"].nunique().to_dict()


def test_the_published_numbers():
    """61, 95 and 69 cases at 7 to 3 give the 18, 28 and 21 of the published test, halves to even."""
    table = split_cases(slices({"COVID-19": 61, "Normal": 95, "Bacterial Pneumonia": 69}), NO_PAIRS, seed=5)
    found = cases_of(table)
    assert [found[label, "test"] for label in ("COVID-19", "Normal", "Bacterial Pneumonia")] == [18, 28, 21]
    # round(0.1 * 43), round(0.1 * 67), round(0.1 * 48)
    assert [found[label, "val"] for label in ("COVID-19", "Normal", "Bacterial Pneumonia")] == [4, 7, 5]
    assert not table[["case_id", "split"]].drop_duplicates()["case_id"].duplicated().any()


def test_order_of_rows_does_not_matter_and_seeds_do():
    """The same cases are drawn from a shuffled table, others by another seed."""
    table = slices({"a": 20, "b": 20})
    shuffled = table.sample(frac=1, random_state=1)
    first, again = (split_cases(rows, NO_PAIRS).set_index("image_id")["split"] for rows in (table, shuffled))
    assert first.equals(again[first.index])
    other = split_cases(table, NO_PAIRS, seed=1).set_index("image_id")["split"]
    assert not first.equals(other)


def test_what_belongs_together_stays_together():
    """Two cases of one patient, and two with an equal slice, go the same way under every seed."""
    table = slices({"a": 12, "b": 12}, patients={1: 0})
    pair = pd.DataFrame({"image_id_a": ["s/5#0"], "image_id_b": ["s/7#1"], "kind": ["exact"]})
    for seed in range(8):
        split = split_cases(table, pair, seed=seed).groupby("case_id")["split"].first()
        assert split["s:0"] == split["s:1"]
        assert split["s:5"] == split["s:7"]


def test_near_slices_do_not_tie():
    """Only equal slices tie cases: neighbours of other people look alike, too."""
    table = slices({"a": 10, "b": 10})
    pair = pd.DataFrame({"image_id_a": ["s/0#0"], "image_id_b": ["s/1#1"], "kind": ["near"]})
    apart = [split_cases(table, pair, seed=seed).groupby("case_id")["split"].first() for seed in range(8)]
    assert any(split["s:0"] != split["s:1"] for split in apart)


def test_too_few_cases_are_said():
    """A class that cannot be in every split ends in an error with the counts."""
    with pytest.raises(DataError, match=r"label 'b' has 2 cases, too few .*'a': 10"):
        split_cases(slices({"a": 10, "b": 2}), NO_PAIRS)
    with pytest.raises(ValueError, match=r"`test` must be in \[0, 1\)"):
        split_cases(slices({"a": 10}), NO_PAIRS, test=1)


def test_folds_judge_each_image_of_train_and_val_once():
    """Five folds: every image once in test, patients in one split, the data set's own test in none."""
    table = slices({"a": 30, "b": 20}, patients={0: 1})
    own_test = table["case_id"].isin(["s:7", "s:44"])
    table = table.assign(split=np.where(own_test, "test", "train"))
    divisions = [fold(table, 5, index) for index in range(5)]
    for division in divisions:
        assert not division[["patient_id", "split"]].drop_duplicates()["patient_id"].duplicated().any()
        assert (division.loc[own_test, "split"] == "").all()
        assert set(division.loc[~own_test, "split"]) == {"train", "val", "test"}
    tested = sum((division["split"] == "test").astype(int) for division in divisions)
    assert tested.tolist() == (~own_test).astype(int).tolist()


def test_folds_keep_equal_files_together_and_else_are_those_of_the_patients():
    """Two patients with one file are in one fold; without such a file it is scikit-learn's division."""
    table = slices({"a": 20, "b": 20}).assign(split="train")
    names = [f"{row:064x}" for row in range(len(table))]
    alone = table.assign(sha256=names)
    names[3] = names[30]
    tied = table.assign(sha256=names)
    for index in range(4):
        split = fold(tied, 4, index)["split"]
        assert split[3] == split[30]
        plain = fold(table, 4, index)
        assert fold(alone, 4, index)["split"].equals(plain["split"])
        rows = table.sort_values("image_id")
        parts = StratifiedGroupKFold(4, shuffle=True, random_state=0)
        held = list(parts.split(rows, rows["label"], rows["patient_id"]))[index][1]
        assert set(plain.index[plain["split"] == "test"]) == set(rows.index[held])
    assert any(fold(alone, 4, i)["split"][3] != fold(alone, 4, i)["split"][30] for i in range(4))


def test_folds_leave_augmented_images_out():
    """A copy belongs to train alone, and not to a fold whose original is judged."""
    table = slices({"a": 12, "b": 12}).assign(split="train")
    copy = table.iloc[[0]].assign(image_id="copy", parent_id=table["image_id"].iloc[0])
    division = fold(pd.concat([table, copy], ignore_index=True), 4, 0)
    assert division["split"].iloc[-1] == ""


def test_wrong_folds_are_refused():
    """Too few folds, a fold that is none, and more folds than patients of a class."""
    table = slices({"a": 12, "b": 3}).assign(split="train")
    for folds, index in ((2, 0), (4, 4), (4, -1)):
        with pytest.raises(ValueError, match="`folds` must be at least 3"):
            fold(table, folds, index)
    with pytest.raises(DataError, match=r"4 folds need as many patients of 'b'\. Received: 3"):
        fold(table, 4, 0)
