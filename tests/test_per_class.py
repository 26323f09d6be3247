"""Each class of each method, over seeds and folds: values are those of the single runs."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score
from test_ablation import baseline, run
from test_multiclass import NAMES, called, predictions, random

from covidtf import tables
from covidtf.files import DataError
from covidtf.metrics import ablation, multiclass, per_class


def seeds(**config) -> list:
    return [run("full", seed, better=0.6, **config) for seed in range(3)]


def test_values_are_means_over_the_seeds_and_counts_their_sums():
    """By slice, against scikit-learn of each seed; the macro average is last."""
    runs = seeds()
    found = per_class.evaluated([*runs, baseline()], levels=("slice",), draws=50)
    tests = [one.predictions.query("split == 'test'") for one in runs]
    table = per_class.table(found)
    own = table[table["method"] == "full"].set_index("class")
    assert list(own.index) == [*NAMES, "macro average"] and set(own["seeds"]) == {3}
    recalls = np.mean(
        [recall_score(t["label"], called(t), labels=NAMES, average=None) for t in tests], axis=0
    )
    assert own.loc[list(NAMES), "sensitivity"].to_numpy() == pytest.approx(recalls)
    assert own.loc["macro average", "sensitivity"] == pytest.approx(recalls.mean())
    assert (own["auroc_low"] < own["auroc"]).all() and (own["auroc"] < own["auroc_high"]).all()
    counts = per_class.confusion(found)
    counts = counts[counts["method"] == "full"].pivot_table(index="label", columns="called", values="count")
    wanted = sum(confusion_matrix(t["label"], called(t), labels=NAMES) for t in tests)
    assert counts.loc[list(NAMES), list(NAMES)].to_numpy().tolist() == wanted.tolist()
    whole = ablation.table([*runs, baseline()], levels=("slice",), draws=50, seed=3).query("method == 'full'")
    again = per_class.table(per_class.evaluated(runs, levels=("slice",), draws=50, seed=3)).iloc[-1]
    for metric in ("auroc", "f1"):
        (row,) = whole[whole["metric"] == metric].to_dict("records")
        limits = [again[metric], again[f"{metric}_low"], again[f"{metric}_high"]]
        assert limits == pytest.approx([row["value"], row["low"], row["high"]])
    base = table[table["method"].str.startswith("mean and std")]
    assert len(base) == 4 and set(base["seeds"]) == {1}


def test_one_table_is_judged_as_evaluate_judges_it():
    """Of one seed, apart from the number of seeds."""
    rows = random(2)
    assert multiclass.over_seeds([rows], draws=50) == multiclass.evaluate(rows, draws=50) | {"seeds": 1}
    twice = multiclass.over_seeds([rows, rows.sample(frac=1, random_state=0)], draws=50)
    once = multiclass.evaluate(rows, draws=50)
    assert twice["macro"] == once["macro"] and twice["per_class"] == once["per_class"]
    assert twice["confusion"] == (2 * np.array(once["confusion"])).tolist()


def test_a_class_that_one_seed_never_calls_has_no_ppv():
    """The mean would be over another number of seeds; why is said."""
    labels = np.array(NAMES)[[0, 0, 1, 1, 2, 2]]
    sure = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    never = np.eye(3)[[0, 0, 1, 1, 0, 1]]
    found = multiclass.over_seeds([predictions(sure, labels), predictions(never, labels)], draws=20)
    ppv = found["per_class"][NAMES[2]]["ppv"]
    assert (ppv["value"], ppv["n"]) == (None, 1)
    assert ppv["method"] == found["macro"]["ppv"]["method"]
    assert ppv["method"] == "cannot be told: it cannot be told of one of the seeds"


def test_other_rows_are_refused():
    """Of another test, of no table at all, with other classes."""
    rows = random(1)
    with pytest.raises(DataError, match=r"table 1: the 240 images of 'table 0'.*Received: 239, 1 of them"):
        multiclass.over_seeds([rows, rows.iloc[1:]])
    with pytest.raises(DataError, match="at least one table was wanted"):
        multiclass.over_seeds([])
    renamed = rows.assign(label=rows["label"].replace({"Normal": "COVID-19"}))
    with pytest.raises(DataError, match=r"table 1: the 240 images .* Received: 240, 80 of them"):
        multiclass.over_seeds([rows, renamed])
    swapped = rows[[*rows.columns[:-2], rows.columns[-1], rows.columns[-2]]]
    with pytest.raises(DataError, match=r"table 1: .'score_COVID-19', .* were wanted"):
        multiclass.over_seeds([rows, swapped])


def test_folds_are_pooled_and_cases_follow_the_runs_rule():
    """Five folds are one row of 120 cases; by case each case is called once."""
    folds = [
        replace(
            one,
            predictions=one.predictions.assign(
                **{key: f"{fold}/" + one.predictions[key] for key in ("image_id", "patient_id", "case_id")}
            ),
        )
        for fold in range(5)
        for one in [run(fold=fold, folds=5, splits=("test",), better=0.5)]
    ]
    found = per_class.evaluated(folds, draws=20)
    assert [first["level"] for first, _ in found] == ["slice", "case"]
    assert {first["part"] for first, _ in found} == {"cross-validation, 5 folds"}
    assert [np.sum(result["confusion"]) for _, result in found] == [360, 120]
    assert [first["rule"] for first, _ in found] == ["", "mean"]


def test_cases_name_the_rule_that_val_chose_for_each_seed():
    """As the comparison does."""
    runs = seeds()
    (first, result), *_ = per_class.evaluated(runs, levels=("case",), draws=20)
    table = ablation.table(runs, levels=("case",), draws=20)
    assert first["rule"] == table["rule"].iloc[0] and first["rule"].count(",") == 2
    shown = tables.per_class(per_class.table([(first, result)]), "case")
    assert set(shown["Rule (one per seed)"]) == {first["rule"]} and len(shown) == 4


def test_ppv_counts_the_patients_of_one_seed():
    """Three seeds call other patients; the interval is not that of all of them together."""
    labels = np.repeat(np.array(NAMES), 20)
    one = np.eye(3)[np.repeat(np.arange(3), 20)]
    seeds = [one.copy() for _ in range(3)]
    for place, scores in enumerate(seeds):
        # Of COVID-19 only another third is called so, always rightly.
        scores[:20] = np.eye(3)[1]
        scores[place * 6 : place * 6 + 6] = np.eye(3)[0]
    found = multiclass.over_seeds([predictions(scores, labels) for scores in seeds], draws=50)
    ppv = found["per_class"]["COVID-19"]["ppv"]
    assert (ppv["value"], ppv["n"], ppv["patients"], ppv["n_effective"]) == (1.0, 6, 6, 6.0)


def test_the_table_for_people_has_one_cell_per_metric():
    """Names tell methods apart by the settings that differ, and by nothing else."""
    runs = [one for start in ("random weights", "Tiny ImageNet") for one in seeds(start=start)]
    runs = [replace(one, config=one.config | {"start": one.config["start"]}) for one in runs]
    table = per_class.table(per_class.evaluated(runs, levels=("slice",), draws=20))
    shown = tables.per_class(table, "slice", "split")
    assert list(shown.columns[:5]) == ["Method", "Started from", "Seeds", "Class", "Slices (patients)"]
    assert shown["Class"].tolist() == [*NAMES, "macro average"] * 2
    assert shown["F1 (95 % CI)"].str.fullmatch(r"0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\)").all()
    names = tables.group_names(table.drop_duplicates("start"))
    assert names == ["full, started from random weights", "full, started from Tiny ImageNet"]
    with pytest.raises(DataError, match=r"rows of \('split', 'case'\) were wanted"):
        tables.per_class(table, "case", "split")
