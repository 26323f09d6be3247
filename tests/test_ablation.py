"""Tests of covidtf.metrics.ablation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from test_multiclass import NAMES, called, predictions

from covidtf.files import DataError
from covidtf.metrics import ablation, cases, grouping, intervals, judged, multiclass
from covidtf.runs import Run

METHODS = {
    "cross-entropy": ("cross_entropy", 0.0, "none"),
    "class-balanced": ("cross_entropy", 0.999, "none"),
    "deep supervision": ("cross_entropy", 0.0, "fixed"),
    "deep supervision, learned weights": ("cross_entropy", 0.0, "learned"),
    "class-balanced, deep supervision": ("cross_entropy", 0.999, "fixed"),
    "full": ("cross_entropy", 0.999, "learned"),
    "cross-entropy, generalized": ("generalized", 0.0, "none"),
    "full, symmetric": ("symmetric", 0.999, "learned"),
}


def rows(split: str, count: int, better: float, *seeds: int) -> pd.DataFrame:
    """`count` cases of three slices, scores leaning towards the label by `better`."""
    case = np.repeat(np.arange(count), 3)
    raw = np.random.default_rng([*seeds, len(split)]).random((len(case), 3)) + better * np.eye(3)[case % 3]
    names = [f"{split}{index}" for index in case]
    found = predictions(raw / raw.sum(axis=1, keepdims=True), np.array(NAMES)[case % 3], split=split)
    images = [f"{split}{index}" for index in range(len(case))]
    return found.assign(patient_id=names, case_id=names, image_id=images)


def run(method="cross-entropy", seed=0, better=0.3, splits=("val", "test"), **config) -> Run:
    """A run of that method, judged on 24 cases of each split."""
    loss, beta, auxiliary = METHODS[method]
    settings = {"network": "ResNet18", "start": "random weights", "seed": seed, "label_noise": 0.0}
    settings |= {"loss": loss, "beta": beta, "auxiliary": auxiliary, "folds": 0, "fold": 0} | config
    number = list(METHODS).index(method)
    tables = [rows(split, 24, better, seed, number) for split in splits]
    return Run(f"{method}-{seed}", "run", settings, {}, pd.concat(tables, ignore_index=True))


def baseline(**config) -> Run:
    """Mean and std of the same images, which its data step wrote."""
    settings = {"network": "mean and std (no network)", "baseline": True, "seed": 0, "folds": 0, "fold": 0}
    return replace(run(better=0.0), run_id="baseline", config=settings | config)


def values(table: pd.DataFrame) -> dict[str, float]:
    """The three metrics by scikit-learn."""
    areas = [roc_auc_score(table["label"] == name, table[f"score_{name}"]) for name in NAMES]
    f1 = f1_score(table["label"], called(table), average="macro")
    return {"auroc": np.mean(areas), "f1": f1, "accuracy": accuracy_score(table["label"], called(table))}


def test_values_are_means_over_the_seeds():
    """Mean, lowest and highest, by slice and by case, are scikit-learn's of each seed."""
    seeds = [run(seed=seed) for seed in range(3)]
    found = ablation.table(seeds, draws=100)
    assert found[["level", "metric"]].to_numpy().tolist() == [
        [level, metric] for level in judged.LEVELS for metric in ablation.METRICS
    ]
    for row in found.itertuples():
        tables = [one.predictions.query("split == 'test'") for one in seeds]
        if row.level == "case":
            rules = [cases.choose_rule(one.predictions.query("split == 'val'")) for one in seeds]
            assert row.rule == ", ".join(f"{one['rule']} {one['k'] or ''}".strip() for one in rules)
            tables = [
                cases.case_scores(table, rule["rule"], rule["k"] or 1)
                for table, rule in zip(tables, rules, strict=True)
            ]
        single = [values(table)[row.metric] for table in tables]
        assert row.value == pytest.approx(np.mean(single))
        assert (row.lowest, row.highest) == pytest.approx((min(single), max(single)))
        assert [float(one) for one in row.of_seeds.split()] == pytest.approx(single)
        assert row.low < row.value < row.high
        assert (row.seeds, row.split, row.patients) == (3, "test", 24)
        assert row.n == (72 if row.level == "slice" else 24)
        assert (row.gain_is, np.isnan(row.gain)) == ("", True)


