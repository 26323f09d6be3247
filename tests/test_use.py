"""What a score is worth in use: what is judged, pairs, thresholds from val, scaling, and the words for it."""

from itertools import pairwise

import makers
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from covidtf import metrics, use_tables, use_words
from covidtf.config import UseConfig
from covidtf.figures import style
from covidtf.figures import use as figures
from covidtf.files import DataError
from covidtf.metrics import benefit, delong, paired, scored, temperature, thresholds, use
from covidtf.runs import Run

POSITIVE = "COVID-19"
DRAWS = 100


def rows(split: str, shift: float, seed: int, count: int = 60, start: int = 0) -> pd.DataFrame:
    """A third of `count` patients positive, two images each; scores lean towards the label by `shift`."""
    number = np.repeat(np.arange(start, start + count), 2)
    positive = number % 3 == 0
    noise = np.random.default_rng([seed, len(split), start]).normal(size=len(number))
    score = 1 / (1 + np.exp(-2 * (noise + shift * positive - 0.5)))
    names = [f"{split}{start}/{index}" for index in range(len(number))]
    patients = [f"{split}:{index}" for index in number]
    return makers.predictions(score, positive, split=split, image_id=names, patient_id=patients)


def run(name: str, shift: float, seed: int = 0, splits=("val", "test"), **config) -> Run:
    """A run of a network of that name."""
    tables = [rows(split, shift, seed + 10 * len(name)) for split in splits]
    config = {"network": name, "start": "random weights", "seed": seed} | config
    return Run(f"{name}-{seed}-0a", name, config, {}, pd.concat(tables, ignore_index=True))


def fold(index: int, shift: float = 1.0, seed: int = 0) -> Run:
    """One of three folds, whose test has 20 patients of its own."""
    tables = [rows("val", shift, seed, 40, 100 * index), rows("test", shift, seed, 20, 100 * index)]
    config = {"network": "ResNet18", "start": "random weights", "seed": seed, "folds": 3, "fold": index}
    return Run(f"fold{index}", f"fold{index}", config, {}, pd.concat(tables, ignore_index=True))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Two networks, one of them with two seeds, and two baselines."""
    return [
        run("weak (no network)", 0.1, baseline=True),
        run("ResNet50", 1.0),
        run("ResNet18", 2.0, seed=1),
        run("good (no network)", 0.8, baseline=True),
        run("ResNet18", 2.0, seed=0),
    ]


@pytest.fixture(scope="module")
def judged(runs) -> list[scored.Scored]:
    return scored.of_runs(runs)


def test_test_is_judged_and_val_stands_beside_it(judged, runs):
    """Networks by name and seed, baselines last; the rows are those of the run's test."""
    assert scored.names(judged) == [
        *("ResNet18, seed 0", "ResNet18, seed 1", "ResNet50"),
        *("weak (no network)", "good (no network)"),
    ]
    assert [one.baseline for one in judged] == [False] * 3 + [True] * 2
    for one in judged:
        assert set(one.rows["split"]) == {"test"} and len(one.rows) == 120
        assert [set(val["split"]) for val in one.val] == [{"val"}]
    own = runs[4].predictions
    expected = own.loc[own["split"] == "test", "score_COVID-19"]
    assert judged[0].rows["score_COVID-19"].tolist() == expected.tolist()


def test_one_seed_twice_is_refused():
    """Two runs that differ in nothing cannot both stand for the seed."""
    with pytest.raises(DataError, match=r"one run of each seed was wanted. Received: seeds \[0, 0\]"):
        scored.of_runs([run("ResNet18", 1.0), run("ResNet18", 1.0)])


def test_folds_have_thresholds_and_temperatures_of_their_own_val():
    """Each row of the pooled tests has what its own fold's val gives, and no other fold's."""
    runs = [fold(index) for index in (2, 0, 1)]
    (one,) = scored.of_runs(runs)
    assert (one.part, len(one.rows)) == ("cross-validation, 3 folds", 120)
    threshold, chosen = one.threshold("youden", POSITIVE)
    after, found = one.scaled(POSITIVE)
    for index in range(3):
        table = fold(index).predictions
        val, test = (table[table["split"] == split] for split in ("val", "test"))
        places = one.rows["image_id"].isin(test["image_id"]).to_numpy()
        alone = thresholds.choose(val)
        assert set(threshold[places]) == {alone["value"]} and chosen[index]["value"] == alone["value"]
        assert found[index] == temperature.fit(val)
        expected = temperature.scaled(test, found[index])["score_COVID-19"]
        assert after["score_COVID-19"][places].tolist() == expected.tolist()
    assert len(set(found)) == 3


