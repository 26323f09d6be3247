"""One run's report, the comparison of runs, and the published numbers."""

import json

import numpy as np
import pandas as pd
import pytest
from test_metrics import table

from covidtf.files import DataError, write_json
from covidtf.metrics import evaluation


def run(seed: int = 0) -> pd.DataFrame:
    """Predictions on two sources, of which one has no COVID-19 image."""
    generator = np.random.default_rng(seed)
    parts = []
    for split in ("val", "test"):
        positive = np.arange(90) < 30
        score = np.clip(0.25 * positive + 0.7 * generator.random(90), 0, 1)
        source = np.where(np.arange(90) < 45, "mixed", "negative only")
        part = table(score, positive, split=split, source=source)
        part["finding"] = np.where(positive, "COVID-19", "No Finding")
        part["image_id"] = split + part["image_id"]
        part["patient_id"] = split + pd.Series(np.arange(90) // 2).astype(str)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_evaluation_is_json_and_reads_back_equal(tmp_path):
    """The report of a run survives JSON unchanged: no NaN, no NumPy types, no tuples."""
    result = evaluation.evaluate(run(), draws=100)
    path = write_json(result, tmp_path / "metrics.json")
    assert json.loads(path.read_text()) == result


def test_threshold_comes_from_val_alone():
    """Other scores on test change the numbers on test and not the threshold."""
    predictions = run()
    other = predictions.copy()
    test = other["split"] == "test"
    other.loc[test, ["score_COVID-19", "score_non-COVID"]] = [0.25, 0.75]
    first, second = (evaluation.evaluate(rows, draws=50) for rows in (predictions, other))
    assert first["threshold"] == second["threshold"]
    assert second["test"]["auroc"]["value"] == 0.5 != first["test"]["auroc"]["value"]


def test_each_source_is_judged_alone():
    """A source with both classes has its own AUROC; one without COVID-19 says that it cannot be told."""
    predictions = run()
    result = evaluation.evaluate(predictions, draws=100)["within_source"]
    assert list(result) == ["mixed", "negative only"]
    assert result["mixed"]["auroc"]["n"] == 45
    assert result["negative only"]["auroc"]["value"] is None
    assert result["negative only"]["auroc"]["method"] == "cannot be told: no image is COVID-19"
    assert result["negative only"]["sensitivity"]["value"] is None
    assert result["negative only"]["specificity"]["n"] == 45


def test_counts_are_of_images_and_patients():
    """Counts per split, source and label, with the patients behind the images."""
    counts = evaluation.counts(run())
    assert counts.columns.tolist() == ["split", "source", "label", "images", "patients"]
    first = counts.iloc[0].to_dict()
    assert first == {"split": "test", "source": "mixed", "label": "COVID-19", "images": 30, "patients": 15}
    assert counts["images"].sum() == 180


def test_patient_in_val_and_test_is_counted():
    """A patient whose images are in both splits shows up in the report."""
    predictions = run()
    assert evaluation.evaluate(predictions, draws=20)["patients_in_val_and_test"] == 0
    predictions.loc[predictions["patient_id"] == "test0", "patient_id"] = "val0"
    assert evaluation.evaluate(predictions, draws=20)["patients_in_val_and_test"] == 1


@pytest.mark.parametrize("splits", [("test",), ("val",), ("train", "val", "test")])
def test_val_and_test_are_both_needed_and_nothing_else(splits):
    """Without val there is no threshold, without test no result, and train has no place in either."""
    predictions = run()
    extra = predictions.iloc[:2].assign(split="train", image_id=["x", "y"])
    rows = pd.concat([predictions, extra])
    with pytest.raises(DataError, match="rows of val and of test were wanted"):
        evaluation.evaluate(rows[rows["split"].isin(splits)], draws=20)


def test_comparison_has_a_row_per_run():
    """Runs stand side by side as numbers; a value that cannot be told is NaN."""
    results = {f"run {seed}": evaluation.evaluate(run(seed), draws=50) for seed in (0, 1)}
    compared = evaluation.comparison(results)
    assert compared["run"].tolist() == ["run 0", "run 1"]
    assert compared[["n", "patients", "positives"]].iloc[0].tolist() == [90, 45, 30]
    auroc = results["run 1"]["test"]["auroc"]
    assert compared.loc[1, ["auroc_low", "auroc", "auroc_high"]].tolist() == [
        auroc["ci95"][0],
        auroc["value"],
        auroc["ci95"][1],
    ]
    assert evaluation.comparison(results, "negative only")["auroc"].isna().all()
    with pytest.raises(DataError, match="run 0: no part 'elsewhere'"):
        evaluation.comparison(results, "elsewhere")


def test_published_numbers_agree_with_each_other():
    """Published half-widths follow from value and n, but for the one that is noted; counts add up."""
    published = evaluation.published()
    assert set(published["certainty"]) == {"A", "B", "C", "M"}
    stated = published[published["half_width"].notna()]
    formula = 1.96 * np.sqrt(stated["value"] * (1 - stated["value"]) / stated["n"])
    agrees = (formula.round(3) - stated["half_width"]).abs() < 1e-9
    assert len(stated) == 8
    assert stated.loc[~agrees, "note"].tolist() == ["the formula gives 0.010 for this value and n"]
    histogram = published[published["quantity"] == "histogram"]
    assert (len(histogram), histogram["value"].sum()) == (24, 40)
