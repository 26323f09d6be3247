"""A finished run asked about changed images: its own scores again, and what changes cost."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_training import DEEP, TINY, deep_settings, prepare, settings

from covidtf import metrics, predictions
from covidtf.audit import controls, robustness, scorer
from covidtf.files import DataError
from covidtf.training import train
from covidtf.training.networks import NETWORKS

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 1)).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(20) * 6, np.arange(20) * 6).astype(np.uint8)[None, :, :, None]


@pytest.fixture(scope="module", autouse=True)
def known():
    """Make Tiny and Deep networks as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "Tiny", TINY)
        patch.setitem(NETWORKS, "Deep", DEEP)
        yield


def looked(prepared, name):
    """A prepared data set as training and scoring see it, with the columns that auditing reads."""
    return SimpleNamespace(**vars(prepared) | {"grey": "stored", "name": name})


@pytest.fixture(scope="module", params=["Tiny", "Deep"])
def run(request, tmp_path_factory):
    """Prepared images, folder and predictions of a run with one head, and of one with auxiliary heads."""
    prepared, folder = looked(prepare(), request.param), tmp_path_factory.mktemp(request.param)
    train((settings if request.param == "Tiny" else deep_settings)(), prepared, folder)
    return prepared, folder, predictions.read(folder / "predictions.csv")


def make_masks(prepared):
    """Two lungs in each image but the last of test."""
    masks = np.zeros(prepared.images.shape[:3], bool)
    masks[:, 8:20, 6:12] = masks[:, 8:20, 18:24] = True
    masks[np.flatnonzero(prepared.manifest["split"] == "test")[-1]] = False
    return masks


def test_a_run_as_a_function_gives_the_scores_of_the_run(run):
    """All images that the run scored, in batches with a smaller last one; and none at all."""
    prepared, folder, table = run
    score = scorer.RunScorer(folder, batch_size=4)
    assert score.trained.network == prepared.name
    rows = pd.Index(prepared.manifest["image_id"]).get_indexer(table["image_id"])
    wanted = table[["score_COVID-19", "score_non-COVID"]]
    np.testing.assert_allclose(score(prepared.images[rows]), wanted, rtol=0, atol=1e-5)
    assert score(prepared.images[:0]).shape == (0, 2)


def test_the_same_images_are_asked_about_in_every_control(run):
    """Test without the image whose mask is empty; the original is the run's own; a control is its images'."""
    prepared, folder, table = run
    score, masks = scorer.RunScorer(folder), make_masks(prepared)
    found = scorer.tested_only(score, prepared, masks, table)
    assert list(found) == list(controls.CONTROLS)
    own = table[table["split"] == "test"].iloc[:-1].reset_index(drop=True)
    for changed in found.values():
        assert list(changed["image_id"]) == list(own["image_id"])
        predictions.validate(changed)
    columns = ["score_COVID-19", "score_non-COVID"]
    np.testing.assert_allclose(found["original"][columns], own[columns], rtol=0, atol=1e-5)
    rows = pd.Index(prepared.manifest["image_id"]).get_indexer(own["image_id"])
    only = controls.apply("lungs only", prepared.images[rows], masks[rows])
    np.testing.assert_allclose(found["lungs only"][columns], score(only), rtol=0, atol=1e-6)
    assert np.abs(found["lungs only"][columns] - own[columns]).to_numpy().max() > 1e-3


def test_without_test_val_is_judged(run):
    """Predictions of val alone: val; its images are found wherever the manifest has them."""
    prepared, _, table = run
    val = table[table["split"] == "val"]
    rows, places = scorer.judged(val, prepared.manifest.iloc[::-1].reset_index(drop=True))
    assert set(rows["split"]) == {"val"}
    assert list(prepared.manifest["image_id"].iloc[::-1].iloc[places]) == list(val["image_id"])
    with pytest.raises(DataError, match="Not in it: 6, first"):
        scorer.judged(val, prepared.manifest[prepared.manifest["split"] != "val"])


def test_other_images_are_found_out(run):
    """Images that are not those of the run do not get its scores, which is an error that names the run."""
    prepared, folder, table = run
    other = SimpleNamespace(images=255 - prepared.images, manifest=prepared.manifest)
    with pytest.raises(DataError, match=f"{folder}: scores of unchanged images must be those"):
        scorer.tested_only(scorer.RunScorer(folder), other, make_masks(prepared), table)
    with pytest.raises(DataError, match="must be those of predictions"):
        robustness.losses(scorer.RunScorer(folder), other, table)
    none = np.zeros(prepared.images.shape[:3], bool)
    with pytest.raises(DataError, match="Received: none in 6"):
        scorer.tested_only(scorer.RunScorer(folder), prepared, none, table)