def test_nothing_is_chosen_on_the_val_that_is_judged_or_on_two_patients():
    """Reasons instead of numbers, and an error for whoever asks all the same."""
    (one,) = scored.of_runs([run("ResNet18", 1.0, splits=("val",))])
    assert (set(one.rows["split"]), one.unchosen(POSITIVE)) == ({"val"}, "no test: val itself is judged")
    short = run("ResNet18", 1.0)
    few = short.predictions["split"].eq("val") & ~short.predictions["patient_id"].isin(
        ["val:0", "val:3", "val:1", "val:2", "val:4"]
    )
    table = short.predictions[~few].reset_index(drop=True)
    (small,) = scored.of_runs([Run(short.run_id, short.folder, short.config, {}, table)])
    assert small.unchosen(POSITIVE) == "too few patients of a class on val: 2"
    assert small.fewest(POSITIVE) == (2, 3)
    with pytest.raises(DataError, match="ResNet18: too few patients of a class on val: 2"):
        small.threshold("youden", POSITIVE)
    points = use.operating_points([one, small], draws=DRAWS)
    assert points["sensitivity"].isna().all() and points["threshold"].eq("").all()
    assert points["note"].str.startswith("cannot be told: ").all()
    calibration = use.calibration([one], draws=DRAWS)
    assert calibration["brier"].notna().tolist() == [True, False]
    assert calibration["note"].iloc[1] == "cannot be told: no test: val itself is judged"


def test_areas_are_means_over_seeds_with_both_intervals(judged):
    """The mean by scikit-learn, the range, and DeLong's interval of a single run as `delong` gives it."""
    table = paired.areas(judged, draws=DRAWS).set_index("network")
    by_seed = [roc_auc_score(one.rows["label"] == POSITIVE, one.rows["score_COVID-19"]) for one in judged]
    row = table.loc["ResNet18"]
    assert row["auroc"] == pytest.approx(np.mean(by_seed[:2]))
    assert (row["lowest"], row["highest"]) == pytest.approx((min(by_seed[:2]), max(by_seed[:2])))
    assert row["of_seeds"] == f"{by_seed[0]:.4f} {by_seed[1]:.4f}" and row["note"] == ""
    counts = row[["n", "patients", "positives", "positive_patients", "other_patients"]].tolist()
    assert counts == [120, 60, 40, 20, 40]
    single = table.loc["ResNet50"]
    alone = metrics.auroc(judged[2].rows, draws=DRAWS)
    assert [single["bootstrap_low"], single["bootstrap_high"]] == pytest.approx(alone["ci95"])
    found = delong.auroc(judged[2].rows)["ci95"]
    assert [single["delong_low"], single["delong_high"]] == pytest.approx(found)
    assert single["note"] == "one seed: spread over seeds cannot be told"


def test_delong_of_several_seeds_is_that_of_their_mean(judged):
    """Variance of the mean and of a difference of means out of the covariance of the single scores."""
    tables = [one.rows for one in judged[:3]]
    is_positive = (tables[0]["label"] == POSITIVE).to_numpy()
    scores = np.stack([table["score_COVID-19"].to_numpy() for table in tables])
    patients = tables[0]["patient_id"].to_numpy(str)
    (aa, ab, ac), (_, bb, bc), (_, _, cc) = delong.covariance(scores, is_positive, patients)
    mean = delong.auroc(tables[:2])
    assert mean["value"] == pytest.approx(delong.areas(scores[:2], is_positive).mean())
    assert mean["standard_error"] == pytest.approx(np.sqrt((aa + bb + 2 * ab) / 4))
    result = delong.difference(tables[:2], tables[2])
    expected = (aa + bb + 2 * ab) / 4 + cc - ac - bc
    assert result["standard_error"] == pytest.approx(np.sqrt(expected))
    assert result["areas"] == pytest.approx([mean["value"], delong.auroc(tables[2])["value"]])
    assert delong.auroc([tables[2], tables[2]])["ci95"] == pytest.approx(delong.auroc(tables[2])["ci95"])


