"""Evidence inside the lungs: shares, what is called and explained, examples, and summaries by patient."""

import numpy as np
import pandas as pd
import pytest

from covidtf.explain import evidence


def test_share_counts_positive_evidence_alone():
    """Hand-worked; a map without positive evidence has no share."""
    maps = np.array([[[3.0, 1.0], [-5.0, 4.0]], [[-1.0, 0.0], [0.0, -2.0]]])
    masks = np.array([[[True, False], [True, False]]] * 2)
    found = evidence.shares(maps, masks)
    assert found[0] == 3 / 8 and np.isnan(found[1])
    with pytest.raises(ValueError, match="shape"):
        evidence.shares(maps, masks[:1])


def predictions(scores, labels) -> pd.DataFrame:
    """Scores of COVID-19, two images per patient."""
    count = len(scores)
    table = {"image_id": [f"i{n}" for n in range(count)], "patient_id": [f"p{n // 2}" for n in range(count)]}
    table |= {"source": "s", "label": labels, "score_COVID-19": scores}
    return pd.DataFrame(table).assign(**{"score_non-COVID": 1 - np.asarray(scores)})


def test_called_by_the_threshold_and_positive_class_explained():
    """Of two classes; without a threshold the higher score is called; of three the called one explained."""
    rows = predictions([0.3, 0.1, 0.9], ["COVID-19"] * 3)
    classes = ["COVID-19", "non-COVID"]
    calls = evidence.told(rows, classes, "COVID-19", 0.2)
    assert calls["called"].tolist() == ["COVID-19", "non-COVID", "COVID-19"]
    assert set(calls["explained"]) == {"COVID-19"} and calls["score"].tolist() == [0.3, 0.1, 0.9]
    called = evidence.told(rows, classes, "COVID-19", None)["called"]
    assert called.tolist() == ["non-COVID", "non-COVID", "COVID-19"]
    three = rows.assign(score_Normal=[0.5, 0.0, 0.0])
    calls = evidence.told(three, [*classes, "Normal"], "COVID-19", None)
    assert calls["explained"].tolist() == calls["called"].tolist()
    assert calls["class_index"].tolist() == [1, 1, 0]


def test_examples_are_the_surest_of_each_kind_one_per_patient():
    """Failures are there, and an image of a patient already shown is not."""
    scores = [0.9, 0.95, 0.8, 0.1, 0.7, 0.2, 0.3, 0.05]
    labels = ["COVID-19"] * 4 + ["non-COVID"] * 4
    calls = evidence.told(predictions(scores, labels), ["COVID-19", "non-COVID"], "COVID-19", 0.5)
    chosen = evidence.choose(calls, "COVID-19", 2)
    assert list(zip(chosen["kind"], chosen["score"], strict=True)) == [
        *(("true positive", 0.95), ("true positive", 0.8), ("false negative", 0.1)),
        *(("false positive", 0.7), ("true negative", 0.05), ("true negative", 0.2)),
    ]
    assert (calls.loc[chosen.index, "score"] == chosen["score"]).all()
    kinds = chosen.drop_duplicates("kind").set_index("kind")["of_kind"]
    assert kinds.to_dict() == {
        **{"true positive": 3, "false negative": 1, "false positive": 1, "true negative": 3}
    }


def test_summary_is_by_patient_and_counts_what_it_leaves_out():
    """Two images of a patient are one draw: the interval is that of means over patients; areas are means."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 5)
    level = rng.uniform(0.2, 0.8, 40)
    table = pd.DataFrame({"patient_id": patients.astype(str), "share": level[patients], "area": 0.3})
    table.loc[len(table)] = ["40", np.nan, 0.9]
    found = evidence.summary(table, 2000, 0)
    share, difference = found["share"], found["difference"]
    assert share["value"] == pytest.approx(level.mean()) and found["area"]["value"] == pytest.approx(0.3)
    assert (share["n"], share["patients"], share["images_left_out"]) == (200, 40, 1)
    assert difference["value"] == pytest.approx(level.mean() - 0.3)
    width = 2 * 1.96 * level.std() / np.sqrt(40)
    assert share["ci95"][1] - share["ci95"][0] == pytest.approx(width, rel=0.1)
    row = evidence.row(table, 2000, 0)
    assert row["difference_low"] == difference["ci95"][0] and row["images_left_out"] == 1


def test_summary_of_too_little_says_why():
    """No map with evidence, no image, two patients."""
    nothing = pd.DataFrame({"patient_id": ["a"], "share": [np.nan], "area": [0.3]})
    assert "no map has positive evidence" in evidence.summary(nothing)["share"]["method"]
    assert np.isnan(evidence.row(nothing.head(0))["share"])
    two = pd.DataFrame({"patient_id": ["a", "b"], "share": [0.5, 0.7], "area": 0.3})
    found = evidence.summary(two)["share"]
    assert found["value"] == pytest.approx(0.6) and found["ci95"] is None and "at least 3" in found["method"]
