"""Predictive values and net benefit: Bayes by hand, coverage, and Vickers & Elkin's formula."""

import makers
import numpy as np
import pytest

from covidtf.files import DataError
from covidtf.metrics import benefit, intervals, thresholds


def metric(hits: int, n: int) -> dict:
    return {"value": hits / n, "ci95": list(intervals.proportion(hits, n))}


def test_predictive_values_by_bayes():
    """Sensitivity 0.9, specificity 0.8 at 10 %: of 1000, 90 and 180 are called, 10 and 720 are not."""
    row = benefit.predictive_values(metric(90, 100), metric(160, 200), [0.1]).iloc[0]
    assert row["ppv"] == pytest.approx(90 / 270)
    assert row["npv"] == pytest.approx(720 / 730)
    assert row["ppv_low"] < row["ppv"] < row["ppv_high"]
    assert row["npv_low"] < row["npv"] < row["npv_high"]


def test_at_their_own_prevalence_they_are_those_of_the_table():
    """At the prevalence of the images PPV and NPV are the ones that were counted."""
    generator = np.random.default_rng(0)
    positive = np.arange(200) < 60
    table = makers.predictions(generator.beta(2, 4, 200) * 0.7 + 0.3 * positive, positive)
    found = thresholds.at_threshold(table, 0.4, draws=200)
    row = benefit.predictive_values(found["sensitivity"], found["specificity"], [0.3]).iloc[0]
    assert row["ppv"] == pytest.approx(found["ppv"]["value"])
    assert row["npv"] == pytest.approx(found["npv"]["value"])


