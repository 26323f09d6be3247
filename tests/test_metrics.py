"""ROC, AUROC, average precision and histogram against values worked by hand and other implementations."""

import numpy as np
import pandas as pd
import pytest
from makers import predictions as table
from sklearn.metrics import average_precision_score, roc_auc_score

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import intervals


def random_table(n: int = 120, decimals: int = 1) -> pd.DataFrame:
    """Scores with many ties, images of 40 patients of which some have both labels."""
    generator = np.random.default_rng(5)
    positive = generator.random(n) < 0.3
    score = np.clip(0.3 * positive + generator.random(n) * 0.7, 0, 1).round(decimals)
    return table(score, positive, patient_id=generator.integers(40, size=n).astype(str))


def test_auroc_of_four_images_by_hand():
    """Positives .8 and .4, negatives .4 and .1: three pairs won, one tied, AUROC 3.5 / 4."""
    result = metrics.auroc(table([0.8, 0.4, 0.4, 0.1], [1, 1, 0, 0]), draws=100)
    assert result["value"] == 3.5 / 4
    assert (result["n"], result["patients"]) == (4, 4)


def test_average_precision_of_four_images_by_hand():
    """Ranks + - + -: half the sensitivity at PPV 1, the other half at PPV 2/3."""
    result = metrics.average_precision(table([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]), draws=100)
    assert result["value"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result["prevalence"] == 0.5


def test_a_perfect_average_precision_is_one():
    """Of 43 positives above 43 negatives scikit-learn's sum is above 1 by rounding: no proportion."""
    scores = np.linspace(1, 0, 86)
    assert average_precision_score([1] * 43 + [0] * 43, scores) > 1
    result = metrics.average_precision(table(scores, [1] * 43 + [0] * 43), draws=100)
    assert result["value"] == 1 and result["ci95"][1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("metric", "reference"),
    [(metrics.auroc, roc_auc_score), (metrics.average_precision, average_precision_score)],
)
def test_vectorised_bootstrap_is_the_naive_loop(metric, reference):
    """Percentiles of all draws at once are those of scikit-learn called on the images of each draw."""
    predictions, draws = random_table(), 300
    patients, patient = np.unique(predictions["patient_id"].to_numpy(str), return_inverse=True)
    is_positive = (predictions["label"] == "COVID-19").to_numpy()
    values = []
    for counts in np.concatenate(list(intervals.patient_draws(len(patients), draws, seed=4))):
        images = np.repeat(np.arange(len(predictions)), counts[patient])
        values.append(reference(is_positive[images], predictions["score_COVID-19"].to_numpy()[images]))
    result = metric(predictions, draws=draws, seed=4)
    assert result["value"] == reference(is_positive, predictions["score_COVID-19"])
    assert result["intervals"]["percentile"] == pytest.approx(np.percentile(values, (2.5, 97.5)), abs=1e-12)
    assert result["n_effective"] == pytest.approx(
        intervals.metric(result["value"], np.array(values), 120, 40, smaller_class(predictions))[
            "n_effective"
        ]
    )


def smaller_class(predictions: pd.DataFrame) -> int:
    return int(predictions.groupby("label")["patient_id"].nunique().min())


def test_draws_without_a_class_are_left_out_and_counted():
    """With three positive patients 5 % of the draws have none; they are counted, not scored as zero."""
    predictions = table(np.linspace(1, 0, 60), np.arange(60) < 3)
    result = metrics.auroc(predictions, draws=2000)
    assert 0.03 < result["draws_left_out"] / 2000 < 0.07
    assert result["value"] == 1.0
    assert result["ci95"] == pytest.approx(intervals.proportion(3, 3))
    assert metrics.average_precision(predictions, draws=2000)["draws_left_out"] == result["draws_left_out"]


def test_two_positive_patients_give_no_interval():
    """With two positive patients 13 % of the draws have none: the value is given without an interval."""
    result = metrics.auroc(table(np.linspace(1, 0, 60), np.arange(60) < 2), draws=500)
    assert result["value"] == 1.0
    assert result["ci95"] is None


def test_same_seed_same_interval():
    """The interval depends on the seed alone, not on the order of the rows."""
    predictions = random_table()
    first = metrics.auroc(predictions, draws=200, seed=1)
    assert metrics.auroc(predictions.sample(frac=1, random_state=0), draws=200, seed=1) == first
    assert metrics.auroc(predictions, draws=200, seed=2)["ci95"] != first["ci95"]


def test_roc_points_by_hand():
    """Each distinct score is a point; the curve starts at (0, 1) above every score."""
    points = metrics.roc(table([0.8, 0.4, 0.4, 0.1], [1, 1, 0, 0]))
    assert points["threshold"].tolist() == [np.inf, 0.8, 0.4, 0.1]
    assert points["sensitivity"].tolist() == [0, 0.5, 1, 1]
    assert points["specificity"].tolist() == [1, 1, 0.5, 0]


def test_area_under_the_points_is_the_auroc():
    """The trapezoids under the curve's points add up to the AUROC."""
    predictions = random_table()
    points = metrics.roc(predictions)
    area = np.trapezoid(points["sensitivity"], 1 - points["specificity"])
    assert area == pytest.approx(metrics.auroc(predictions, draws=20)["value"])


def test_precision_recall_points_by_hand():
    """From everything called positive (PPV is the prevalence) to nothing (PPV 1 by convention)."""
    points = metrics.precision_recall(table([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]))
    assert points["threshold"].tolist() == [0.1, 0.7, 0.8, 0.9, np.inf]
    assert points["sensitivity"].tolist() == [1, 1, 0.5, 0.5, 0]
    assert points["ppv"].tolist() == pytest.approx([0.5, 2 / 3, 0.5, 1, 1])


def test_histogram_counts_by_group_and_bin():
    """Bins hold their lower edge, the last both; support devices alone are normal; nothing is dropped."""
    findings = ["COVID-19", "No Finding", "No Finding|Support Devices", "Pneumonia|No Finding", "Edema"]
    predictions = table([1.0, 1 / 24, 0.0, 0.99, 0.5], [1, 0, 0, 0, 0], finding=findings)
    counts = metrics.histogram(predictions)
    assert counts.groupby("group")["count"].sum().to_dict() == {
        "COVID-19": 1,
        "normal": 2,
        "other disease": 2,
    }
    filled = counts[counts["count"] > 0]
    bins = (filled["low"] * 24).round().astype(int)
    assert list(zip(filled["group"], bins, strict=True)) == [
        ("COVID-19", 23),
        ("normal", 0),
        ("normal", 1),
        ("other disease", 12),
        ("other disease", 23),
    ]
    assert len(counts) == 3 * 24


def test_histogram_keeps_images_without_a_stated_finding_apart():
    """An image whose source states no finding is neither normal nor diseased."""
    counts = metrics.histogram(table([0.2, 0.4], [1, 0], finding=["COVID-19", ""]))
    assert counts.loc[counts["group"] == "not stated", "count"].sum() == 1


@pytest.mark.parametrize("function", [metrics.roc, metrics.precision_recall, metrics.auroc])
def test_one_class_is_refused(function):
    """A ranking of images of one class is an error that tells the counts."""
    with pytest.raises(DataError, match=r"labelled COVID-19 and others .* Received: \{'non-COVID': 3\}"):
        function(table([0.1, 0.2, 0.3], [0, 0, 0]))


def test_several_splits_and_unknown_labels_are_refused():
    """Rows of val and test are never mixed, and a label needs its score column."""
    predictions = table([0.1, 0.2], [0, 1], split=["val", "test"])
    with pytest.raises(DataError, match=r"rows of one split were wanted. Received: \['test', 'val'\]"):
        metrics.auroc(predictions)
    with pytest.raises(DataError, match="no column `score_flu`"):
        metrics.roc(predictions.assign(split="test"), positive="flu")


def test_every_other_label_is_negative():
    """With three classes the score of one is judged against the other two together."""
    score = [0.7, 0.2, 0.3, 0.1]
    predictions = table(score, [1, 0, 1, 0]).assign(label=["COVID-19", "normal", "pneumonia", "normal"])
    predictions["score_normal"] = predictions["score_pneumonia"] = (1 - np.array(score)) / 2
    assert metrics.auroc(predictions.drop(columns="score_non-COVID"), draws=20)["value"] == 1.0
