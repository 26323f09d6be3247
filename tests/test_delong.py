"""DeLong's variance: hand-worked values, brute force, a bootstrap, how often intervals hold the truth."""

import makers
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import delong


def rescored(table: pd.DataFrame, score: np.ndarray) -> pd.DataFrame:
    """The same images with another score."""
    return table.assign(**{"score_COVID-19": score, "score_non-COVID": 1 - score})


def brute_force(scores: np.ndarray, positive: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Obuchowski's sums, group by group and pair by pair."""
    total = len(set(groups))
    m, n = positive.sum(), (~positive).sum()
    below, above = [], []
    for score in scores:
        wins = [[(x > y) + (x == y) / 2 for y in score[~positive]] for x in score[positive]]
        below.append(np.mean(wins, axis=1))
        above.append(np.mean(wins, axis=0))
    found = np.zeros((len(scores), len(scores)))
    for r in range(len(scores)):
        for s in range(len(scores)):
            parts = {"10": 0.0, "01": 0.0, "11": 0.0}
            for group in set(groups):
                own_m, own_n = groups[positive] == group, groups[~positive] == group
                p = [(below[k][own_m] - below[k].mean()).sum() for k in (r, s)]
                q = [(above[k][own_n] - above[k].mean()).sum() for k in (r, s)]
                parts["10"] += p[0] * p[1]
                parts["01"] += q[0] * q[1]
                parts["11"] += p[0] * q[1] + p[1] * q[0]
            i1, i0 = len(set(groups[positive])), len(set(groups[~positive]))
            found[r, s] = i1 / (i1 - 1) * parts["10"] / m**2 + i0 / (i0 - 1) * parts["01"] / n**2
            found[r, s] += total / (total - 1) * parts["11"] / (m * n)
    return found


def test_hand_worked_areas_and_variance():
    """Three positives and three negatives, one tie: A = 7.5 / 9, variance (1/12 + 1/12) / 3."""
    score = np.array([0.9, 0.8, 0.4, 0.4, 0.3, 0.6])
    positive = np.array([True, True, True, False, False, False])
    # Placement values: 1, 1, (1/2 + 1 + 0) / 3 = 1/2; and of negatives (1 + 1 + 1/2) / 3 = 5/6, 1, 2/3.
    assert delong.areas(score[None], positive) == pytest.approx(5 / 6)
    of_positives = ((1 / 6) ** 2 * 2 + (1 / 3) ** 2) / 2
    of_negatives = (0 + (1 / 6) ** 2 * 2) / 2
    expected = of_positives / 3 + of_negatives / 3
    assert delong.covariance(score[None], positive, np.arange(6))[0, 0] == pytest.approx(expected)
    result = delong.auroc(makers.predictions(score, positive))
    assert result["standard_error"] == pytest.approx(np.sqrt(expected))
    # t of two degrees of freedom; log odds of 5/6 are log 5.
    half = 4.302653 * np.sqrt(expected) / (5 / 36)
    limits = [1 / (1 + np.exp(-(np.log(5) + sign * half))) for sign in (-1, 1)]
    assert result["ci95"] == pytest.approx(limits, abs=1e-6)


@pytest.mark.parametrize("groups", [np.arange(40), np.arange(40) // 3, np.arange(40) % 7])
def test_covariance_agrees_with_brute_force(groups):
    """Images alone, patients with one class or both: the midranks give the sums over all pairs, ties too."""
    generator = np.random.default_rng(5)
    positive = np.arange(40) < 15
    scores = np.round(generator.random((3, 40)) + 0.3 * positive, 1)
    assert delong.areas(scores, positive) == pytest.approx([roc_auc_score(positive, s) for s in scores])
    expected = brute_force(scores, positive, groups)
    assert delong.covariance(scores, positive, groups) == pytest.approx(expected, rel=1e-12)


def clustered(generator: np.random.Generator, shift: float, shared: float = 0.7) -> list[pd.DataFrame]:
    """Two scores of three images of each of 40 + 80 patients; 4/5 of the variance lie between patients."""
    patient = np.repeat(np.arange(120), 3)
    positive = patient < 40
    own = np.sqrt(0.8) * generator.normal(size=(2, 120))[:, patient]
    own += np.sqrt(0.2) * generator.normal(size=(2, 360))
    second = shared * own[0] + np.sqrt(1 - shared**2) * own[1]
    first = makers.predictions(norm.cdf(own[0] + shift * positive), positive, patient_id=patient.astype(str))
    return [first, rescored(first, norm.cdf(second + shift * positive))]


def test_standard_errors_agree_with_the_bootstrap_over_patients():
    """Of one AUROC and of a paired difference, within a tenth."""
    one, other = clustered(np.random.default_rng(2), 1.2)
    drawn = [metrics.auroc_draws(table, draws=2000)[1] for table in (one, other)]
    assert delong.auroc(one)["standard_error"] == pytest.approx(drawn[0].std(), rel=0.1)
    assert delong.difference(one, other)["standard_error"] == pytest.approx(
        (drawn[0] - drawn[1]).std(), rel=0.1
    )


def test_difference_is_that_of_the_areas_in_any_order_of_the_rows():
    """Shuffled rows change nothing; turned round the difference changes its sign and keeps its p."""
    one, other = clustered(np.random.default_rng(4), 1.2)
    other = rescored(other, other["score_COVID-19"].round(1).to_numpy())
    result = delong.difference(one, other)
    shuffled = delong.difference(one, other.sample(frac=1, random_state=1))
    assert shuffled["ci95"] == pytest.approx(result["ci95"])
    assert result["value"] == pytest.approx(delong.auroc(one)["value"] - delong.auroc(other)["value"])
    turned = delong.difference(other, one)
    assert turned["ci95"] == pytest.approx([-limit for limit in result["ci95"][::-1]])
    assert turned["p"] == pytest.approx(result["p"])
    low, high = result["ci95"]
    assert (low <= 0 <= high) == (result["p"] >= 0.05)


def test_equal_ranks_differ_by_nothing_and_have_no_interval():
    """A score and its square root: value 0, no interval, no p, and the method says why."""
    one, _ = clustered(np.random.default_rng(6), 1.0)
    result = delong.difference(one, rescored(one, np.sqrt(one["score_COVID-19"].to_numpy())))
    assert (result["value"], result["ci95"], result["p"]) == (0.0, None, None)
    assert result["method"] == "no interval: DeLong's variance is 0"


def test_perfect_and_tiny_tables_have_no_interval():
    """AUROC 1 has no variance, and two patients of a class are too few, whatever their images."""
    perfect = delong.auroc(makers.predictions([0.9, 0.8, 0.7, 0.3, 0.2, 0.1], np.arange(6) < 3))
    assert (perfect["value"], perfect["ci95"]) == (1.0, None)
    score, patient = [0.9, 0.2, 0.8, 0.7, 0.3, 0.5, 0.1], ["1", "1", "2", "2", "3", "4", "5"]
    few = delong.auroc(makers.predictions(score, np.arange(7) < 4, patient_id=patient))
    assert (few["ci95"], few["method"]) == (None, "no interval: 2 patients of a class")
    assert few["intervals"]["images"] is not None


def test_scores_of_other_images_are_refused():
    """Absent images, other labels, patients or splits, and one class only are errors that say which."""
    one, other = clustered(np.random.default_rng(1), 1.0)
    with pytest.raises(DataError, match=r"Received: 360 and 359 images, 1 of them in one table only.*'a/0'"):
        delong.difference(one, other.iloc[1:])
    swapped = other.assign(label=other["label"].to_numpy()[::-1])
    with pytest.raises(DataError, match=r"with the same `label` were wanted"):
        delong.difference(one, swapped)
    with pytest.raises(DataError, match=r"with the same `patient_id`.*Received: 360 others"):
        delong.difference(one, other.assign(patient_id=other["image_id"]))
    with pytest.raises(DataError, match=r"with the same `split` were wanted"):
        delong.difference(one, other.assign(split="val"))
    with pytest.raises(DataError, match="images labelled COVID-19 and others were wanted"):
        delong.auroc(one.iloc[:10])


def test_intervals_hold_the_truth_of_clustered_images():
    """Of 500 studies the intervals by patient hold the true AUROC and difference in 93 to 97 %, naive not."""
    generator = np.random.default_rng(17)
    shift, studies, truth = norm.ppf(0.9) * np.sqrt(2), 500, {"auroc": 0.9, "difference": 0.0}
    hits = pd.Series(0.0, index=["auroc", "difference", "naive auroc", "naive difference"])
    rejected = 0
    for _ in range(studies):
        one, other = clustered(generator, shift)
        found = {"auroc": delong.auroc(one), "difference": delong.difference(one, other)}
        rejected += found["difference"]["p"] < 0.05
        for name, result in found.items():
            for prefix, (low, high) in (("", result["ci95"]), ("naive ", result["intervals"]["images"])):
                hits[prefix + name] += low <= truth[name] <= high
    covered = hits / studies
    assert covered[["auroc", "difference"]].between(0.93, 0.97).all(), covered
    assert (covered[["naive auroc", "naive difference"]] < 0.85).all(), covered
    assert rejected == studies - hits["difference"]