def test_no_change_loses_nothing(run, monkeypatch):
    """The same images: AUROC of the run, and a loss of 0 in every draw; inverted ones lose."""
    prepared, folder, table = run
    monkeypatch.setitem(robustness.CHANGES, "none", lambda image: image)
    monkeypatch.setitem(robustness.CHANGES, "inverted", lambda image: 255 - image)
    score, changes = scorer.RunScorer(folder), ["none", "inverted"]
    found = robustness.losses(score, prepared, table, changes=changes, draws=100)
    own = metrics.auroc(table[table["split"] == "test"], draws=100)
    assert found["none"]["auroc"]["value"] == pytest.approx(own["value"])
    assert (found["none"]["loss"]["value"], found["none"]["loss"]["ci95"]) == (0, [0, 0])
    loss = found["inverted"]["loss"]
    assert loss["value"] == pytest.approx(own["value"] - found["inverted"]["auroc"]["value"])


def make_predictions(scores, labels):
    """Predictions of test, one patient per image."""
    names = [f"i{i}" for i in range(len(scores))]
    empty = {column: "" for column in ("case_id", "view", "finding")}
    table = {"image_id": names, "patient_id": names, **empty, "source": "s", "split": "test", "label": labels}
    scores = np.asarray(scores, float)
    return pd.DataFrame(table | {"score_COVID-19": scores, "score_non-COVID": 1 - scores})


def test_the_fall_is_the_difference_of_the_areas_in_the_same_draws():
    """AUROC 1 to 0.75 by hand; order of rows does not matter; the interval is that of paired draws."""
    labels = ["COVID-19"] * 4 + ["non-COVID"] * 4
    before = make_predictions([0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1], labels)
    # One positive below all negatives.
    after = make_predictions([0.9, 0.8, 0.7, 0.05, 0.4, 0.3, 0.2, 0.1], labels)
    found = robustness.fall(before, after.iloc[::-1], draws=500, seed=3)
    assert (found["auroc"]["value"], found["loss"]["value"]) == (0.75, 0.25)
    found = found["loss"]
    draws = [metrics.auroc_draws(table, draws=500, seed=3)[1] for table in (before, after)]
    assert found["ci95"] == pytest.approx(list(np.nanpercentile(draws[0] - draws[1], (2.5, 97.5))))
    assert found["ci95"][0] == 0
    few = [table.iloc[[0, 3, 4, 5, 6, 7]] for table in (before, after)]
    untold = robustness.fall(*few, draws=500)["loss"]
    assert untold["ci95"] is None
    assert "no interval: too few patients" in untold["method"]
    with pytest.raises(DataError, match="the 8 images of 'before'"):
        robustness.fall(before, after.iloc[1:])


@pytest.mark.parametrize("name", robustness.CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_changes_keep_shape_and_picture(name, channels):
    """uint8 of the same shape; a smooth picture changes, by little at most places."""
    images = np.repeat(SMOOTH, channels, axis=3)
    changed = robustness.change(name, images)
    assert (changed.dtype, changed.shape) == (np.uint8, images.shape)
    difference = np.abs(changed.astype(int) - images)
    assert 0 < difference.mean() < 20


def test_changes_by_hand():
    """Gamma by its formula; a rotation by its own inverse; a crop enlarges; half size averages."""
    grey = np.array([0, 64, 128, 255], np.uint8).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(robustness.change("gamma 0.8", grey).ravel(), [0, 84, 147, 255])
    np.testing.assert_array_equal(robustness.change("gamma 1.25", grey).ravel(), [0, 45, 108, 255])
    left, right = (robustness.change(f"rotated by {d} degrees", SMOOTH)[0, :, :, 0] for d in (5, -5))
    # The picture is its own transpose, which turns a rotation around.
    np.testing.assert_allclose(left.T.astype(int), right, atol=1)
    # Distances from the middle (9.5) grow: what is at the edge now was 5 % of 9.5 px further in.
    crop = robustness.change("crop of 95 %", SMOOTH)[0, :, :, 0]
    assert int(crop[9, 0]) - int(SMOOTH[0, 9, 0, 0]) == pytest.approx(6 * 0.475, abs=1.01)
    stripes = np.tile(np.array([0, 200], np.uint8), (20, 10))[None, :, :, None]
    assert np.ptp(robustness.change("half size", stripes)[0, :, 4:16].astype(int)) <= 60


def test_stronger_compression_changes_more():
    """Noise loses more at each lower quality."""
    errors = []
    for quality in (75, 50, 25):
        changed = robustness.change(f"JPEG quality {quality}", IMAGES)
        errors.append(np.abs(changed.astype(int) - IMAGES).mean())
    assert errors[0] < errors[1] < errors[2]


def test_changes_that_are_unknown_are_refused():
    """A name that is none, images that are no uint8."""
    with pytest.raises(ValueError, match="`name` must be one of"):
        robustness.change("sharper", IMAGES)
    with pytest.raises(ValueError, match="`images` must be uint8"):
        robustness.change("half size", IMAGES / 255)