def test_intervals_agree_with_the_delta_method_where_there_are_many_images():
    """Mercaldo et al. 2007: logit PPV has variance (1 - se) / (se n1) + sp / ((1 - sp) n0)."""
    se, sp, n1, n0, p = 0.85, 0.9, 4000, 6000, 0.05
    row = benefit.predictive_values(metric(int(se * n1), n1), metric(int(sp * n0), n0), [p]).iloc[0]
    for name, value, variance in (
        ("ppv", se * p / (se * p + (1 - sp) * (1 - p)), (1 - se) / se / n1 + sp / (1 - sp) / n0),
        ("npv", sp * (1 - p) / (sp * (1 - p) + (1 - se) * p), se / (1 - se) / n1 + (1 - sp) / sp / n0),
    ):
        odds = value / (1 - value) * np.exp(1.96 * np.sqrt(variance) * np.array([-1, 1]))
        assert row[[f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(odds / (1 + odds), rel=0.005)


@pytest.mark.parametrize(("se", "sp", "n1", "n0"), [(0.9, 0.9, 40, 80), (0.8, 0.97, 30, 300)])
def test_intervals_hold_the_true_predictive_values(se, sp, n1, n0):
    """Of 2000 simulated studies 93 to 98 %."""
    generator, p = np.random.default_rng(1), 0.1
    truth = {
        "ppv": se * p / (se * p + (1 - sp) * (1 - p)),
        "npv": sp * (1 - p) / (sp * (1 - p) + (1 - se) * p),
    }
    studies = np.column_stack([generator.binomial(n1, se, 2000), generator.binomial(n0, sp, 2000)])
    counted, times = np.unique(studies, axis=0, return_counts=True)
    hits = dict.fromkeys(truth, 0)
    for (a, b), count in zip(counted, times, strict=True):
        row = benefit.predictive_values(metric(a, n1), metric(b, n0), [p]).iloc[0]
        for name, value in truth.items():
            hits[name] += count * (row[f"{name}_low"] <= value <= row[f"{name}_high"])
    assert all(0.93 <= count / 2000 <= 0.98 for count in hits.values()), hits


def test_predictive_values_at_the_ends():
    """Without an error PPV is 1 with an interval; without a called image it is nothing; unknown stays so."""
    perfect = benefit.predictive_values(metric(40, 40), metric(80, 80), [0.1]).iloc[0]
    assert (perfect["ppv"], perfect["ppv_high"]) == (1, 1)
    assert 0.5 < perfect["ppv_low"] < 0.8
    none = benefit.predictive_values(metric(0, 40), metric(80, 80), [0.1]).iloc[0]
    assert np.isnan(none[["ppv", "ppv_low", "ppv_high"]].to_numpy(float)).all()
    assert none["npv"] == pytest.approx(0.9)
    worst = benefit.predictive_values(metric(0, 40), metric(0, 80), [0.1]).iloc[0]
    assert (worst["ppv"], worst["ppv_low"], worst["npv"]) == (0, 0, 0)
    bare = {"value": 0.9, "ci95": None}
    row = benefit.predictive_values(bare, metric(72, 80), [0.1]).iloc[0]
    assert row["ppv"] == pytest.approx(0.5)
    assert np.isnan(row["ppv_low"])
    untold = intervals.untold("no image", 0, 0)
    assert benefit.predictive_values(untold, metric(72, 80), [0.1])["npv"].isna().all()


def table():
    """4 positives and 6 others; at 0.5 there are 3 true and 2 false positives."""
    score = [0.9, 0.8, 0.6, 0.2, 0.7, 0.55, 0.3, 0.2, 0.1, 0.05]
    return makers.predictions(score, np.arange(10) < 4)


def test_net_benefit_by_hand():
    """At 0.5 (3 - 2) / 10, at 0.2 (4 - 4 / 4) / 10; all is 0.4 - 0.6 t / (1 - t)."""
    curve = benefit.decision_curve(table(), thresholds=[0.0, 0.2, 0.5], draws=200)
    assert curve["model"].tolist() == pytest.approx([0.4, 0.3, 0.1])
    assert curve["all"].tolist() == pytest.approx([0.4, 0.25, -0.2])
    assert curve["gain"].tolist() == pytest.approx([0, 0.05, 0.1])
    assert (curve["none"] == 0).all()
    inner = curve.iloc[1:]
    assert ((inner["model_low"] < inner["model"]) & (inner["model"] < inner["model_high"])).all()


def test_net_benefit_at_another_prevalence():
    """At 10 %: 0.1 * 3/4 - 0.9 * 2/6 at 0.5; at the images' own prevalence nothing changes."""
    curve = benefit.decision_curve(table(), thresholds=[0.5], prevalence=0.1, draws=200)
    assert curve["model"].tolist() == pytest.approx([0.075 - 0.3])
    own = benefit.decision_curve(table(), thresholds=[0.2, 0.5], prevalence=0.4, draws=50)
    assert own["model"].to_numpy() == pytest.approx([0.3, 0.1])


def test_the_band_is_of_patients():
    """Each image three times in one patient: the band of the patients is as wide as that of images once."""
    generator = np.random.default_rng(2)
    positive = np.arange(150) < 50
    once = makers.predictions(np.clip(generator.normal(0.4 + 0.2 * positive, 0.2), 0, 1), positive)
    thrice = once.loc[once.index.repeat(3)].assign(image_id=[f"a/{number}" for number in range(450)])
    curves = [benefit.decision_curve(each, thresholds=[0.3], draws=300).iloc[0] for each in (once, thrice)]
    for name in ("model_low", "model_high", "gain_low", "gain_high"):
        assert curves[0][name] == pytest.approx(curves[1][name])


def test_bad_arguments_are_refused():
    """Thresholds of 1, prevalences of 0 and tables of one class."""
    with pytest.raises(ValueError, match=r"`thresholds` must be in \[0, 1\)\. Received: 1"):
        benefit.decision_curve(table(), thresholds=[1.0])
    with pytest.raises(ValueError, match=r"`prevalence` must be in \(0, 1\)\. Received: 0"):
        benefit.decision_curve(table(), prevalence=0)
    with pytest.raises(ValueError, match=r"`prevalences` must be in \(0, 1\)\. Received: 1"):
        benefit.predictive_values(metric(1, 2), metric(1, 2), [1])
    with pytest.raises(DataError, match="images labelled COVID-19 and others were wanted"):
        benefit.decision_curve(table().iloc[:4])
