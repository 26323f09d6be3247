"""Tests of covidtf.metrics.transfer and covidtf.figures.transfer."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from makers import predictions
from sklearn.metrics import roc_auc_score

from covidtf import metrics, report
from covidtf.figures.transfer import transfer as draw
from covidtf.files import DataError
from covidtf.metrics import transfer
from covidtf.runs import Run

POSITIVE = np.arange(60) % 3 == 0
PROVENANCE = {
    "seconds": 1.0,
    "commit": "c",
    "dirty": False,
    "smoke": False,
    "sha256": {"weights": "a", "predictions": "b"},
    "started_from": {"weights": "c", "head": "new"},
}


def run(seed, weights="none", epochs=(4, 0), better=0.0):
    """A run whose scores lean towards the label by `better`; half of its images are of source `b`."""
    noise = np.random.default_rng([seed, int(100 * better)]).random(60)
    score = (noise + better * POSITIVE) / (1 + better)
    patients = [f"a:{index // 2}" for index in range(60)]
    table = predictions(score, POSITIVE, patient_id=patients, source=np.where(np.arange(60) < 30, "a", "b"))
    start = {"none": "random weights", "tiny-imagenet": "Tiny ImageNet"}[weights]
    config = {"network": "SqueezeNet1_0", "start": start, "seed": seed, "learning_rate": 0.1}
    config |= {"epochs": epochs[0], "head_epochs": epochs[1]}
    return Run(f"run{seed}", "run", config, {}, table)


def test_means_are_over_seeds_and_gains_against_random_weights():
    """Mean, lowest and highest AUROC are those of the seeds; the gain is the difference of two means."""
    scratch, moved = ([run(s) for s in range(3)], [run(s, "tiny-imagenet", better=0.6) for s in range(3)])
    found = transfer.table([*scratch, *moved], within="b", draws=100)
    assert found["part"].tolist() == ["all sources"] * 2 + ["b"] * 2
    for row, runs in zip(found.itertuples(), (scratch, moved), strict=False):
        single = [roc_auc_score(POSITIVE, run.predictions["score_COVID-19"]) for run in runs]
        assert row.auroc == pytest.approx(np.mean(single))
        assert (row.lowest, row.highest) == pytest.approx((min(single), max(single)))
        assert row.auroc_low < row.auroc < row.auroc_high
        assert (row.seeds, row.n, row.patients, row.positives) == (3, 60, 30, 20)
    assert np.isnan(found["gain"].iloc[0])
    assert found["gain"].iloc[1] == pytest.approx(found["auroc"].iloc[1] - found["auroc"].iloc[0])
    assert found["gain_low"].iloc[1] > 0
    assert found["n"].iloc[2] == 30


def test_the_draws_of_a_mean_have_the_same_patients():
    """Twice the same scores give the interval of one, and a gain over itself is 0 in every draw."""
    one = run(5).predictions
    single = metrics.auroc(one, draws=200)
    mean, values, _ = transfer.mean_auroc([one, one.sample(frac=1, random_state=0)], draws=200)
    assert mean["value"] == pytest.approx(single["value"])
    assert mean["ci95"] == pytest.approx(single["ci95"])
    np.testing.assert_allclose(values, metrics.auroc_draws(one, draws=200)[1])


def test_a_baseline_is_judged_like_a_run():
    """The baseline has a row of its own, with no gain, and is drawn beside each network."""
    base = run(3)
    base = replace(base, config={"network": "mean and std (no network)", "baseline": True, "seed": 0})
    table = transfer.table([run(0), run(0, "tiny-imagenet"), base], within="b", draws=50)
    row = table.iloc[2]
    assert (row["network"], row["strategy"]) == ("mean and std (no network)", "nothing")
    assert np.isnan(row["gain"]) and row["beats"] == ""
    figure, axes = plt.subplots()
    draw(axes, table[table["part"] == "all sources"], "SqueezeNet 1.0")
    assert axes.get_yticklabels()[-1].get_text() == "mean and std (no network)"
    plt.close(figure)


def test_networks_are_held_against_the_best_baseline():
    """The mean over the seeds minus the baseline, in the same draws; a gain that holds 0 is marked."""
    bases = [
        replace(run(9, better=better), config={"network": name, "baseline": True, "seed": 0})
        for name, better in (("weak", 0.0), ("strong", 0.6))
    ]
    runs = [run(0, better=3.0), run(1, better=3.0), run(0, "tiny-imagenet", better=0.7)]
    table = transfer.table([*runs, *bases], within="b", draws=200, seed=3)
    rows = table[table["part"] == "all sources"].set_index("start")
    assert rows["best_baseline"].tolist() == ["strong", "strong", "", ""]
    tests = [one.predictions.query("split == 'test'") for one in (*runs[:2], bases[1])]
    drawn = [metrics.auroc_draws(one, draws=200, seed=3)[:2] for one in tests]
    row = rows.loc["random weights"]
    difference = (drawn[0][1] + drawn[1][1]) / 2 - drawn[2][1]
    assert row["over_baseline"] == pytest.approx((drawn[0][0] + drawn[1][0]) / 2 - drawn[2][0])
    limits = [row["over_baseline_low"], row["over_baseline_high"]]
    assert limits == pytest.approx(list(np.percentile(difference, [2.5, 97.5])))
    assert rows["beats"].tolist() == ["yes", "no", "", ""]
    shown = report.transfer(table)["Over best baseline"].tolist()
    assert shown[1].endswith(", not above") and "not above" not in shown[0] and shown[2] == ""


def test_strategies_are_told_apart():
    """Head epochs of none, some or all are three groups, not seeds of one."""
    runs = [run(0, "tiny-imagenet", (4, head)) for head in (0, 2, 4)]
    found = transfer.table(runs, within="a", draws=50)
    assert found["strategy"].tolist() == ["last layer", "staged", "all layers"] * 2


def test_one_seed_twice_is_refused():
    """Two runs with equal seed are not two seeds."""
    with pytest.raises(DataError, match="one run of each seed was wanted"):
        transfer.table([run(1), run(1)], within="a", draws=50)


def test_a_source_without_images_is_named():
    """A source that test does not have is an error."""
    with pytest.raises(DataError, match="no image of test is of source 'c'"):
        transfer.table([run(1)], within="c", draws=50)


def test_the_table_is_readable():
    """Each metric stands with its interval, the gain with its sign, and nothing where there is no gain."""
    runs = [run(0), run(0, "tiny-imagenet", better=2.0)]
    shown = report.transfer(transfer.table(runs, within="b", draws=50))
    assert shown["Gain over random weights"].iloc[0] == ""
    assert shown["Gain over random weights"].iloc[1].startswith("+0.")
    assert shown["Started from"].tolist() == ["random weights", "Tiny ImageNet"] * 2


def test_the_figure_shows_one_network_on_one_part():
    """There is a line of text per start and strategy, and several parts in one axes are refused."""
    runs = [run(0), run(0, "tiny-imagenet"), run(0, "tiny-imagenet", (4, 4))]
    table = transfer.table(runs, within="b", draws=50)
    figure, axes = plt.subplots()
    draw(axes, table[table["part"] == "b"], "SqueezeNet 1.0")
    words = [label.get_text() for label in axes.get_yticklabels()]
    assert words == ["random weights: all layers", "Tiny ImageNet: last layer", "Tiny ImageNet: all layers"]
    with pytest.raises(ValueError, match="must be of one part"):
        draw(axes, table, "SqueezeNet 1.0")
    plt.close(figure)


def test_scores_and_records_hold_what_the_table_rests_on():
    """From the published scores alone each run's AUROC comes out again, and a record says what it was."""
    runs = [run(0), run(1, "tiny-imagenet", (4, 4))]
    runs = [replace(one, run_id=f"run{i}", provenance=PROVENANCE) for i, one in enumerate(runs)]
    shuffled = replace(runs[1], predictions=runs[1].predictions.sample(frac=1, random_state=0))
    scores, records = transfer.scores([runs[0], shuffled]), transfer.records(runs)
    for one in runs:
        wanted = roc_auc_score(POSITIVE, one.predictions["score_COVID-19"])
        assert roc_auc_score(scores["label"] == "COVID-19", scores[one.run_id]) == pytest.approx(wanted)
    assert records["strategy"].tolist() == ["all layers", "last layer"]
    assert records["predictions_sha256"].tolist() == ["b", "b"]
    assert records["started_from_sha256"].tolist() == ["c", "c"]
    assert records["head"].tolist() == ["new", "new"]