def test_the_ensemble_is_judged_by_the_mean_of_the_seeds_scores():
    """Scores of three seeds averaged row by row, in whatever order they come, judged by scikit-learn."""
    seeds = [run(seed=seed) for seed in range(3)]
    seeds[1] = replace(seeds[1], predictions=seeds[1].predictions.iloc[::-1].reset_index(drop=True))
    found = ablation.table(seeds, levels=("slice",), draws=100).set_index("metric")
    tables = [one.predictions.query("split == 'test'").set_index("image_id").sort_index() for one in seeds]
    scores = sum(table.filter(like="score_") for table in tables) / 3
    wanted = values(tables[0].assign(**scores))
    for metric in ablation.METRICS:
        row = found.loc[metric]
        assert row["ensemble"] == pytest.approx(wanted[metric])
        assert row["ensemble_low"] < row["ensemble"] < row["ensemble_high"]
    alone = ablation.table(seeds[:1], levels=("slice",), draws=100)
    assert alone[["ensemble", "ensemble_low", "ensemble_high"]].isna().all(axis=None)


def test_one_seed_has_the_interval_of_evaluate():
    """The limits of a group of one run are those of `multiclass.evaluate` with the same draws."""
    one = run()
    found = ablation.table([one], levels=("slice",), draws=200, seed=4).set_index("metric")
    wanted = multiclass.evaluate(one.predictions.query("split == 'test'"), draws=200, seed=4)
    for name, metric in [
        ("auroc", wanted["macro"]["auroc"]),
        ("f1", wanted["macro"]["f1"]),
        ("accuracy", wanted["accuracy"]),
    ]:
        assert [found.loc[name, "low"], found.loc[name, "high"]] == pytest.approx(metric["ci95"])


def test_the_reference_has_the_same_label_noise_and_start():
    """Each method is held against cross-entropy under its own conditions; without that there is no gain."""
    noisy = [
        run(name, label_noise=0.1, better=better) for name, better in (("full", 1.0), ("cross-entropy", 0.1))
    ]
    runs = [*noisy, run(better=0.5), run("full", better=0.5), run("full", start="ImageNet")]
    found = ablation.table(runs, levels=("slice",), draws=100).query("metric == 'auroc'")
    assert found[["label_noise", "start", "method"]].to_numpy().tolist() == [
        [0.0, "random weights", "cross-entropy"],
        [0.0, "random weights", "full"],
        [0.0, "ImageNet", "full"],
        [0.1, "random weights", "cross-entropy"],
        [0.1, "random weights", "full"],
    ]
    value, gain = found["value"].tolist(), found["gain"].tolist()
    assert [gain[1], gain[4]] == pytest.approx([value[1] - value[0], value[4] - value[3]])
    assert np.isnan([gain[0], gain[2], gain[3]]).all()


def test_gain_by_hand():
    """Value and limits of a gain are those of the difference of two means in the same draws."""
    plain, full = (
        [run(name, seed, better) for seed in range(2)]
        for name, better in (("cross-entropy", 0.1), ("full", 1.0))
    )
    found = ablation.table([*full, *plain], levels=("slice",), draws=200, seed=1)
    row = found.query("metric == 'f1' and method == 'full'").iloc[0]
    drawn = [
        [multiclass.overall_draws(one.predictions.query("split == 'test'"), 200, 1)["f1"] for one in runs]
        for runs in (full, plain)
    ]
    value, other = (np.mean([one[0] for one in runs]) for runs in drawn)
    assert row["gain"] == pytest.approx(value - other)
    difference = np.mean([one[1] for one in drawn[0]], axis=0) - np.mean([one[1] for one in drawn[1]], axis=0)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(intervals.percentiles(difference))
    assert row["gain_is"] == "above 0"


def test_the_table_says_where_the_full_method_does_not_win():
    """A worse method is below 0, one that does the same is not told from 0."""
    plain = run(better=1.0)
    same = replace(run("full"), predictions=run("full", better=1.0).predictions)
    worse = run("class-balanced", better=0.0)
    found = ablation.table([plain, same, worse], levels=("slice",), draws=200).query("metric == 'auroc'")
    assert found["method"].tolist() == ["cross-entropy", "class-balanced", "full"]
    assert found["gain_is"].tolist() == ["", "below 0", "not told from 0"]


def test_val_alone_is_judged_by_the_mean():
    """Without test, val is judged, and no rule is chosen on it."""
    only = run(splits=("val",))
    found = ablation.table([only], draws=50)
    assert set(found["split"]) == {"val"}
    assert found["rule"].tolist() == [""] * 3 + ["mean"] * 3
    wanted = values(cases.case_scores(only.predictions, "mean"))
    assert found.query("level == 'case'")["value"].tolist() == pytest.approx(
        [wanted[name] for name in ablation.METRICS]
    )


