"""Tests of covidtf.metrics.folds."""

import makers
import numpy as np
import pandas as pd
import pytest

from covidtf.files import DataError
from covidtf.metrics import folds


def cuts(*moved: float) -> list[pd.DataFrame]:
    """Folds that each separate both classes; the COVID-19 scores of each are moved by so much."""
    result = []
    for index, by in enumerate(moved):
        score = np.array([0.3, 0.4, 0.1, 0.2]) + by
        own = [f"f{index}-{case}" for case in range(4)]
        columns = {"image_id": own, "patient_id": own, "case_id": own}
        result.append(makers.predictions(score, [True, True, False, False], **columns))
    return result


def test_pooling_compares_models_as_well_as_cases():
    """Each fold is separated, but a fold's normals are above the other's patients: pooled 12 of 16 pairs."""
    found = folds.fold_auroc(cuts(0.0, 0.5), draws=50)
    assert found["folds"] == [1.0, 1.0]
    assert found["mean"] == 1.0
    assert found["pooled"]["value"] == pytest.approx(12 / 16)
    assert folds.fold_auroc(cuts(0.0, 0.0), draws=50)["pooled"]["value"] == 1.0


def test_a_fold_without_a_class_leaves_the_mean_untold():
    """The pooled value can be told where a fold's cannot."""
    first, second = cuts(0.0, 0.0)
    found = folds.fold_auroc([first, second[:2]], draws=50)
    assert found["folds"] == [1.0, None]
    assert found["mean"] is None
    assert found["pooled"]["value"] == 1.0


def test_every_case_is_judged_once():
    """A case in two folds is refused under new image names too; so are other classes and no fold."""
    first, second = cuts(0.0, 0.1)
    assert len(folds.pooled([first, second])) == 8
    again = first.assign(image_id="again" + first["image_id"])
    with pytest.raises(DataError, match=r"case 'f0-0' must be in one fold\. Received: in folds \[0, 2\]"):
        folds.pooled([first, second, again])
    other = second.rename(columns={"score_non-COVID": "score_Normal"}).assign(label="Normal")
    with pytest.raises(DataError, match=r"classes of fold 0, .*non-COVID.* were wanted.* in fold 1"):
        folds.pooled([first, other])
    with pytest.raises(DataError, match="at least one was wanted"):
        folds.pooled([])
    unknown = [fold.assign(case_id="") for fold in (first, second)]
    assert len(folds.pooled(unknown)) == 8
