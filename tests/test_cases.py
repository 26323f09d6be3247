"""Tests of covidtf.metrics.cases."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from test_multiclass import NAMES, predictions

from covidtf.files import DataError, write_json
from covidtf.metrics import cases

TWO = ("COVID-19", "non-COVID")
DISEASES = ("COVID-19", "Bacterial Pneumonia")


def slices(scores, label="COVID-19", names=NAMES, case="c") -> pd.DataFrame:
    """Slices of one case."""
    rows = predictions(scores, [label] * len(scores), names, patient_id=f"p{case}", case_id=case)
    return rows.assign(image_id=[f"{case}/{index}" for index in range(len(scores))])


def pooled(scores, rule, names=NAMES, k=2, label="COVID-19") -> list[float]:
    """Scores of a case with these slices."""
    found = cases.case_scores(slices(scores, label, names), rule, k)
    return found[[f"score_{name}" for name in names]].iloc[0].tolist()


THREE = [[0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.2, 0.8, 0.0]]


def test_mean_by_hand():
    """The mean of each class's scores, "normal" like the others."""
    assert pooled(THREE, "mean") == pytest.approx([0.9 / 3, 1.8 / 3, 0.3 / 3])


def test_max_by_hand():
    """Normal gets what the most abnormal slice leaves, 0.3; the diseases share 0.7 as 0.6 to 0.2."""
    assert pooled(THREE, "max") == pytest.approx([0.7 * 0.6 / 0.8, 0.3, 0.7 * 0.2 / 0.8])


def test_top_k_by_hand():
    """With k = 2: any disease (0.7 + 0.3) / 2, COVID-19 (0.6 + 0.2) / 2, pneumonia (0.2 + 0.1) / 2."""
    assert pooled(THREE, "top-k") == pytest.approx([0.5 * 0.4 / 0.55, 0.5, 0.5 * 0.15 / 0.55])
    assert pooled(THREE, "top-k", k=1) == pytest.approx(pooled(THREE, "max"))


def test_top_k_of_few_slices_takes_all():
    """A case of three slices with k = 10: the means of all three, hence the rule "mean"."""
    assert pooled(THREE, "top-k", k=10) == pytest.approx(pooled(THREE, "mean"))


def test_noisy_or_by_hand():
    """The products of s_normal and of s_disease + s_normal, divided by their sum."""
    normal = 0.3 * 0.7 * 0.8
    covid, pneumonia = 0.9 * 0.8 * 1.0 - normal, 0.4 * 0.9 * 0.8 - normal
    total = normal + covid + pneumonia
    assert pooled(THREE, "noisy-or") == pytest.approx([covid / total, normal / total, pneumonia / total])


def test_noisy_or_of_one_disease_is_the_plain_one():
    """1 - (1 - 0.6) (1 - 0.1) (1 - 0.2), and normal what remains."""
    found = pooled([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8]], "noisy-or", TWO)
    assert found == pytest.approx([1 - 0.4 * 0.9 * 0.8, 0.4 * 0.9 * 0.8])


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("max", [0.9 / 1.6, 0.7 / 1.6]),
        ("top-k", [0.65 / 1.3, 0.65 / 1.3]),
        # 1 - 0.1 * 0.6 * 0.7 and 1 - 0.9 * 0.4 * 0.3.
        ("noisy-or", [0.958 / (0.958 + 0.892), 0.892 / (0.958 + 0.892)]),
    ],
)
def test_without_a_normal_class_all_are_pooled_alike(rule, wanted):
    """Of two diseases, each is pooled, and their sum divides both."""
    scores = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]
    assert pooled(scores, rule, DISEASES) == pytest.approx(wanted)


@pytest.mark.parametrize("rule", cases.RULES)
@pytest.mark.parametrize("names", [NAMES, TWO, DISEASES])
def test_one_slice_keeps_its_scores(rule, names):
    """A case of one slice has the slice's scores under every rule."""
    scores = [0.5, 0.2, 0.3] if len(names) == 3 else [0.7, 0.3]
    assert pooled([scores], rule, names) == pytest.approx(scores)


@pytest.mark.parametrize("rule", cases.RULES)
def test_scores_of_0_and_1_are_pooled_without_a_warning(rule):
    """Certain slices of every class, alone and mixed, give finite scores that sum to 1."""
    for names in (NAMES, TWO, DISEASES):
        certain = np.eye(len(names)).tolist()
        for scores in (*[[row] * 60 for row in certain], certain):
            assert sum(pooled(scores, rule, names)) == pytest.approx(1)
    assert pooled([[0, 1, 0]] * 60, rule) == [0, 1, 0]
    assert pooled([[1, 0, 0]] * 60, rule) == [1, 0, 0]


def test_many_slices_do_not_make_two_diseases_equally_certain():
    """1 - prod(1 - s) is all but 1 for both diseases after 54 slices; which shows more still decides."""
    scores = [[0.5, 0.05, 0.45]] * 54
    assert 0.55**54 < 1e-13
    covid, normal, pneumonia = pooled(scores, "noisy-or")
    assert covid / pneumonia == pytest.approx((0.55 / 0.50) ** 54, rel=1e-9)
    assert 0 < normal < 1e-50