def test_pairs_are_with_the_best_baseline_and_among_networks(judged):
    """Values are differences of the areas; p by Holm is that times the number left, never falling."""
    table = paired.differences(judged, draws=DRAWS)
    area = paired.areas(judged, draws=DRAWS).set_index("network")["auroc"]
    assert table[["one", "other"]].to_numpy().tolist() == [
        ["ResNet18", "good (no network)"],
        ["ResNet50", "good (no network)"],
        ["ResNet18", "ResNet50"],
    ]
    expected = [area[row.one] - area[row.other] for row in table.itertuples()]
    assert table["difference"].tolist() == pytest.approx(expected)
    smallest, middle, largest = (table.sort_values("p").iloc[place] for place in range(3))
    assert smallest["p_holm"] == pytest.approx(min(1, 3 * smallest["p"]))
    assert middle["p_holm"] == pytest.approx(max(smallest["p_holm"], min(1, 2 * middle["p"])))
    assert largest["p_holm"] == pytest.approx(max(middle["p_holm"], largest["p"]))
    for row in table.itertuples():
        assert (row.told_by_delong == "not told from 0") == (row.delong_low <= 0 <= row.delong_high)


def test_two_patients_of_a_class_have_no_interval():
    """AUROC stays, intervals and p are absent, and the row says why."""
    runs = [run("ResNet18", 1.0), run("good (no network)", 0.8, baseline=True)]
    kept = []
    for one in runs:
        table = one.predictions
        positives = table["label"].eq(POSITIVE) & table["split"].eq("test")
        table = table[~positives | table["patient_id"].isin(["test:0", "test:3"])].reset_index(drop=True)
        kept.append(Run(one.run_id, one.folder, one.config, {}, table))
    judged = scored.of_runs(kept)
    row = paired.areas(judged, draws=DRAWS).iloc[0]
    assert 0 < row["auroc"] < 1 and np.isnan(row["bootstrap_low"]) and np.isnan(row["delong_low"])
    assert "no interval: 2 patients" in row["note"]
    pair = paired.differences(judged, draws=DRAWS).iloc[0]
    assert np.isnan([pair["bootstrap_low"], pair["delong_low"], pair["p"], pair["p_holm"]]).all()
    assert pair["told_by_bootstrap"] == pair["told_by_delong"] == "cannot be told"


def test_one_class_cannot_be_told():
    """Without positives there is no AUROC, no pair, no decision curve; the row is there."""
    one = run("ResNet18", 1.0)
    table = one.predictions
    table = table[table["label"].ne(POSITIVE) | table["split"].eq("val")].reset_index(drop=True)
    judged = scored.of_runs([Run(one.run_id, one.folder, one.config, {}, table)])
    row = paired.areas(judged, draws=DRAWS).iloc[0]
    assert np.isnan(row["auroc"]) and row["note"].startswith("cannot be told: images labelled COVID-19")
    assert paired.differences(judged, draws=DRAWS).empty and not paired.first_seeds(judged)
    assert use.decision_curves([], draws=DRAWS).empty and use.subgroups([], None).empty


def test_thresholds_are_carried_from_val_to_test(judged):
    """Each rule's threshold is val's; sensitivity and specificity are counted by hand on test."""
    table = use.operating_points(judged, draws=DRAWS)
    assert len(table) == 10 and list(table["rule"].iloc[:2]) == list(use.RULES)
    for row in table.iloc[:2].itertuples():
        chosen = thresholds.choose(judged[0].val[0], POSITIVE, row.rule)
        assert row.threshold == f"{chosen['value']:.4f}"
        assert (row.val_sensitivity, row.val_specificity) == (chosen["sensitivity"], chosen["specificity"])
        rows = judged[0].rows
        called, label = rows["score_COVID-19"] >= chosen["value"], rows["label"] == POSITIVE
        assert row.sensitivity == (called & label).sum() / 40
        assert row.specificity == (~called & ~label).sum() / 80
    assert table["val_sensitivity"][table["rule"] == use.RULES[1]].min() >= 0.95


