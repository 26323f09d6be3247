"""Confidence intervals: published values, a naive bootstrap, and how often they hold the truth."""

import makers
import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, norm

from covidtf import metrics
from covidtf.metrics import intervals, thresholds


@pytest.mark.parametrize(
    ("method", "successes", "trials", "low", "high"),
    [
        # Newcombe 1998, table I: methods 1 (simple asymptotic), 3 (score) and 5 (Clopper-Pearson).
        ("wilson", 81, 263, 0.2553, 0.3662),
        ("wilson", 15, 148, 0.0624, 0.1605),
        ("wilson", 0, 20, 0.0, 0.1611),
        ("wilson", 1, 29, 0.0061, 0.1718),
        ("normal", 81, 263, 0.2522, 0.3638),
        ("normal", 15, 148, 0.0527, 0.1500),
        ("normal", 0, 20, 0.0, 0.0),
        ("normal", 1, 29, -0.0319, 0.1009),
        ("clopper-pearson", 81, 263, 0.2527, 0.3676),
        ("clopper-pearson", 15, 148, 0.0578, 0.1617),
        ("clopper-pearson", 0, 20, 0.0, 0.1684),
        ("clopper-pearson", 1, 29, 0.0009, 0.1776),
        # DeepCovid, SqueezeNet: 98 ± 2.7 % of 100 and 92.9 ± 0.9 % of 3000.
        ("normal", 98, 100, 0.98 - 0.0274, 0.98 + 0.0274),
        ("normal", 2787, 3000, 0.929 - 0.0092, 0.929 + 0.0092),
    ],
)
def test_proportion_agrees_with_published_examples(method, successes, trials, low, high):
    """Intervals of proportions are those printed by Newcombe and by the DeepCovid paper."""
    assert intervals.proportion(successes, trials, method) == pytest.approx((low, high), abs=6e-5)


def test_clopper_pearson_agrees_with_the_beta_quantiles():
    """The exact interval is made of quantiles of the beta distribution."""
    expected = beta.ppf(0.025, 39, 2), beta.ppf(0.975, 40, 1)
    assert intervals.proportion(39, 40, "clopper-pearson") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1, 0), "trials > 0"), ((3, 2), "3 of 2"), ((-1, 2), "-1 of 2"), ((1, 2, "wald"), "must be one of")],
)
def test_proportion_refuses_bad_arguments(arguments, message):
    """Impossible counts and unknown methods are errors."""
    with pytest.raises(ValueError, match=message):
        intervals.proportion(*arguments)


def test_draws_take_as_many_patients_as_there_are():
    """Every draw holds as many patients as the data, each about once, whatever the size of a chunk."""
    counts = np.concatenate(list(intervals.patient_draws(7, 2500, seed=3)))
    assert counts.shape == (2500, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.1)
    assert counts.var() == pytest.approx(6 / 7, abs=0.05)


def test_bootstrap_draws_whole_patients_in_any_order():
    """All images of a patient share a weight, and shuffled images give the same draws."""
    patient_id = np.array(["b", "a", "b", "c", "a", "b"])
    weights = intervals.bootstrap(lambda drawn: drawn, patient_id, 50, seed=1)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    shuffled = intervals.bootstrap(lambda drawn: drawn, patient_id[::-1], 50, seed=1)
    assert (shuffled == weights[:, ::-1]).all()
    assert (intervals.bootstrap(lambda drawn: drawn, patient_id, 50, seed=2) != weights).any()


def test_undefined_draws_are_left_out_up_to_a_tenth():
    """Percentiles are of the defined draws; with more than 10 % undefined there is no interval."""
    values = np.r_[np.full(10, np.nan), np.linspace(0, 1, 90)]
    assert intervals.percentiles(values) == pytest.approx((0.025, 0.975))
    assert intervals.percentiles(np.r_[values, np.nan]) is None


def test_metric_without_variation_counts_patients():
    """A perfect value gets Wilson's interval of one image per patient, not an interval without width."""
    perfect = intervals.metric(1.0, np.ones(100), n=90, patients=30)
    assert perfect["ci95"] == pytest.approx(intervals.proportion(30, 30))
    assert intervals.metric(1.0, np.ones(100), 90, 30, smaller=5)["n_effective"] == 5


def test_metric_without_enough_draws_has_no_interval():
    """Where too many draws are undefined the value stays, the interval is None and the method says why."""
    result = intervals.metric(0.5, np.full(10, np.nan), n=4, patients=2)
    assert (result["value"], result["ci95"], result["draws_left_out"]) == (0.5, None, 10)
    assert result["method"] == "no interval: 2 patients, 10 of 10 draws undefined"
    assert intervals.metric(0.5, np.linspace(0.4, 0.6, 10), n=4, patients=2)["ci95"] is None


def test_bootstrap_refuses_no_draws():
    """A bootstrap needs at least one draw."""
    with pytest.raises(ValueError, match=r"`draws` must be at least 1\. Received: 0"):
        intervals.bootstrap(lambda drawn: drawn, ["a"], 0, seed=0)


def clustered(generator: np.random.Generator, shift: float) -> pd.DataFrame:
    """Three images of each of 40 + 80 patients; four fifths of a score's variance lie between patients."""
    patient = np.repeat(np.arange(120), 3)
    positive = patient < 40
    between, within = generator.normal(size=120)[patient], generator.normal(size=360)
    score = norm.cdf(np.sqrt(0.8) * between + np.sqrt(0.2) * within + shift * positive)
    return makers.predictions(score, positive, patient_id=patient.astype(str))


def test_intervals_hold_the_truth_of_clustered_images():
    """Of 500 simulated studies our intervals hold the true value in 93 to 97 %, naive ones in far fewer."""
    generator = np.random.default_rng(11)
    shift, hits, studies = norm.ppf(0.9) * np.sqrt(2), pd.Series(dtype=float), 500
    truth = {"auroc": 0.9, "sensitivity": 0.9, "specificity": norm.cdf(shift - norm.ppf(0.9))}
    for study in range(studies):
        table = clustered(generator, shift)
        ours = thresholds.at_threshold(table, truth["specificity"], draws=200, seed=study)
        ours["auroc"] = metrics.auroc(table, draws=200, seed=study)
        alone = metrics.auroc(table.assign(patient_id=table["image_id"]), draws=200, seed=study)
        limits = {name: ours[name]["ci95"] for name in truth}
        limits |= {f"naive {name}": ours[name]["intervals"].get("wilson", alone["ci95"]) for name in truth}
        inside = {name: low <= truth[name.split()[-1]] <= high for name, (low, high) in limits.items()}
        hits = hits.add(pd.Series(inside, dtype=float), fill_value=0)
    covered = hits / studies
    assert covered[list(truth)].between(0.93, 0.97).all(), covered
    assert (covered[[f"naive {name}" for name in truth]] < 0.88).all(), covered
