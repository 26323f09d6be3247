"""The recipe is judged out of fold, within a source and where one was left out, against the first way."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from covidtf import manifest as manifests
from covidtf.audit import recipe
from covidtf.config import RecipeConfig
from covidtf.figures import recipe as figures
from covidtf.files import DataError
from covidtf.runs import Run
from covidtf.tables import recipe as readable

PATIENTS = 160


def images() -> pd.DataFrame:
    """One image each of 160 patients: source a has both labels, b nearly all without COVID-19."""
    rng = np.random.default_rng(0)
    covid = np.arange(PATIENTS) % 4 == 0
    source = np.where(covid | (np.arange(PATIENTS) % 8 == 1), "a", "b")
    rows = pd.DataFrame(
        {
            "path": [f"{i:03}.png" for i in range(PATIENTS)],
            "source": np.where(covid & (np.arange(PATIENTS) % 20 == 0), "b", source),
            "label": np.where(covid, "COVID-19", "non-COVID"),
            "patient_id": [f"p{i}" for i in range(PATIENTS)],
            "view": "PA",
            "split": ["train", "train", "val", "test"] * (PATIENTS // 4),
            "sha256": [f"{i:064x}" for i in range(PATIENTS)],
            "phash": [rng.bytes(32).hex() for _ in range(PATIENTS)],
        }
    )
    return manifests.make(rows, "made up")


def features(disease: float, look: float) -> np.ndarray:
    """Two numbers of use, one of the disease and one of the source, and noise."""
    table, rng = images(), np.random.default_rng(1)
    values = rng.normal(size=(PATIENTS, 8))
    values[:, 0] += disease * (table["label"] == "COVID-19")
    values[:, 1] += look * (table["source"] == "a")
    return values


def measured(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    return table[table["variant"] == variant].set_index("measure")


def test_a_score_of_the_source_falls_within_it_and_a_recipe_ends_that():
    """Where features tell the source alone, AUROC is high over all sources and chance within one."""
    variants = {"look": (features(0, 4), "label"), "disease": (features(2, 0), "label")}
    table = recipe.tried(images(), variants, draws=200)
    before, after = measured(table, "look"), measured(table, "disease")
    assert before.loc[recipe.ALL, "low"] > 0.6
    assert before.loc[recipe.WITHIN, "low"] < 0.5 < before.loc[recipe.WITHIN, "high"]
    assert before.loc[recipe.FALL, "low"] > 0
    assert after.loc[recipe.WITHIN, "low"] > 0.5 and after.loc[recipe.LEFT_OUT, "low"] > 0.5
    assert after.loc[recipe.FALL, "gain_high"] < 0 < after.loc[recipe.WITHIN, "gain_low"]
    assert before[["gain", "gain_low", "gain_high"]].isna().all(axis=None)
    fall = before.loc[recipe.ALL, "value"] - before.loc[recipe.WITHIN, "value"]
    assert before.loc[recipe.FALL, "value"] == pytest.approx(fall)


def test_balanced_sources_lower_the_fall():
    """With both, a probe whose sources count alike leans less on the source than one whose classes do."""
    ways = recipe.variants(["stored"], [features(1.5, 4)])
    assert [balance for _, balance in ways.values()] == ["label", "source"]
    table = recipe.tried(images(), ways, draws=200)
    fall = table[table["measure"] == recipe.FALL].set_index("variant")
    assert fall.loc["stored, sources balanced", "gain_high"] < 0
    assert list(readable(table))[:3] == ["Way", "Measure", "Images (patients)"]


def test_too_few_groups_for_the_folds_are_refused():
    """One fold without a label would have no AUROC."""
    table = images()
    few = table[(table["label"] != "COVID-19") | (table["path"] < "012.png")]
    with pytest.raises(DataError, match=r"5 groups of each label were wanted, one a fold\. Received: 3"):
        recipe.tried(few, {"x": (features(1, 0)[few.index], "label")}, draws=50)


def prepared(table: pd.DataFrame, crop: str = "center", grey: str = "stored") -> SimpleNamespace:
    return SimpleNamespace(manifest=table, crop=crop, grey=grey, folder=f"{crop}-{grey}")


def test_ways_are_named_and_their_shared_images_found():
    """Row i of each is the same image; one that a data set lacks is in none; another file is an error."""
    table = images()
    ways = [prepared(table), prepared(table.iloc[::-1][:-1], "lungs", "equalised")]
    assert [recipe.name(way) for way in ways] == ["as stored", "lungs, equalised"]
    shared, rows = recipe.shared(ways)
    assert shared["path"].tolist() == [f"{i:03}.png" for i in range(1, PATIENTS)]
    for way, own in zip(ways, rows, strict=True):
        assert way.manifest["image_id"].iloc[own].tolist() == shared["image_id"].tolist()
    with pytest.raises(
        DataError, match=r"lungs-stored: the files of center-stored were wanted\. Not so: 159"
    ):
        recipe.shared([ways[0], prepared(table.assign(sha256="0" * 64), "lungs")])


def run(shift: float, rows: slice = slice(None)) -> Run:
    """A network that scores disease as well as `shift` says."""
    table = images().assign(case_id="")
    table = table[table["split"] == "test"].assign(label="non-COVID")[rows]
    rng = np.random.default_rng(2)
    table.loc[table.index[::2], "label"] = "COVID-19"
    score = 1 / (1 + np.exp(-rng.normal(size=len(table)) - shift * (table["label"] == "COVID-19")))
    columns = ["image_id", "patient_id", "case_id", "source", "view", "finding", "split", "label"]
    scores = {"score_COVID-19": score, "score_non-COVID": 1 - score}
    return Run("r", "r", {"network": "ResNet18"}, {}, table[columns].assign(**scores))


def test_networks_are_compared_in_pairs():
    """A network that ranks better has a gain above 0; other test images are refused; no pair is no row."""
    table = recipe.networks([(run(0.0), run(4.0))], draws=200)
    after = table[table["variant"] == "after"].set_index("measure")
    assert set(table["network"]) == {"ResNet18"} and after.loc[recipe.ALL, "gain_low"] > 0
    with pytest.raises(DataError, match="after: the 40 images of 'before' were wanted"):
        recipe.networks([(run(0.0), run(0.0, slice(3, None)))])
    assert recipe.networks([]).empty


def test_unequal_numbers_of_runs_are_refused():
    """Each network is wanted without and with the recipe."""
    with pytest.raises(ValueError, match="equally many runs"):
        RecipeConfig(before="a b", after="c")


def test_the_figure_has_a_mark_for_each_number():
    """Three measures left, four right, where the first variant has none."""
    plt = pytest.importorskip("matplotlib.pyplot")
    table = recipe.tried(images(), recipe.variants(["stored"], [features(1, 1)]), draws=50)
    figure, axes = plt.subplots(1, 2, sharey=True, layout="constrained")
    figures.tried(axes, table)
    marks = [[len(one.lines[0].get_xdata()) for one in ax.containers] for ax in axes]
    assert marks == [[2, 2, 2], [1, 1, 1, 1]]
    plt.close(figure)
