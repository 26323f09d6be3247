"""Subgroups: who is in which, and what is said of those that are too small."""

import makers
import numpy as np
import pandas as pd
import pytest

from covidtf import manifest as manifests
from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import thresholds
from covidtf.metrics.subgroups import METRICS, subgroups


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """48 images of 48 patients, a third COVID-19; two views, three other findings, one of them rare."""
    generator = np.random.default_rng(0)
    positive = np.arange(48) % 3 == 0
    finding = np.where(np.arange(48) % 3 == 1, "No Finding", "Pneumonia|Edema").astype(object)
    finding[positive], finding[[1, 2]] = "COVID-19", ["Rare", ""]
    return makers.predictions(
        np.clip(generator.normal(0.4 + 0.2 * positive, 0.2), 0, 1),
        positive,
        view=np.where(np.arange(48) < 30, "PA", "UNKNOWN"),
        source=np.where(np.arange(48) % 3 == 1, "b", "a"),
        finding=finding,
    )


@pytest.fixture(scope="module")
def manifest(table) -> pd.DataFrame:
    """In another order, with a row more: sex unknown of 8, ages at the edges of the bands."""
    ages = [0, 19.9, 20, 39, 40, 60, 79, 80, 101, np.nan, *[50] * 38]
    rows = table[["image_id", "patient_id", "label", "source"]].assign(
        path=table["image_id"] + ".png", view="PA", sex=["F", "M"] * 20 + [""] * 8, age=ages
    )
    more = rows.iloc[:1].assign(image_id="more", path="more.png")
    return manifests.make(pd.concat([more, rows.iloc[::-1]]), "test")


@pytest.fixture(scope="module")
def found(table, manifest) -> pd.DataFrame:
    return subgroups(table, manifest, 0.5, draws=200)


def counts(found: pd.DataFrame, by: str) -> dict[str, int]:
    return found[found["by"] == by].set_index("group")["n"].to_dict()


def test_every_image_is_in_one_group_of_each_kind(found):
    """Ages belong to the band that their lower edge opens, and what is unknown is a group, the last."""
    assert counts(found, "all") == {"all": 48}
    assert counts(found, "view") == {"PA": 30, "unknown": 18}
    assert counts(found, "sex") == {"F": 20, "M": 20, "unknown": 8}
    ages = {"0-19": 2, "20-39": 2, "40-59": 39, "60-79": 2, "80+": 2, "unknown": 1}
    assert counts(found, "age") == ages
    assert list(counts(found, "age")) == list(ages)
    assert counts(found, "source") == {"a": 32, "b": 16}


def test_findings_are_set_against_all_positives(found):
    """Each group holds the 16 positives; an image of two findings is in both groups."""
    expected = {"Edema": 15, "No Finding": 15, "Pneumonia": 15, "Rare": 1, "unknown": 1}
    assert counts(found, "finding") == {name: 16 + n for name, n in expected.items()}
    assert (found.loc[found["by"] == "finding", "positives"] == 16).all()


def test_numbers_are_those_of_the_rows_alone(found, table):
    """A group's metrics are what `metrics` and `thresholds` give for its rows."""
    rows = table[table["view"] == "PA"]
    row = found[(found["by"] == "view") & (found["group"] == "PA")].iloc[0]
    alone = thresholds.at_threshold(rows, 0.5, draws=200) | {"auroc": metrics.auroc(rows, draws=200)}
    for name in METRICS:
        assert row[name] == alone[name]["value"]
        assert [row[f"{name}_low"], row[f"{name}_high"]] == alone[name]["ci95"]
    assert row["note"] == ""
    assert (row["patients"], row["positive_patients"], row["other_patients"]) == (30, 10, 20)


def test_small_groups_stay_and_say_so(found):
    """One class only, too few patients for an interval, and few patients each have a note."""
    notes = found.set_index(["by", "group"])["note"]
    assert "auroc: cannot be told: no image is COVID-19" in notes["source", "b"]
    assert "auroc: no interval: 1 patients" in notes["finding", "Rare"]
    assert notes["finding", "Rare"].endswith("few patients: 1 other")
    assert notes["sex", "unknown"].startswith("auroc: no interval: 2 patients")
    assert notes["all", "all"] == ""
    assert found.set_index("group").loc["b", ["auroc", "sensitivity", "auroc_low"]].isna().all()


def test_without_a_manifest_or_its_columns_sex_and_age_are_unknown(table, manifest):
    """They are stated as unknown with all images, not dropped."""
    for given in (None, manifest.drop(columns=["sex", "age"])):
        bare = subgroups(table, given, 0.5, draws=50)
        assert counts(bare, "sex") == counts(bare, "age") == {"unknown": 48}


def test_images_that_the_manifest_lacks_are_an_error(table, manifest):
    """A manifest of other data would make everything unknown without a word."""
    with pytest.raises(DataError, match=r"Received: none for 1 of 48, such as 'a/5'"):
        subgroups(table, manifest[manifest["image_id"] != "a/5"], 0.5, draws=50)
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\]"):
        subgroups(table, manifest, 2.0, draws=50)