def test_normal_slices_do_not_hide_a_disease():
    """Fifty slices that look normal and three that do not: all rules but the mean find the disease."""
    scores = [[0.02, 0.98, 0.0]] * 50 + [[0.9, 0.05, 0.05]] * 3
    found = {rule: pooled(scores, rule, k=3)[0] for rule in cases.RULES}
    assert found["mean"] < 0.1
    assert min(found["max"], found["top-k"], found["noisy-or"]) > 0.8


def test_table_has_one_row_per_case():
    """Cases in their order; the image is the case, and what differs between slices is joined."""
    first, second = slices(THREE, case="b"), slices(THREE[:2], "Normal", case="a")
    first["finding"] = ["x", "y", "x"]
    mixed = pd.concat([first[:1], second, first[1:]], ignore_index=True).assign(extra=1)
    found = cases.case_scores(mixed, "mean")
    assert found["image_id"].tolist() == found["case_id"].tolist() == ["b", "a"]
    assert found["patient_id"].tolist() == ["pb", "pa"]
    assert found["label"].tolist() == ["COVID-19", "Normal"]
    assert found["finding"].tolist() == ["x|y", ""]
    assert "extra" not in found
    assert found["score_COVID-19"].tolist() == pytest.approx([0.3, 0.35])


@pytest.mark.parametrize("column", ["label", "split", "patient_id"])
def test_slices_of_a_case_must_agree(column):
    """A case in two splits, of two labels or of two patients is refused by its name."""
    rows = pd.concat([slices(THREE, case="a"), slices(THREE, case="b")], ignore_index=True)
    other = {"label": "Normal", "split": "val", "patient_id": "px"}[column]
    rows.loc[4, column] = other
    with pytest.raises(DataError, match=rf"case 'b' must have one {column}\. Received: \[.*'{other}'"):
        cases.case_scores(rows, "mean")


def test_bad_arguments_are_refused():
    """Unknown rule, no slice, an unknown case, and two classes that both mean normal."""
    rows = slices(THREE)
    with pytest.raises(ValueError, match=r"`rule` must be one of .* Received: 'median'"):
        cases.case_scores(rows, "median")
    with pytest.raises(ValueError, match=r"`k` must be at least 1\. Received: 0"):
        cases.case_scores(rows, "top-k", k=0)
    with pytest.raises(DataError, match=r"row 3: `case_id` must be known"):
        cases.case_scores(rows.assign(case_id=["c", "", "c"]), "mean")
    both = slices([[0.4, 0.6]], "Normal", names=("Normal", "non-COVID"))
    with pytest.raises(DataError, match="at most one of"):
        cases.case_scores(both, "max")


def val(found_by: str) -> pd.DataFrame:
    """Twenty cases: COVID-19 shows on one of eight slices among random others, or faintly on all."""
    generator, parts = np.random.default_rng(0), []
    for case in range(20):
        ill = case % 2 == 0
        score = generator.uniform(0.0, 0.5, 8)
        if found_by == "max":
            score[0] = 0.9 if ill else 0.55
        else:
            score += 0.3 * ill
            score[0] = generator.uniform(0.8, 0.95)
        label = TWO[0] if ill else TWO[1]
        parts.append(slices(np.column_stack([score, 1 - score]), label, TWO, str(case)))
    return pd.concat(parts, ignore_index=True).assign(split="val")


def test_the_rule_with_the_highest_auroc_is_chosen():
    """A disease on one slice is found by the maximum, a faint one on all slices by the mean."""
    found = cases.choose_rule(val("max"))
    assert (found["rule"], found["k"], found["value"]) == ("max", None, 1.0)
    assert (found["chosen_on"], found["cases"], found["patients"]) == ("val", 20, 20)
    tried = [(one["rule"], one["k"]) for one in found["candidates"]]
    assert tried == [
        ("mean", None),
        ("max", None),
        ("top-k", 3),
        ("top-k", 5),
        ("top-k", 10),
        ("noisy-or", None),
    ]
    for one in found["candidates"]:
        rows = cases.case_scores(val("max"), one["rule"], one["k"] or 1)
        wanted = roc_auc_score(rows["label"] == "COVID-19", rows["score_COVID-19"])
        assert one["value"] == pytest.approx(wanted)
    assert cases.choose_rule(val("mean"))["rule"] == "mean"


def test_of_equal_rules_the_simplest_is_chosen(tmp_path):
    """Where every rule separates val, it is the mean; the answer is ready for JSON."""
    rows = pd.concat(
        [slices([[0.9, 0.1]] * 2, TWO[0], TWO, "a"), slices([[0.1, 0.9]] * 2, TWO[1], TWO, "b")]
    ).assign(split="val")
    found = cases.choose_rule(rows, ks=(2, 1))
    assert {one["value"] for one in found["candidates"]} == {1.0}
    assert found["rule"] == "mean"
    assert [one["k"] for one in found["candidates"]] == [None, None, 1, 2, None]
    path = write_json(found, tmp_path / "rule.json")
    assert json.loads(path.read_text()) == found


def test_a_rule_is_chosen_on_val_with_each_class():
    """Rows of test, and a val without a class, are refused."""
    with pytest.raises(DataError, match=r"rows of val were wanted\. Received: \['test'\]"):
        cases.choose_rule(val("max").assign(split="test"))
    alone = val("max").query("label == 'COVID-19'")
    with pytest.raises(
        DataError, match=r"cases of each class were wanted in val\. Received: {'COVID-19': 10}"
    ):
        cases.choose_rule(alone)
