"""Calibration: hand-worked values, scikit-learn, known distortions, and what may be fitted on what."""

import json

import makers
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from covidtf.files import DataError
from covidtf.metrics import calibration, intervals, temperature


def drawn(n: int, distort: float = 1.0, seed: int = 0, **columns) -> pd.DataFrame:
    """Scores whose log odds are `distort` times those with which the labels were drawn."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(-0.5, 1.5, n)
    return makers.predictions(expit(distort * odds), generator.random(n) < expit(odds), **columns)


def test_reliability_by_hand():
    """Eight images in four bins of two: mean score, share and Wilson's interval of each."""
    score = np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6])
    table = calibration.reliability(makers.predictions(score, score > 0.65), bins=4)
    assert table["n"].tolist() == [2, 2, 2, 2]
    assert table["low"].tolist() == [0.1, 0.3, 0.6, 0.8]
    assert table["high"].tolist() == [0.2, 0.4, 0.7, 0.9]
    assert table["mean_score"].tolist() == pytest.approx([0.15, 0.35, 0.65, 0.85])
    assert table["observed"].tolist() == [0, 0, 0.5, 1]
    limits = table[["observed_low", "observed_high"]].to_numpy()
    assert limits[2] == pytest.approx(intervals.proportion(1, 2))
    result = calibration.ece(makers.predictions(score, score > 0.65), bins=4, draws=20)
    assert result["value"] == pytest.approx((0.15 + 0.35 + 0.15 + 0.15) / 4)
    assert result["ci95"] is None


@pytest.mark.parametrize(("score", "sizes"), [([0.5] * 6, [6]), ([0, 0, 0, 0, 0.3, 1], [4, 1, 1])])
def test_equal_scores_share_a_bin(score, sizes):
    """Ties are never torn apart, and no bin is empty."""
    table = calibration.reliability(makers.predictions(score, np.arange(6) % 2 == 0), bins=10)
    assert table["n"].tolist() == sizes


def test_brier_agrees_with_scikit_learn_and_its_standard_error():
    """The value is scikit-learn's; with single images the interval is about value ± 1.96 standard errors."""
    table = drawn(500)
    positive, score = (table["label"] == "COVID-19").to_numpy(), table["score_COVID-19"].to_numpy()
    result = calibration.brier(table)
    assert result["value"] == pytest.approx(brier_score_loss(positive, score))
    half = 1.96 * ((score - positive) ** 2).std() / np.sqrt(500)
    assert result["ci95"] == pytest.approx([result["value"] - half, result["value"] + half], abs=0.1 * half)
    assert result["of_prevalence"] == pytest.approx(positive.mean() * (1 - positive.mean()))
    thrice = pd.concat([table.assign(image_id=table["image_id"] + f"/{copy}") for copy in range(3)])
    assert calibration.brier(thrice)["ci95"] == pytest.approx(result["ci95"], rel=1e-9)


def test_ece_of_calibrated_scores_is_below_its_95_percent_value_in_95_percent():
    """Also where three images of a patient share label and score, and an image-wise draw would be too low."""
    below, studies = 0, 200
    for study in range(studies):
        once = drawn(80, seed=study)
        table = pd.concat([once.assign(image_id=once["image_id"] + f"/{copy}") for copy in range(3)])
        result = calibration.ece(table, draws=100, seed=study)
        below += result["value"] <= result["if_calibrated_95"]
    assert 0.9 <= below / studies <= 0.99
    alone = calibration.ece(table.assign(patient_id=table["image_id"]), draws=100)
    assert alone["if_calibrated"] < 0.8 * result["if_calibrated"]
    worse = calibration.ece(drawn(1000, distort=4), draws=100)
    assert worse["value"] > 2 * worse["if_calibrated_95"]


def test_slope_and_intercept_agree_with_scikit_learn_and_find_a_known_distortion():
    """Log odds doubled and moved by 1: slope near 1/2; scikit-learn's unpenalised fit has the same slope."""
    table = drawn(4000, distort=2)
    odds = logit(table["score_COVID-19"]) + 1
    table = table.assign(**{"score_COVID-19": expit(odds), "score_non-COVID": expit(-odds)})
    found = calibration.slope_intercept(table)
    low, high = found["slope"]["ci95"]
    assert low < 0.5 < high < 0.6
    assert found["intercept"]["ci95"][1] < 0
    fitted = LogisticRegression(C=np.inf, tol=1e-8).fit(
        odds.to_numpy()[:, None], table["label"] == "COVID-19"
    )
    assert found["slope"]["value"] == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
    # With the slope held at 1 the mean of the recalibrated scores is the prevalence.
    moved = expit(odds + found["intercept"]["value"])
    assert moved.mean() == pytest.approx((table["label"] == "COVID-19").mean(), abs=1e-6)


def test_slope_interval_counts_patients_not_images():
    """Each image three times: the same interval as once, up to the correction for few groups."""
    once = drawn(300, distort=1.5)
    thrice = pd.concat([once.assign(image_id=once["image_id"] + f"/{copy}") for copy in range(3)])
    ours, theirs = (calibration.slope_intercept(table)["slope"] for table in (thrice, once))
    assert ours["ci95"] == pytest.approx(theirs["ci95"], rel=0.01)