def test_a_threshold_per_row_is_that_rows_own():
    """Four rows called by hand with two thresholds."""
    table = makers.predictions([0.3, 0.6, 0.3, 0.6], [True, True, False, False])
    found = thresholds.at_threshold(table, [0.2, 0.7, 0.2, 0.7], draws=50)
    assert found["confusion"] == {"tp": 1, "fn": 1, "fp": 1, "tn": 1}
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\]"):
        thresholds.at_threshold(table, [0.2, 1.7, 0.2, 0.7], draws=50)


def test_predictive_values_are_those_of_the_operating_point(judged):
    """By Bayes' rule from the table's own sensitivity and specificity; absent ones stay absent."""
    points = use.operating_points(judged[:1], draws=DRAWS)
    points.loc[1, ["sensitivity", "sensitivity_low", "sensitivity_high"]] = np.nan
    table = use.predictive_values(points, [0.1, 0.5])
    found, missed = points.loc[0, ["sensitivity", "specificity"]]
    ppv = found * 0.1 / (found * 0.1 + (1 - missed) * 0.9)
    assert table.loc[0, "ppv"] == pytest.approx(ppv)
    npv = missed * 0.9 / (missed * 0.9 + (1 - found) * 0.1)
    assert table.loc[0, "npv"] == pytest.approx(npv)
    limits = points.loc[0, ["sensitivity_low", "sensitivity_high"]].tolist()
    metric = {"value": found, "ci95": limits}
    other = {"value": missed, "ci95": points.loc[0, ["specificity_low", "specificity_high"]].tolist()}
    alone = benefit.predictive_values(metric, other, [0.1])
    assert table.loc[0, "ppv_low"] == pytest.approx(alone.loc[0, "ppv_low"])
    assert table.loc[2:, ["ppv", "npv"]].isna().all(axis=None)


def test_calibration_before_and_after_scaling(judged):
    """Brier scores by scikit-learn; their change is the difference, with an interval that holds it."""
    before, after = use.calibration(judged[:1], draws=DRAWS).to_dict("records")
    label = judged[0].rows["label"] == POSITIVE
    assert before["brier"] == pytest.approx(brier_score_loss(label, judged[0].rows["score_COVID-19"]))
    scaled, found = judged[0].scaled(POSITIVE)
    assert after["brier"] == pytest.approx(brier_score_loss(label, scaled["score_COVID-19"]))
    assert after["brier_change"] == pytest.approx(after["brier"] - before["brier"])
    assert after["brier_change_low"] <= after["brier_change"] <= after["brier_change_high"]
    assert after["temperature"] == f"{found[0]:.4f}" and np.isnan(before["brier_change"])
    assert list(use.reliability(judged[0])) == ["as they come", "scaled"]


def test_two_patients_give_no_interval_of_a_change_in_brier_score(judged):
    """As of the Brier score itself; of three there is one."""
    before, (after, _) = judged[0].rows, judged[0].scaled(POSITIVE)
    for count, told in ((2, False), (3, True)):
        few = before.assign(patient_id=[f"patient{place % count}" for place in range(len(before))])
        assert np.isfinite(use._change(few, after, POSITIVE, 50, 0)["brier_change_low"]) == told


def test_a_temperature_at_its_limit_is_noted():
    """A val without an error would have any temperature, and the row says that it is at the end."""
    one = run("ResNet18", 1.0)
    val = one.predictions["split"] == "val"
    perfect = np.where(one.predictions["label"] == POSITIVE, 0.9, 0.1)
    table = one.predictions.assign(**{"score_COVID-19": one.predictions["score_COVID-19"].mask(val, perfect)})
    table["score_non-COVID"] = 1 - table["score_COVID-19"]
    judged = scored.of_runs([Run(one.run_id, one.folder, one.config, {}, table)])
    found = use.calibration(judged, draws=DRAWS).iloc[1]
    assert found["temperature"] == "0.0500" and "temperature at a limit" in found["note"]


