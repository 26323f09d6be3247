"""Tests of covidtf.metrics.classes."""

import numpy as np
import pandas as pd
import pytest
from makers import predictions
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from covidtf.files import DataError
from covidtf.metrics import classes


def table(scores, labels, names):
    """Predictions of test rows with one score column per name."""
    base = predictions(np.zeros(len(labels)), labels)
    base = base.drop(columns=[name for name in base if name.startswith("score_")]).assign(label=labels)
    columns = pd.DataFrame(np.asarray(scores, float), columns=[f"score_{name}" for name in names])
    return pd.concat([base, columns], axis=1)


@pytest.fixture
def seven():
    """200 images of seven classes with random scores that lean towards the label."""
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=200)
    scores = rng.random((200, 7)) + 0.5 * np.eye(7)[labels]
    return table(scores / scores.sum(axis=1, keepdims=True), list("abcdefg"[n] for n in labels), "abcdefg")


def test_accuracy_is_scikit_learns(seven):
    """Accuracy and top-5 accuracy agree with scikit-learn's, and the interval holds the value."""
    scores = seven[[f"score_{name}" for name in "abcdefg"]].to_numpy()
    found = classes.evaluate(seven, draws=200)
    top1 = accuracy_score(seven["label"], np.array(list("abcdefg"))[scores.argmax(axis=1)])
    assert found["test"]["accuracy"]["value"] == pytest.approx(top1)
    assert found["test"]["top5_accuracy"]["value"] == pytest.approx(
        top_k_accuracy_score(seven["label"], scores, k=5)
    )
    low, high = found["test"]["accuracy"]["ci95"]
    assert low < top1 < high
    assert found["classes"] == 7
    assert found["chance"] == seven["label"].value_counts().max() / 200


def test_five_classes_or_fewer_have_no_top_five():
    """It would be 1 whatever the scores."""
    found = classes.evaluate(table(np.eye(5), list("abcde"), "abcde"), draws=50)
    assert list(found["test"]) == ["accuracy"]


def test_ranks_by_hand():
    """The right class is counted from the highest score; of equal scores the first column comes first."""
    scores = [[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.25, 0.25, 0.5], [0.25, 0.25, 0.5]]
    found = classes.ranks(table(scores, ["a", "c", "b", "a"], "abc"))
    assert found.tolist() == [1, 3, 3, 2]


def test_top_k_rises_to_one(seven):
    """The share grows with k and is 1 at the number of classes; chance is k of it."""
    found = classes.top_k(seven)
    assert found["share"].is_monotonic_increasing
    assert found["k"].tolist() == list(range(1, 8))
    assert found["share"].iloc[-1] == 1
    assert found["chance"].tolist() == pytest.approx([k / 7 for k in range(1, 8)])


def test_val_alone_is_refused(seven):
    """Without rows of test there is nothing to judge."""
    with pytest.raises(DataError, match="rows of test were wanted"):
        classes.evaluate(seven.assign(split="val"))