def test_slope_cannot_be_told_of_separated_or_single_classes():
    """A fit without a limit is not reported as a number."""
    score = np.linspace(0.05, 0.95, 10)
    for positive, reason in (
        (score > 0.5, "a threshold separates"),
        (score < 2, "all images are of one class"),
    ):
        found = calibration.slope_intercept(makers.predictions(score, positive))
        assert (found["slope"]["value"], found["intercept"]["ci95"]) == (None, None)
        assert found["slope"]["method"].startswith(f"cannot be told: {reason}")


def test_slope_needs_three_patients_of_the_smaller_class():
    """Ten patients in all are not enough where two of them have all the positive images."""
    score, patient = np.linspace(0.1, 0.9, 12), np.r_[np.arange(10), 0, 1].astype(str)
    positive = np.isin(patient, ["0", "1"])
    found = calibration.slope_intercept(makers.predictions(score, positive, patient_id=patient))["slope"]
    assert (found["value"], found["method"]) == (None, "cannot be told: 2 patients of a class")


def test_slope_of_equal_scores_cannot_be_told():
    """A baseline on files that are all alike has one score: no threshold separates anything."""
    found = calibration.slope_intercept(makers.predictions(np.full(12, 0.3), np.arange(12) < 5))["intercept"]
    assert (found["value"], found["method"]) == (None, "cannot be told: all scores are equal")


def test_saturated_scores_are_no_error():
    """Scores of exactly 0 and 1, some of them wrong, have a slope and a temperature."""
    score = np.r_[np.zeros(30), np.ones(30), np.full(20, 0.4)]
    table = makers.predictions(score, np.arange(80) % 10 < 4 + 3 * (score > 0.5))
    found = calibration.slope_intercept(table)["slope"]
    assert 0 < found["ci95"][0] < found["value"] < 0.2
    assert temperature.fit(table.assign(split="val")) == temperature.LIMITS[1]


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_temperature_is_found_again_with_three_classes(true):
    """Logits multiplied by T before labels drawn from softmax(logits): the fit says T, within 10 %."""
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 1.5, (4000, 3))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    names = ["Bacterial", "COVID-19", "Normal"]
    scores = np.exp(true * logits)
    scores /= scores.sum(axis=1, keepdims=True)
    table = makers.predictions(np.zeros(4000), np.zeros(4000, bool), split="val")
    table = table.drop(columns=["score_COVID-19", "score_non-COVID"]).assign(
        label=np.array(names)[labels], **{f"score_{name}": scores[:, i] for i, name in enumerate(names)}
    )
    found = temperature.fit(table)
    assert found == pytest.approx(true, rel=0.1)
    after = temperature.scaled(table, found)
    columns = [f"score_{name}" for name in names]
    losses = [log_loss(table["label"], each[columns], labels=names) for each in (after, table)]
    grid = [
        log_loss(table["label"], temperature.scaled(table, t)[columns]) for t in found * np.array([0.9, 1.1])
    ]
    assert losses[0] <= min(losses[1], *grid)


def test_scaling_keeps_ranks_and_divides_log_odds():
    """Of two classes, log odds are divided by the temperature; everything else stays as it was."""
    table = drawn(50)
    after = temperature.scaled(table, 2.0)
    assert logit(after["score_COVID-19"]).to_numpy() == pytest.approx(logit(table["score_COVID-19"]) / 2)
    assert after.drop(columns=["score_COVID-19", "score_non-COVID"]).equals(
        table.drop(columns=["score_COVID-19", "score_non-COVID"])
    )


def test_a_temperature_without_a_limit_is_the_end_of_the_range():
    """Val without an error would be sharpened for ever."""
    table = makers.predictions([0.6, 0.7, 0.3, 0.4], [True, True, False, False], split="val")
    assert temperature.fit(table) == temperature.LIMITS[0]


def test_only_val_may_be_fitted():
    """Rows of test are refused, and so is a temperature that is none."""
    table = drawn(20)
    with pytest.raises(DataError, match=r"rows of val were wanted\. Received: \['test'\]"):
        temperature.fit(table)
    with pytest.raises(ValueError, match=r"`temperature` must be above 0\. Received: 0"):
        temperature.scaled(table, 0)
    with pytest.raises(ValueError, match=r"`bins` must be at least 1\. Received: 0"):
        calibration.ece(table, bins=0)


def test_evaluate_mends_a_distorted_score():
    """Scores three times too extreme on val and test: T near 3, and slope, Brier score and ECE get better."""
    result = calibration.evaluate(drawn(1500, 3, 1, split="val"), drawn(1500, 3, 2), draws=100)
    assert result["temperature"]["value"] == pytest.approx(3, rel=0.15)
    assert result["temperature"]["at_limit"] is False
    before, after = result["before"], result["after"]
    assert after["brier"]["value"] < before["brier"]["value"]
    assert after["ece"]["value"] < before["ece"]["value"]
    assert abs(after["slope"]["value"] - 1) < abs(before["slope"]["value"] - 1)
    assert len(after["reliability"]) == 10
    json.dumps(result)