def test_curves_and_subgroups_are_of_first_seeds_and_the_best_baseline(judged):
    """The lowest seed of each network; scores are scaled; the threshold is the run's own."""
    shown = paired.first_seeds(judged)
    assert [(one.network, one.seed) for one in shown] == [
        *(("ResNet18", 0), ("ResNet50", 0), ("good (no network)", 0)),
    ]
    curves = use.decision_curves(shown, draws=DRAWS)
    assert set(curves["scores"]) == {"scaled"} and len(curves) == 3 * 99
    scaled, _ = judged[0].scaled(POSITIVE)
    alone = benefit.decision_curve(scaled, draws=DRAWS)["model"]
    assert curves["model"].iloc[:99].tolist() == pytest.approx(alone.tolist())
    groups = use.subgroups(shown, None, kinds=["view"], draws=DRAWS)
    assert set(groups["by"]) == {"all", "view"}
    points = use.operating_points(shown, ["youden"], draws=DRAWS)
    of_all = groups[groups["by"] == "all"]
    assert of_all["sensitivity"].tolist() == points["sensitivity"].tolist()
    with pytest.raises(ValueError, match=r"`kinds` must be some of .* Received: \['weight'\]"):
        use.subgroups(shown, None, kinds=["weight"], draws=DRAWS)


def test_without_a_threshold_subgroups_have_auroc_alone():
    """Where val is judged there is no threshold: sensitivity cannot be told and says so."""
    judged = scored.of_runs([run("ResNet18", 1.0, splits=("val",))])
    groups = use.subgroups(judged, None, kinds=["view"], draws=DRAWS)
    assert groups["auroc"].notna().all() and groups["sensitivity"].isna().all()
    assert groups["note"].str.contains("sensitivity: cannot be told: no threshold").all()


@pytest.fixture(scope="module")
def tables(judged) -> dict[str, pd.DataFrame]:
    """As notebook 13 makes them."""
    shown, points = paired.first_seeds(judged), use.operating_points(judged, draws=DRAWS)
    return {
        "areas": paired.areas(judged, draws=DRAWS),
        "differences": paired.differences(judged, draws=DRAWS),
        "points": points,
        "values": use.predictive_values(points),
        "calibration": use.calibration(judged, draws=DRAWS),
        "curves": use.decision_curves(shown, draws=DRAWS),
        "subgroups": use.subgroups(shown, None, draws=DRAWS),
    }


def test_words_say_the_numbers_of_the_tables(tables):
    """Counts and ranges in the text are those of the networks' rows."""
    text = use_words.words(tables)
    assert text.startswith("split, judged on test: 120 images of 60 patients, positive 40 of 20.")
    best = tables["areas"].iloc[0]
    ends = f"{best['bootstrap_low']:.3f} to {best['bootstrap_high']:.3f}"
    assert f"Highest AUROC: ResNet18, {best['auroc']:.3f} ({ends})." in text
    spread = best["highest"] - best["lowest"]
    assert f"Highest minus lowest seed, 1 networks: {spread:.3f}." in text
    rows = tables["points"][~tables["points"]["baseline"]]
    wanted = rows[rows["rule"] == "sensitivity>=0.95"]
    assert f"Below the stated sensitivity: {(wanted['sensitivity'] < 0.95).sum()}," in text
    assert "Differences over the best baseline (good (no network)), 2: " in text
    assert "ResNet18: no known property divides these images." in text


def test_words_without_thresholds_say_why():
    """Val itself judged: the reason stands where numbers would."""
    judged = scored.of_runs([run("ResNet18", 1.0, splits=("val",))])
    points = use.operating_points(judged, draws=DRAWS)
    tables = {"areas": paired.areas(judged, draws=DRAWS), "points": points}
    tables |= {"differences": paired.differences(judged, draws=DRAWS)}
    tables |= {"values": use.predictive_values(points), "calibration": use.calibration(judged, draws=DRAWS)}
    tables |= {"curves": use.decision_curves(judged, draws=DRAWS)}
    tables |= {"subgroups": use.subgroups(judged, None, draws=DRAWS)}
    text = use_words.words(tables)
    assert "Thresholds cannot be told: no test: val itself is judged." in text
    assert "Calibration of scores scaled cannot be told: no test" in text
    assert "Nothing can be compared." in text and "PPV" not in text


