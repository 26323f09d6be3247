"""Phantoms with a planted shortcut: what is changed, whose images, and that nothing else is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from covidtf import duplicates, manifest
from covidtf.phantom import planted


@pytest.fixture(scope="module")
def clean() -> planted.Set:
    """Forty phantoms, half of them test."""
    drawn = planted.draw(40, seed=3, size=64)
    return replace(drawn, manifest=drawn.manifest.assign(split=["test", "train"] * 20))


def changed(one: planted.Set, other: planted.Set) -> np.ndarray:
    """Which images differ."""
    return (one.images != other.images).any(axis=(1, 2, 3))


def test_half_of_the_patients_have_covid_and_none_is_like_another(clean):
    """Labels follow the findings, the manifest is valid, masks hold lungs, and no two are near duplicates."""
    manifest.validate(clean.manifest, "phantoms")
    table = clean.manifest
    assert (table["label"] == "COVID-19").sum() == 20
    assert ((table["label"] == "COVID-19") == (table["finding"] == "COVID-19")).all()
    assert (table["finding"] == "No Finding").sum() == 10 and table["finding"].nunique() == 8
    assert table["patient_id"].nunique() == 40
    shares = clean.masks.mean(axis=(1, 2))
    assert shares.min() > 0.1 and shares.max() < 0.5
    assert clean.images.shape == (40, 64, 64, 1) and clean.images.dtype == np.uint8
    assert duplicates.duplicates(table).empty


def test_the_same_seed_gives_the_same_phantoms_whoever_draws(clean):
    """Fewer patients and several processes give the first of them; another seed gives others."""
    again = planted.draw(30, seed=3, size=64, workers=2)
    assert np.array_equal(again.images, clean.images[:30])
    assert not np.array_equal(planted.draw(2, seed=4, size=64).images, clean.images[:2])


def test_nothing_but_the_lungs_goes_with_the_finding():
    """The same patient with and without COVID-19 has the same view, scanner style, sex and age."""
    same = ["view", "style", "sex", "age", "patient_id"]
    for patient in range(4):
        _, _, ill = planted._draw_patient(0, patient, "COVID-19", 64)
        _, _, healthy = planted._draw_patient(0, patient, "No Finding", 64)
        assert [ill[name] for name in same] == [healthy[name] for name in same]
        assert (ill["label"], healthy["label"]) == ("COVID-19", "non-COVID")


@pytest.mark.parametrize("condition", ["scanner style", "burned-in marker", "border", "histogram"])
def test_a_shortcut_changes_the_images_it_says_and_no_other(clean, condition):
    """`planted` names the changed images; masks, rows and splits stay, and hashes follow the pixels."""
    one = planted.plant(clean, condition, seed=1)
    assert np.array_equal(changed(one, clean), one.manifest["planted"])
    assert np.array_equal(one.masks, clean.masks)
    same = ["image_id", "patient_id", "label", "finding", "split", "style"]
    pd.testing.assert_frame_equal(one.manifest[same], clean.manifest[same])
    assert np.array_equal(one.manifest["sha256"] != clean.manifest["sha256"], one.manifest["planted"])


def test_strength_is_the_share_of_each_class(clean):
    """At 1 and 0 it is the class itself, at 0 and 0 nobody; a weaker one is in a part of the same images."""
    positive = (clean.manifest["label"] == "COVID-19").to_numpy()
    whole = planted.plant(clean, "histogram", 1, (1.0, 0.0)).manifest["planted"]
    weak = planted.plant(clean, "histogram", 1, (0.5, 0.0)).manifest["planted"]
    none = planted.plant(clean, "histogram", 1, (0.0, 0.0))
    assert np.array_equal(whole, positive)
    assert 0 < weak.sum() < 20 and (whole | ~weak).all()
    assert np.array_equal(none.images, clean.images)


def test_where_each_shortcut_is_in_the_image(clean):
    """A marker in the lower left corner, a border left and right in black, a histogram that is flat."""
    everywhere = {"strength": (1.0, 1.0), "seed": 1}
    marked = planted.plant(clean, "burned-in marker", **everywhere).images != clean.images
    rows, columns = np.nonzero(marked.any(axis=(0, 3)))
    assert rows.min() >= 0.85 * 64 and columns.max() <= 0.15 * 64 and marked.any(axis=(1, 2, 3)).all()
    edged = planted.plant(clean, "border", **everywhere).images
    assert (edged[:, :, :3] == 0).all() and (edged[:, :, -3:] == 0).all()
    assert np.array_equal(edged[:, :, 6:-6], clean.images[:, :, 6:-6])
    flat = planted.plant(clean, "histogram", **everywhere).images.reshape(40, -1)
    # Black stays black, so that a collimator's border makes a flat histogram less so.
    assert np.abs(np.median(flat, axis=1) - 127.5).max() < 25


def test_duplicates_are_copies_of_test_in_train_that_only_their_pixels_give_away(clean):
    """A tenth of test, two of 20: new patients in train, no equal file, and all found as near duplicates."""
    one = planted.plant(clean, "duplicate patients", seed=1)
    added = one.manifest.iloc[40:]
    manifest.validate(one.manifest, "phantoms")
    assert len(added) == 2 and (added["split"] == "train").all() and added["planted"].all()
    assert one.manifest["patient_id"].nunique() == 42
    assert np.array_equal(one.images[:40], clean.images) and len(one.masks) == 42
    pairs = duplicates.duplicates(one.manifest)
    assert set(pairs["kind"]) == {"near"} and len(pairs) == 2
    assert set(pairs["image_id_b"]) == set(added["image_id"])
    split = one.manifest.set_index("image_id")["split"]
    assert (split[pairs["image_id_a"]] == "test").all()


def test_what_cannot_be_planted_is_refused(clean):
    """An unknown condition, no probability, no test to copy from; numbers too small."""
    with pytest.raises(ValueError, match="`condition` must be one of"):
        planted.plant(clean, "watermark", 0)
    with pytest.raises(ValueError, match="`strength` must be two probabilities"):
        planted.plant(clean, "border", 0, (1.2, 0.0))
    train = replace(clean, manifest=clean.manifest.assign(split="train"))
    with pytest.raises(ValueError, match="images in test"):
        planted.plant(train, "duplicate patients", 0)
    with pytest.raises(ValueError, match="`size` must be at least 64"):
        planted.draw(2, 0, size=32)