def test_unknown_cases_are_judged_by_slice():
    """Where the cases are not known slices are judged alone; cases that are asked for are missed by name."""
    one = run()
    one = replace(one, predictions=one.predictions.assign(case_id=""))
    assert set(ablation.table([one], draws=50)["level"]) == {"slice"}
    with pytest.raises(DataError, match=r"cross-entropy-0: .*`case_id` must be known"):
        ablation.table([one], levels=("slice", "case"), draws=50)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "runs: at least one was wanted"),
        ([run(), run()], r"one run of each seed and fold was wanted\. Received: \[\(0, 0\), \(0, 0\)\]"),
        ([run(), run(seed=1, network="ResNet50")], r"settings of cross-entropy-0 were wanted.*\['network'\]"),
        (
            [run(), run("full", splits=("test",)), run("full", 1, splits=("val",))],
            r"full-1: the 72 images of 'cross-entropy-0' were wanted\. Received: 72, 144 of them",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, message):
    """No run, a seed twice, another network in a group, other rows."""
    with pytest.raises(DataError, match=message):
        ablation.table(runs, draws=50)


def test_a_setting_that_is_named_tells_groups_apart():
    """Other networks are groups of their own if `by` names the network, each with its own reference."""
    runs = [run(network=name) for name in ("ResNet18", "ResNet50")] + [run("full", network="ResNet50")]
    found = ablation.table(runs, by=("network", *grouping.BY), levels=("slice",), draws=50)
    assert found.query("metric == 'f1'")["network"].tolist() == ["ResNet18", "ResNet50", "ResNet50"]
    assert found.query("metric == 'f1'")["gain"].notna().tolist() == [False, False, True]


def test_what_else_differs_from_the_reference_is_listed():
    """A method trained for longer than its reference is not compared in silence; fusion needs heads."""
    runs = [
        run(epochs=5, fusion="main"),
        run("full", epochs=50, fusion="mean"),
        run("class-balanced", epochs=5, fusion="main"),
    ]
    found = ablation.table(runs, levels=("slice",), draws=50)
    assert found["also_differs"].tolist() == ["", "", "epochs"] * 3


def test_a_class_that_is_not_judged_leaves_its_averages_untold():
    """Without a slice of Normal there is no macro average; accuracy stands."""
    one = run(splits=("test",))
    one = replace(one, predictions=one.predictions.query("label != 'Normal'"))
    found = ablation.table([one], draws=50).set_index(["level", "metric"])
    assert found.loc[("slice", "auroc"), ["value", "low", "high"]].isna().all()
    assert found.loc[("case", "f1"), ["value", "low", "high"]].isna().all()
    assert found.loc[("slice", "accuracy"), ["value", "low", "high"]].notna().all()


def test_weights_of_another_file_may_be_another_seed():
    """Starts that read alike are one group, though each seed started from a file of its own."""
    runs = [run(seed=seed, start="ImageNet", weights=f"runs/{seed}") for seed in range(2)]
    assert ablation.table(runs, levels=("slice",), draws=50)["seeds"].tolist() == [2] * 3


def test_a_missing_setting_and_an_unknown_level_are_refused():
    """A run of another step has no loss; a level is slice or case."""
    plain = run()
    del plain.config["loss"]
    with pytest.raises(DataError, match="cross-entropy-0: setting 'loss' is missing"):
        ablation.table([plain], draws=50)
    with pytest.raises(ValueError, match=r"`levels` must be some of .* Received: \('image',\)"):
        ablation.table([run()], levels=("image",), draws=50)


def folds(seed: int, count: int = 3, method: str = "cross-entropy", better: float = 0.5) -> list[Run]:
    """A cross-validation of 24 cases: each is tested in one of three folds."""
    whole = rows("test", 24, better, seed, list(METHODS).index(method))
    fold = whole["case_id"].str.removeprefix("test").astype(int) // 3 % 3
    return [
        replace(
            run(method, seed, folds=3, fold=index),
            predictions=pd.concat([rows("val", 6, better, seed), whole[fold == index]], ignore_index=True),
        )
        for index in range(count)
    ]


def test_cross_validation_judges_the_pooled_folds():
    """Each seed's folds are one table; the mean within folds stands beside, cases are means of slices."""
    runs = [*folds(0), *folds(1)]
    found = ablation.table(runs[::-1], draws=100)
    tests = [one.predictions.query("split == 'test'") for one in runs]
    for level in judged.LEVELS:
        tables = tests if level == "slice" else [cases.case_scores(table, "mean") for table in tests]
        single = [values(pd.concat(tables[start : start + 3])) for start in (0, 3)]
        part = found[found["level"] == level].set_index("metric")
        for name in ablation.METRICS:
            assert part.loc[name, "value"] == pytest.approx(np.mean([one[name] for one in single]))
        assert part.loc["auroc", "within_folds"] == pytest.approx(
            np.mean([values(one)["auroc"] for one in tables])
        )
        assert np.isnan(part.loc["f1", "within_folds"])
    assert set(found["folds"]) == {3}
    assert set(found["seeds"]) == {2}
    assert set(found["split"]) == {"test"}
    assert found["patients"].tolist() == [24] * 6
    assert set(found["rule"]) == {"", "mean, mean"}