def test_tables_for_people_hold_each_number_with_its_interval(tables):
    """Cells by hand of the first row, and every row of the table is there."""
    first = tables["areas"].iloc[0]
    shown = use_tables.areas(tables["areas"])
    cell = f"{first['auroc']:.3f} ({first['delong_low']:.3f} to {first['delong_high']:.3f})"
    assert shown["AUROC (DeLong)"].iloc[0] == cell and len(shown) == 4
    assert shown["Lowest to highest seed"].ne("").tolist() == [True, False, False, False]
    pair = tables["differences"].iloc[0]
    shown = use_tables.differences(tables["differences"])
    assert shown["p (Holm)"].iloc[0] == f"{pair['p_holm']:.3f}"
    assert len(use_tables.points(tables["points"])) == 10
    values = use_tables.values(tables["values"])
    assert len(values) == 10 and list(values)[4:6] == ["PPV at 1 %", "PPV at 2 %"]
    calibration = use_tables.calibration(tables["calibration"])
    assert calibration["Change"].eq("").tolist() == [True, False] * 5


@pytest.fixture
def look():
    """The style sheet is used, nothing is shown, and nothing of it is left behind."""
    with mpl.rc_context({"backend": "agg"}):
        style.use()
        yield
        plt.close("all")


def test_figures_show_the_tables_rows(tables, judged, look):
    """A row per network and pair; marks at the values; nothing is cut off, legends are below."""
    _, ax = plt.subplots(figsize=(7.1, 2.5))
    figures.areas(ax, tables["areas"])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == tables["areas"]["network"].tolist()
    marks = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert marks == pytest.approx(tables["areas"]["auroc"].tolist())
    figure, ax = plt.subplots(figsize=(7.1, 3.0))
    figures.differences(ax, tables["differences"])
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["ResNet18", "ResNet50", "ResNet18\nminus ResNet50"]
    assert ax.texts[0].get_text() == "Minus the best baseline,\ngood (no network)"
    places = ax.get_yticks()
    assert all(low < high for low, high in pairwise(places))
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(7.1, 3.0))
    figures.operating_points(axes, tables["points"], scored.names(judged))
    figure.canvas.draw()
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[1:] == ["on test, Youden's index", "on test, sensitivity ≥ 0.95"]
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    youden = tables["points"].query("rule == 'youden'")["specificity"]
    assert any(np.array_equal(line.get_xdata(), youden) for line in axes[1].lines)


def test_a_grid_has_as_many_axes_as_wanted_and_one_legend(look):
    """Three of four places; one y axis for all; what a title says is in no legend."""
    figure, axes = figures.grid(3, columns=2, height=2.0)
    assert len(axes) == len(figure.axes) == 3
    for index, ax in enumerate(axes):
        ax.plot([0, 1], [0, index], label=f"network {index}")
        ax.axhline(0, label="none")
        ax.set(ylabel="y", title=f"network {index}")
        ax.legend()
    figures.shared(axes)
    assert len({ax.get_ylim() for ax in axes}) == 1 and axes[0].get_ylim()[1] >= 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["none"]
    assert [ax.get_ylabel() for ax in axes] == ["y", "", "y"]


def test_settings_name_rules_prevalences_and_groups():
    """Rules and prevalences as the functions want them; others are refused."""
    config = UseConfig(rules="0.9 youden", prevalences="0.05 .5")
    assert config.chosen_by == ["sensitivity>=0.9", "youden"] and config.stated == [0.05, 0.5]
    for wrong in ({"rules": "best"}, {"groups": "view,sex"}, {"prevalences": "1.5"}, {"bins": 0}):
        with pytest.raises(ValueError, match=f"13_use: `{next(iter(wrong))}` must"):
            UseConfig(**wrong)
    with pytest.raises(ValueError, match=r"`prevalences` must be in \(0, 1\). Received: 0.0"):
        UseConfig(prevalences="0.1 0.0")
