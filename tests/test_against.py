"""Networks against the best trivial baseline."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from covidtf import tables
from covidtf.files import DataError, write_csv
from covidtf.metrics import against, evaluation

BASELINES = ("mean and std", "thumbnail")
PATIENTS = 60


def scored(separation: float, seed: int = 0, noise: float = 1.0) -> pd.DataFrame:
    """Scores of two images each of `PATIENTS` patients in val and in test, from two sources.

    The images, their difficulty included, are the same for any separation; `seed` and `noise` are the run's.
    """
    n = 4 * PATIENTS
    patient = np.arange(n) // 2
    positive = patient % 3 == 0
    hard = np.random.default_rng(7).normal(size=2 * PATIENTS)[patient]
    own = noise * np.random.default_rng([seed, 1]).normal(size=n)
    score = 1 / (1 + np.exp(-(separation * positive + hard + own)))
    return pd.DataFrame(
        {
            "image_id": [f"i{index:03}" for index in range(n)],
            "patient_id": [f"p{index}" for index in patient],
            "case_id": "",
            "source": np.where(patient % 2, "a", "b"),
            "view": "PA",
            "finding": "",
            "split": np.where(patient < PATIENTS, "val", "test"),
            "label": np.where(positive, "COVID-19", "non-COVID"),
            "score_COVID-19": score,
            "score_non-COVID": 1 - score,
        }
    )


@pytest.fixture(scope="module")
def predictions() -> dict[str, pd.DataFrame]:
    """A network that is clearly better than both baselines, one that is not, and the baselines."""
    return {
        "ResNet18": scored(4.0, 1),
        "SqueezeNet 1.0": scored(1.0, 2),
        "mean and std": scored(0.3, 3),
        "thumbnail": scored(0.9, 4),
    }


def test_parts_of_test(predictions):
    """The fixture is what it says: over all images of test one network wins and one does not."""
    tests = {name: table[table["split"] == "test"] for name, table in predictions.items()}
    found = against.gains(tests, BASELINES, draws=300)
    assert found["best_baseline"].tolist() == ["thumbnail", "thumbnail", "", ""]
    assert found["beats"].tolist() == ["yes", "no", "", ""]
    assert found.loc[list(BASELINES), "over_baseline"].isna().all()


def test_the_difference_is_that_of_the_same_draws_of_patients(predictions):
    """Value and percentiles equal those of AUROCs by ranks, patient by patient in the same draws."""
    tests = {name: table[table["split"] == "test"] for name, table in predictions.items()}
    row = against.gains(tests, BASELINES, draws=200, seed=5).loc["SqueezeNet 1.0"]
    one, other = tests["SqueezeNet 1.0"], tests["thumbnail"]
    assert row["over_baseline"] == pytest.approx(by_ranks(one) - by_ranks(other))
    patients = np.unique(one["patient_id"])
    generator = np.random.default_rng([5, 0xB007])
    differences = []
    for drawn in generator.integers(len(patients), size=(200, len(patients))):
        rows = np.concatenate([np.flatnonzero(one["patient_id"] == patients[index]) for index in drawn])
        differences.append(by_ranks(one.iloc[rows]) - by_ranks(other.iloc[rows]))
    limits = row[["over_baseline_low", "over_baseline_high"]].tolist()
    assert limits == pytest.approx(np.percentile(differences, (2.5, 97.5)))


def by_ranks(table: pd.DataFrame) -> float:
    """AUROC as the Mann-Whitney statistic."""
    positive = (table["label"] == "COVID-19").to_numpy()
    ranks = rankdata(table["score_COVID-19"])
    n = positive.sum()
    return (ranks[positive].sum() - n * (n + 1) / 2) / (n * (~positive).sum())


def test_the_order_of_the_rows_does_not_matter(predictions):
    """A run whose rows stand otherwise is compared image by image all the same."""
    tests = {name: table[table["split"] == "test"] for name, table in predictions.items()}
    shuffled = tests | {"ResNet18": tests["ResNet18"].sample(frac=1, random_state=1)}
    one, other = (against.gains(each, BASELINES, draws=50) for each in (tests, shuffled))
    pd.testing.assert_frame_equal(one, other)


def test_the_best_baseline_is_the_one_with_the_highest_auroc():
    """Of equal ones the first; one that cannot be told is none; the choice favours the baselines."""
    assert against.best_baseline({"a": 0.6, "b": 0.8, "c": 0.8}) == "b"
    assert against.best_baseline({"a": np.nan, "b": 0.1}) == "b"
    assert against.best_baseline({"a": np.nan}) == against.best_baseline({}) == ""


def test_two_copies_of_a_score_do_not_beat_each_other(predictions):
    """The same scores gain nothing: the interval is 0 to 0, which is not above 0."""
    test = predictions["ResNet18"].query("split == 'test'")
    row = against.gains({"network": test, "baseline": test}, ["baseline"], draws=50).loc["network"]
    assert row.tolist() == ["baseline", 0.0, 0.0, 0.0, "no"]


def test_macro_auroc_of_two_classes_is_the_auroc(predictions):
    """Of two classes both ways give the same gains."""
    tests = {name: table[table["split"] == "test"] for name, table in predictions.items()}
    macro, single = (against.gains(tests, BASELINES, positive, draws=100) for positive in (None, "COVID-19"))
    pd.testing.assert_frame_equal(macro, single)


def test_what_cannot_be_told(predictions):
    """One class, too few patients, or no baseline: there is no verdict, and never a yes."""
    test = {name: table[table["split"] == "test"] for name, table in predictions.items()}
    single = {name: table[table["label"] == "COVID-19"] for name, table in test.items()}
    found = against.gains(single, BASELINES, draws=50).loc["ResNet18"]
    assert (found["best_baseline"], found["beats"]) == ("", "cannot be told")
    kept = ["p60", "p61", "p62"]
    few = {name: table[table["patient_id"].isin(kept)] for name, table in test.items()}
    found = against.gains(few, BASELINES, draws=50).loc["ResNet18"]
    assert found["beats"] == "cannot be told" and np.isnan(found["over_baseline_low"])
    alone = against.gains({"ResNet18": test["ResNet18"]}, [], draws=50).loc["ResNet18"]
    assert (alone["best_baseline"], alone["beats"]) == ("", "cannot be told")


def test_other_images_and_unknown_names_are_refused(predictions):
    """A difference is of the same images, and every name is known."""
    test = predictions["ResNet18"].query("split == 'test'")
    with pytest.raises(
        DataError, match=r"b: the 120 images of 'a' were wanted\. Received: 119, 1 of them in"
    ):
        against.gains({"a": test, "b": test.iloc[1:]}, ["b"], draws=10)
    with pytest.raises(DataError, match=r"`baselines` must be some of \['a'\]\. Received: \['b'\]"):
        against.gains({"a": test}, ["b"], draws=10)
    with pytest.raises(DataError, match=r"predictions of \['x'\] were wanted"):
        against.add(pd.DataFrame({"run": ["x"]}), predictions, BASELINES)
    with pytest.raises(DataError, match=r"ResNet18: no prediction of 'c'\. Received: \['a', 'b'\]"):
        against.add(pd.DataFrame({"run": ["ResNet18"]}), predictions, BASELINES, "c")


def test_columns_stand_beside_the_results(predictions):
    """Of test, of a source's images of test and of val, in any order, whatever the runs' column is called."""
    results = {name: evaluation.evaluate(table, draws=50) for name, table in predictions.items()}
    table = evaluation.comparison(results).iloc[::-1].rename(columns={"run": "network"})
    found = against.add(table, predictions, BASELINES, draws=100).set_index("network")
    tests = {name: rows[rows["split"] == "test"] for name, rows in predictions.items()}
    pd.testing.assert_frame_equal(
        found.loc[list(tests), list(against.COLUMNS)],
        against.gains(tests, BASELINES, draws=100),
        check_names=False,
    )
    of_source = {name: rows[rows["source"] == "a"] for name, rows in tests.items()}
    within = against.add(evaluation.comparison(results, "a"), predictions, BASELINES, "a", draws=100)
    wanted = against.gains(of_source, BASELINES, draws=100)
    assert within["over_baseline"].tolist()[:2] == wanted["over_baseline"].tolist()[:2]
    val = against.add(pd.DataFrame({"run": list(predictions)}), predictions, BASELINES, "val", draws=100)
    assert val["over_baseline"].tolist()[:2] != found["over_baseline"].tolist()[:2]


def test_readers_see_who_is_not_above(predictions, tmp_path):
    """One cell with the gain; marked where not above; empty for baselines; also read back, and without."""
    results = {name: evaluation.evaluate(table, draws=50) for name, table in predictions.items()}
    plain = evaluation.comparison(results).rename(columns={"run": "network"}).assign(start="no weights")
    assert "Over best baseline" not in tables.readable(plain)
    table = against.add(plain, predictions, BASELINES, draws=100)
    cells = tables.readable(table)["Over best baseline"].tolist()
    value, low, high = table.loc[1, list(against.COLUMNS[1:4])]
    assert cells[1:] == [f"{value:+.3f} ({low:+.3f} to {high:+.3f}), not above", "", ""]
    assert cells[0].startswith("+0.") and cells[0].endswith(")")
    write_csv(table, tmp_path / "results.csv")
    assert tables.readable(pd.read_csv(tmp_path / "results.csv"))["Over best baseline"].tolist() == cells
    untold = table.assign(beats="cannot be told", over_baseline=np.nan)
    assert set(tables.readable(untold)["Over best baseline"]) == {"cannot be told"}
