"""Burned-in marks: found where letters are."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import roc_auc_score

from covidtf.audit import marks
from covidtf.phantom import planted

# Of 8 x 8 cells those at the edge, row by row: the whole first row, two of each other, the whole last row.
LOWER_LEFT, UPPER_RIGHT = 20, 7


def lettered(size, places):
    """A slope of grey with letters at parts of its width and height."""
    picture = Image.fromarray(np.linspace(60, 140, size * size).reshape(size, size).astype(np.uint8))
    for x, y in places:
        font = ImageFont.load_default(size * 0.06)
        ImageDraw.Draw(picture).text((x * size, y * size), "CV", fill=250, font=font, anchor="mm")
    return np.asarray(picture)[..., None]


@pytest.mark.parametrize("size", [96, 128, 224])
def test_letters_are_seen_in_their_cell_at_any_size(size):
    """The share of a cell that is mark is above 0 where letters are, and nowhere else."""
    images = np.stack([lettered(size, places) for places in ([], [(0.06, 0.94)], [(0.94, 0.06)])])
    found = marks.features(images)
    assert found.shape == (3, 28) and not found[0].any()
    assert np.flatnonzero(found[1]).tolist() == [LOWER_LEFT]
    assert np.flatnonzero(found[2]).tolist() == [UPPER_RIGHT]
    assert 0.02 < found[1].max() < 0.3


def test_share_is_counted_by_hand():
    """A line of one pixel across a cell of 16 px is a sixteenth; 29 grey values, or three px, are none."""
    images = np.full((4, 128, 128, 1), 100, np.uint8)
    images[0, 5, :16] = 130
    images[1, 5, :16] = 129
    images[2, 5:8, :16] = 255
    images[3, 60, 48:64] = 255  # in the middle, which is not looked at
    found = marks.features(images)
    assert found[0, 0] == 1 / 16 and found[0].sum() == 1 / 16
    assert not found[1:].any()


def test_channels_are_averaged():
    """Three equal channels are one; a mark in one of three is a third as bright."""
    one = np.full((1, 128, 128, 1), 100, np.uint8)
    one[0, 5, :16] = 140
    three = np.repeat(one, 3, axis=-1)
    np.testing.assert_array_equal(marks.features(one), marks.features(three))
    three[..., 1:] = 100
    assert not marks.features(three).any()


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 128, 128, 1)), np.zeros((2, 128, 128), np.uint8), np.zeros((2, 8, 8, 1), np.uint8)],
)
def test_other_images_are_refused(images):
    """Floats, no channels, or fewer pixels than cells need."""
    with pytest.raises(ValueError, match=r"uint8 of shape .* at least 16"):
        marks.features(images)


def test_planted_letters_are_read_and_clean_phantoms_are_not():
    """AUROC of marks alone: high with the planted marker, and by much less without."""
    clean = planted.draw(120, 5, 96)
    splits = np.where(np.arange(120) % 3 == 0, "test", "train")
    clean = planted.Set(clean.images, clean.masks, clean.manifest.assign(split=splits))
    found = {}
    for condition in ("clean", "burned-in marker"):
        one = planted.plant(clean, condition, 5)
        table = marks.scores(one.images, one.manifest)
        assert set(table["split"]) == {"test"} and len(table) == 40
        found[condition] = roc_auc_score(table["label"] == "COVID-19", table["score_COVID-19"])
    assert found["burned-in marker"] > 0.65
    assert found["burned-in marker"] - found["clean"] > 0.1
    cell = marks.features(one.images)[:, LOWER_LEFT]
    assert roc_auc_score(one.manifest["planted"], cell) > 0.75


def test_order_of_images_does_not_matter():
    """Scores belong to their image, however the set is sorted."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 32, 32, 1), np.uint8)
    table = pd.DataFrame({"image_id": [f"s/{i}.png" for i in range(30)]})
    table = table.assign(label=np.where(np.arange(30) % 2, "COVID-19", "non-COVID"), parent_id="", source="s")
    table = table.assign(case_id="", view="", finding="")
    table["patient_id"] = table["image_id"].str.replace("/", ":")
    table["split"] = np.where(np.arange(30) < 20, "train", "test")
    order = rng.permutation(30)
    first = marks.scores(images, table).set_index("image_id")["score_COVID-19"]
    other = marks.scores(images[order], table.iloc[order].reset_index(drop=True))
    other = other.set_index("image_id")["score_COVID-19"]
    np.testing.assert_allclose(other[first.index], first, atol=1e-6)
