"""Tests of covidtf.metrics.record: from what is kept, the numbers of the ablation come out again."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from test_ablation import baseline, folds, run
from test_multiclass import NAMES

from covidtf.files import write_csv
from covidtf.metrics import ablation, record

PROVENANCE = {"seconds": 2.0, "commit": "c", "dirty": False, "smoke": False}
PROVENANCE |= {
    "sha256": {"weights": "w", "predictions": "p"},
    "started_from": {"weights": "s", "head": "new"},
}


def named(runs: list) -> list:
    """The same with a record each, and names of their own."""
    return [replace(one, run_id=f"run{index}", provenance=PROVENANCE) for index, one in enumerate(runs)]


def everything() -> list:
    """Two methods of two seeds, a baseline, and a cross-validation of one."""
    networks = [run(method, seed) for method in ("cross-entropy", "full") for seed in range(2)]
    return named([*networks, baseline(), *folds(0), *folds(1)])


def test_records_say_what_each_run_was():
    """Method and settings as in the table, how it was made, and nothing for what a baseline has not."""
    runs = named([run("full", epochs=5), run(epochs=9, start="ImageNet", folds=3, fold=2), baseline()])
    found = record.records(runs)
    assert found["method"].tolist() == ["full", "cross-entropy", "mean and std (no network)"]
    assert found["network"].tolist() == ["ResNet18", "ResNet18", "mean and std (no network)"]
    assert found["start"].tolist() == ["random weights", "ImageNet", "no weights"]
    assert found[["folds", "fold"]].to_numpy().tolist() == [[0, 0], [3, 2], [0, 0]]
    assert found.loc[2, ["loss", "beta", "auxiliary", "label_noise", "epochs"]].isna().all()
    assert found.loc[0, ["loss", "beta", "epochs"]].tolist() == ["cross_entropy", 0.999, 5]
    assert found["predictions_sha256"].tolist() == ["p"] * 3
    assert not found.columns.duplicated().any()
    kept = ["seconds", "commit", "dirty", "smoke", "started_from_sha256", "head", "weights_sha256"]
    assert found.loc[0, kept].tolist() == [2.0, "c", False, False, "s", "new", "w"]


def macro_auroc(rows: pd.DataFrame, run_id: str) -> float:
    """By scikit-learn, from the columns of a run."""
    return np.mean([roc_auc_score(rows["label"] == name, rows[f"{run_id} {name}"]) for name in NAMES])


@pytest.mark.parametrize("most", [2000, 100])
def test_scores_give_the_table_again(most, tmp_path):
    """From the two files alone come every group's macro AUROC by slice, or by case where slices are many."""
    runs = everything()
    records = record.records(runs)
    path = write_csv(record.scores(runs, most), tmp_path / "scores.csv")
    scores = pd.read_csv(path)
    level = "slice" if most == 2000 else "case"
    assert set(scores["level"]) == {level}
    assert set(scores["split"]) == {"val", "test"}
    table = ablation.table(runs, draws=50)
    rows = table[(table["metric"] == "auroc") & (table["level"] == level)]
    assert len(rows) == 4
    for row in rows.itertuples():
        own = records[(records["method"] == row.method) & ((records["folds"] > 0) == (row.part != "split"))]
        found = []
        for _, of_seed in own.groupby("seed"):
            part = scores[(scores["part"] == row.part) & (scores["split"] == "test")]
            merged = part.copy()
            for name in NAMES:
                merged[f"all {name}"] = part[[f"{one} {name}" for one in of_seed["run_id"]]].sum(axis=1)
                counted = part[[f"{one} {name}" for one in of_seed["run_id"]]].notna().sum(axis=1)
                assert set(counted) == {1}
            found.append(macro_auroc(merged, "all"))
        assert row.value == pytest.approx(np.mean(found), abs=1e-6)


def test_names_of_data_under_an_agreement_are_hashes():
    """Of COVID19-Diag no name of a case gets into what is published; equal names have equal hashes."""
    one = run()
    there = one.predictions.assign(source="COVID19-Diag", case_id="Mrs X", patient_id="Mrs X")
    there["image_id"] = [f"Mrs X#{row}" for row in range(len(there))]
    (one,) = named([replace(one, predictions=there)])
    found = record.scores([one])
    assert "Mrs X" not in found.to_csv()
    assert found["patient_id"].str.fullmatch("[0-9a-f]{16}").all()
    assert found["image_id"].is_unique and len(set(found["case_id"])) == 1


def test_many_runs_are_kept_without_a_warning():
    """The columns of fifty runs, of which pandas complained in an executed notebook."""
    found = record.scores(named([run(seed=seed) for seed in range(50)]))
    assert len(found.columns) == 10 + 50 * 3


def test_folds_are_told_apart():
    """Each row of a cross-validation says whose test it is."""
    found = record.scores(named(folds(0)))
    assert found["fold"].value_counts().to_dict() == {0: 27, 1: 27, 2: 18}
    for index in range(3):
        assert (found[f"run{index} Normal"].notna() == (found["fold"] == index)).all()


def test_slices_of_unknown_cases_stay_slices():
    """However many there are, no case can be made of them."""
    one = run()
    (one,) = named([replace(one, predictions=one.predictions.assign(case_id=""))])
    assert set(record.scores([one], most=10)["level"]) == {"slice"}
