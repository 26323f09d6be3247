"""The cut-off threshold and what a score is worth there."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint
from test_metrics import random_table, table

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import intervals, thresholds


def val(score, positive) -> pd.DataFrame:
    return table(score, positive, split="val")


@pytest.mark.parametrize(
    ("rule", "score", "positive", "value"),
    [
        # Perfect separation: half-way between the classes.
        ("youden", [0.9, 0.7, 0.3, 0.1], [1, 1, 0, 0], 0.5),
        # J is 1/2 at 0.9 and at 0.5: the lower one has the higher sensitivity.
        ("youden", [0.9, 0.7, 0.5, 0.1], [1, 0, 1, 0], 0.3),
        # Nothing is better than calling everything positive: half-way to 0.
        ("youden", [0.2, 0.4], [1, 0], 0.1),
        ("sensitivity>=0.5", [0.9, 0.7, 0.5, 0.1], [1, 0, 1, 0], 0.8),
        ("sensitivity>=0.51", [0.9, 0.7, 0.5, 0.1], [1, 0, 1, 0], 0.3),
        ("sensitivity>=1", [0.9, 0.7, 0.5, 0.1], [1, 0, 1, 0], 0.3),
        # A tie of a positive and a negative cannot be cut.
        ("sensitivity>=1.0", [0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 0.3),
    ],
)
def test_threshold_by_hand(rule, score, positive, value):
    """Each rule picks the threshold that was worked out by hand, ties included."""
    assert thresholds.choose(val(score, positive), rule=rule)["value"] == pytest.approx(value)


def test_threshold_calls_the_same_images_positive_as_reported():
    """Sensitivity and specificity reported with the threshold are those that it has on val."""
    predictions = random_table().assign(split="val")
    for rule in ("youden", "sensitivity>=0.9"):
        chosen = thresholds.choose(predictions, rule=rule)
        applied = thresholds.at_threshold(predictions, chosen["value"], draws=20)
        assert applied["sensitivity"]["value"] == pytest.approx(chosen["sensitivity"])
        assert applied["specificity"]["value"] == pytest.approx(chosen["specificity"])


def test_youden_is_the_best_of_all_thresholds():
    """No other threshold has a larger sum of sensitivity and specificity on val."""
    predictions = random_table().assign(split="val")
    chosen = thresholds.choose(predictions)
    points = metrics.roc(predictions)
    best = (points["sensitivity"] + points["specificity"]).max()
    assert chosen["sensitivity"] + chosen["specificity"] == pytest.approx(best)


def test_neighbouring_floats_keep_the_call():
    """Between two neighbouring floats there is no middle; the positive image is still called positive."""
    score = [np.nextafter(0.5, 1), 0.5]
    chosen = thresholds.choose(val(score, [1, 0]))
    assert score[1] < chosen["value"] <= score[0]


def test_threshold_is_chosen_on_val_with_two_classes_only():
    """Rows of test and a val of one class are refused, with what came."""
    with pytest.raises(DataError, match=r"rows of val were wanted. Received: \['test'\]"):
        thresholds.choose(table([0.1, 0.9], [0, 1]))
    with pytest.raises(DataError, match=r"Received: \{'COVID-19': 2\}"):
        thresholds.choose(val([0.1, 0.9], [1, 1]))


@pytest.mark.parametrize("rule", ["Youden", "sensitivity>0.9", "sensitivity>=0", "sensitivity>=1.1", ""])
def test_unknown_rule_is_refused(rule):
    """A rule that is not one of the two is an error."""
    with pytest.raises(ValueError, match="`rule` must be"):
        thresholds.choose(val([0.1, 0.9], [0, 1]), rule=rule)


def test_confusion_by_hand():
    """A score equal to the threshold is positive; all fractions follow from the four counts."""
    predictions = table([0.9, 0.5, 0.4, 0.6, 0.3, 0.2, 0.1], [1, 1, 1, 0, 0, 0, 0])
    result = thresholds.at_threshold(predictions, 0.5, draws=200)
    assert result["confusion"] == {"tp": 2, "fn": 1, "fp": 1, "tn": 3}
    expected = {
        "sensitivity": (2, 3),
        "specificity": (3, 4),
        "ppv": (2, 3),
        "npv": (3, 4),
        "accuracy": (5, 7),
    }
    for name, (hits, n) in expected.items():
        assert (result[name]["value"], result[name]["n"]) == (pytest.approx(hits / n), n)
        assert result[name]["intervals"]["wilson"] == pytest.approx(
            proportion_confint(hits, n, method="wilson"), abs=1e-9
        )
        assert result[name]["intervals"]["clopper-pearson"] == pytest.approx(
            proportion_confint(hits, n, method="beta"), abs=1e-9
        )


def test_interval_by_patient_is_the_naive_loop():
    """The interval by patient is that of fractions counted in each draw one by one."""
    predictions = random_table()
    patients, patient = np.unique(predictions["patient_id"].to_numpy(str), return_inverse=True)
    is_positive = (predictions["label"] == "COVID-19").to_numpy()
    called = (predictions["score_COVID-19"] >= 0.5).to_numpy()
    values = []
    for counts in np.concatenate(list(intervals.patient_draws(len(patients), 300, seed=6))):
        images = np.repeat(np.arange(len(predictions)), counts[patient])
        values.append(is_positive[images][called[images]].mean())
    result = thresholds.at_threshold(predictions, 0.5, draws=300, seed=6)["ppv"]
    assert result["intervals"]["percentile"] == pytest.approx(np.percentile(values, (2.5, 97.5)))


def test_images_of_one_patient_widen_the_interval():
    """Ten equal images per patient count as one: the interval is that of the patients."""
    hit = np.arange(20) < 14
    once = table(np.where(hit, 0.9, 0.1), np.ones(20, bool))
    often = pd.concat([once.assign(image_id=once["image_id"] + f"-{copy}") for copy in range(10)])
    wide = thresholds.at_threshold(often, 0.5, draws=1000)["sensitivity"]
    assert wide["n"] == 200
    assert wide["ci95"] == pytest.approx(
        thresholds.at_threshold(once, 0.5, draws=1000)["sensitivity"]["ci95"], abs=1e-9
    )
    width, naive = np.ptp(wide["ci95"]), np.ptp(wide["intervals"]["wilson"])
    assert width == pytest.approx(naive * np.sqrt(10), rel=0.15)


def test_fraction_of_nothing_cannot_be_told():
    """With no image called positive there is no PPV, and no NaN either."""
    result = thresholds.at_threshold(table([0.1, 0.2], [0, 1]), 0.9, draws=50)["ppv"]
    assert (result["value"], result["ci95"], result["n"]) == (None, None, 0)
    assert result["method"].startswith("cannot be told")


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_outside_the_score_is_refused(threshold):
    """A threshold that no score can have is an error in both functions."""
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\]"):
        thresholds.at_threshold(random_table(), threshold)
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\]"):
        thresholds.sweep(random_table(), thresholds=[0.5, threshold])


def test_sweep_has_a_row_per_threshold_like_the_paper():
    """Each row is what `at_threshold` says, with the paper's interval beside Wilson's and the patients'."""
    predictions = random_table()
    sweep = thresholds.sweep(predictions, thresholds=[0.0, 0.3, 1.0], draws=100)
    assert sweep["threshold"].tolist() == [0.0, 0.3, 1.0]
    assert sweep["sensitivity"].iloc[0] == 1.0
    one = thresholds.at_threshold(predictions, 0.3, draws=100)
    for name in ("sensitivity", "specificity"):
        row = sweep.iloc[1]
        assert row[f"{name}_n"] == one[name]["n"]
        assert [row[f"{name}_patients_low"], row[f"{name}_patients_high"]] == one[name]["ci95"]
        p, n = one[name]["value"], one[name]["n"]
        assert row[f"{name}_normal_high"] - p == pytest.approx(1.96 * np.sqrt(p * (1 - p) / n))
        assert row[f"{name}_wilson_low"] == one[name]["intervals"]["wilson"][0]
