"""Trivial baselines, scored like a network."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from covidtf import predictions
from covidtf.files import DataError
from covidtf.metrics import baselines, evaluation


def prepared(difference: float, n: int = 120, channels: int = 1) -> SimpleNamespace:
    """Noise images; those of COVID-19 are brighter by `difference` grey values."""
    generator = np.random.default_rng(2)
    label = np.where(np.arange(n) % 3 == 0, "COVID-19", "non-COVID")
    level = 100 + generator.normal(0, 8, n) + difference * (label == "COVID-19")
    images = generator.normal(level[:, None, None, None], 20, (n, 16, 16, channels))
    manifest = pd.DataFrame(
        {
            "image_id": [f"a/{index}" for index in range(n)],
            "patient_id": [f"a:{index}" for index in range(n)],
            "case_id": "",
            "source": "a",
            "view": "PA",
            "finding": "",
            "split": np.where(np.arange(n) % 4 < 2, "train", np.where(np.arange(n) % 4 == 2, "val", "test")),
            "label": label,
            "parent_id": "",
        }
    )
    return SimpleNamespace(images=np.clip(images, 0, 255).astype(np.uint8), manifest=manifest)


def test_grey_features_by_hand():
    """Half black and half white has mean 1/2 and standard deviation 1/2, in any number of channels."""
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[0, :2], images[1] = 255, 51
    manifest = pd.DataFrame({"image_id": ["x", "y"]})
    features = baselines.grey_features(SimpleNamespace(images=images, manifest=manifest))
    assert features.loc["x"].tolist() == pytest.approx([0.5, 0.5])
    assert features.loc["y"].tolist() == pytest.approx([0.2, 0.0])


def test_features_do_not_depend_on_the_chunks():
    """More images than fit in a chunk have the features that they have at once."""
    data = prepared(0.0)
    grey = data.images.astype(float).mean(axis=-1) / 255
    features = baselines.grey_features(data)
    assert features["mean"].to_numpy() == pytest.approx(grey.mean(axis=(1, 2)))
    assert features["std"].to_numpy() == pytest.approx(grey.std(axis=(1, 2)))


def test_baseline_finds_a_brightness_shortcut_and_nothing_else():
    """Brighter COVID-19 images are told apart perfectly; without a difference nothing is."""
    found, none = (
        evaluation.evaluate(baselines.mean_std_baseline(prepared(difference)), draws=200)["test"]["auroc"]
        for difference in (80.0, 0.0)
    )
    assert found["value"] == 1.0
    assert none["ci95"][0] < 0.5 < none["ci95"][1]


def test_baseline_is_a_predictions_table():
    """It has the rows of val and test in the manifest's order, and twice the same."""
    data = prepared(10.0)
    table = baselines.mean_std_baseline(data)
    expected = data.manifest.loc[data.manifest["split"] != "train", "image_id"].tolist()
    assert predictions.validate(table)["image_id"].tolist() == expected
    pd.testing.assert_frame_equal(table, baselines.mean_std_baseline(data))


def test_augmented_copies_do_not_count():
    """Copies of a training image, however odd, leave the baseline as it was."""
    data = prepared(10.0)
    train = data.manifest.query("split == 'train'")
    copies = train.assign(image_id=train["image_id"] + "~1", parent_id=train["image_id"])
    manifest = pd.concat([data.manifest, copies], ignore_index=True)
    images = np.concatenate([data.images, np.full((len(copies), 16, 16, 1), 255, np.uint8)])
    with_copies = baselines.mean_std_baseline(SimpleNamespace(images=images, manifest=manifest))
    pd.testing.assert_frame_equal(with_copies, baselines.mean_std_baseline(data))


def test_baseline_needs_features_labels_and_images_to_score():
    """Absent or infinite features, one label in train, and nothing to score are errors."""
    data = prepared(10.0)
    features = baselines.grey_features(data)
    with pytest.raises(DataError, match=r"finite numbers for every image were wanted\. Not so: 1, first a/3"):
        baselines.predict(features.drop(index="a/3"), data.manifest)
    with pytest.raises(DataError, match="Not so: 120, first a/0"):
        baselines.predict(features.assign(std=np.inf), data.manifest)
    with pytest.raises(DataError, match=r"labels \['non-COVID'\]"):
        baselines.predict(features, data.manifest[data.manifest["label"] == "non-COVID"])
    with pytest.raises(DataError, match="0 images in val and test"):
        baselines.predict(features, data.manifest[data.manifest["split"] == "train"])