def test_cross_validations_are_compared_like_runs():
    """The gain over cross-entropy is of the pooled tables of the same cases."""
    found = ablation.table([*folds(0, better=0.1), *folds(0, method="full", better=1.5)], draws=100)
    row = found.query("level == 'slice' and metric == 'auroc' and method == 'full'").iloc[0]
    assert row["gain_is"] == "above 0"


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (folds(0, count=2), r"folds \[0, 1, 2\] of seed 0 were wanted\. Received: \[0, 1\]"),
        ([replace(one, predictions=rows("val", 6, 1, 0)) for one in folds(0)], "rows of test were wanted"),
        ([replace(one, predictions=folds(0)[0].predictions) for one in folds(0)], "must be in one fold"),
    ],
)
def test_incomplete_cross_validations_are_refused(runs, message):
    """An absent fold, folds without test, and one fold's rows under three names."""
    with pytest.raises(DataError, match=message):
        ablation.table(runs, draws=50)


def test_heads_do_not_part_a_method_from_its_reference():
    """The reference has no heads: full methods that fuse theirs in two ways are both held against it."""
    plain, full = run(better=0.1), run("full", better=1.0)
    runs = [with_settings(plain, fusion="main"), with_settings(full, fusion="main")]
    runs += [with_settings(replace(full, run_id="mean"), fusion="mean")]
    found = ablation.table(runs, by=(*grouping.BY, "fusion"), levels=("slice",), draws=100)
    rows = found.query("metric == 'auroc'")
    assert rows[["method", "fusion"]].to_numpy().tolist() == [
        ["cross-entropy", "main"],
        ["full", "main"],
        ["full", "mean"],
    ]
    assert rows["gain"].tolist()[1] == rows["gain"].tolist()[2] > 0


def with_settings(one: Run, **config) -> Run:
    return replace(one, config=one.config | config)


def test_starts_are_compared_with_everything_else_equal():
    """Gain over random weights is of the same method; where another setting differs too, there is none."""
    by = (*grouping.BY, "head_epochs")
    scratch = [run(name, better=0.1, head_epochs=0) for name in ("cross-entropy", "full")]
    moved = [run("full", seed, 1.0, start="ImageNet", head_epochs=0) for seed in range(2)]
    staged = run("full", better=1.0, start="ImageNet", head_epochs=4)
    found = ablation.table([*scratch, *moved, staged], by=by, levels=("slice",), draws=200, seed=1)
    rows = found.query("metric == 'accuracy'").set_index(["start", "head_epochs", "method"])
    row = rows.loc[("ImageNet", 0, "full")]
    drawn = [
        multiclass.overall_draws(one.predictions.query("split == 'test'"), 200, 1)["accuracy"]
        for one in (*moved, scratch[1])
    ]
    difference = (drawn[0][1] + drawn[1][1]) / 2 - drawn[2][1]
    assert row["start_gain"] == pytest.approx((drawn[0][0] + drawn[1][0]) / 2 - drawn[2][0])
    assert (row["start_gain_low"], row["start_gain_high"]) == pytest.approx(intervals.percentiles(difference))
    assert rows["start_gain"].notna().sum() == 1


def test_one_table_holds_split_and_cross_validation_and_baselines():
    """Each part has rows and a reference of its own, and a row of the baseline, which gains nothing."""
    networks = [run(), run("full", better=1.0), *folds(0), *folds(0, method="full", better=1.5)]
    base = [replace(one, config=baseline(folds=3, fold=i).config) for i, one in enumerate(folds(0, better=0))]
    found = ablation.table([*networks, baseline(), *base], draws=50)
    name = "mean and std (no network)"
    rows = found.query("level == 'slice' and metric == 'auroc'").set_index(["part", "method"])
    parts = ("split", "cross-validation, 3 folds")
    assert rows.index.tolist() == [
        (part, method) for part in parts for method in ("cross-entropy", "full", name)
    ]
    assert rows["gain"].notna().tolist() == [False, True, False] * 2
    for part in parts:
        row = rows.loc[(part, name)]
        assert row["start"] == "no weights"
        assert row[["loss", "beta", "auxiliary", "label_noise", "start_gain"]].isna().all()
        assert row["folds"] == (1 if part == "split" else 3)
        over = rows.loc[part, "over_baseline"]
        value = rows.loc[part, "value"]
        assert over[["cross-entropy", "full"]].to_numpy() == pytest.approx(
            (value - value[name])[:2].to_numpy()
        )
        assert rows.loc[part, "best_baseline"].tolist() == [name, name, ""]
    assert rows["beats"].tolist() == ["yes", "yes", ""] * 2
    pooled = values(pd.concat([one.predictions.query("split == 'test'") for one in base]))
    assert rows.loc[(parts[1], name), "value"] == pytest.approx(pooled["auroc"])
