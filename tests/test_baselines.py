"""Trivial baselines, scored like a network."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from covidtf import predictions
from covidtf.figures import style
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
            "width": 512,
            "height": 384,
            "bits": 8,
            "mode": "L",
            "format": "PNG",
        }
    )
    return SimpleNamespace(images=np.clip(images, 0, 255).astype(np.uint8), manifest=manifest)


def of(images: np.ndarray) -> SimpleNamespace:
    """Images shape `(n, size, size)`, uint8, named by their place."""
    manifest = pd.DataFrame({"image_id": [str(index) for index in range(len(images))]})
    return SimpleNamespace(images=images[..., None], manifest=manifest)


def scores(slug: str, data: SimpleNamespace) -> pd.DataFrame:
    """Predictions of one baseline."""
    return baselines.predict(baselines.features(slug, data), data.manifest)


def test_mean_and_std_by_hand():
    """Half black and half white has mean 1/2 and standard deviation 1/2, in any number of channels."""
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[0, :8], images[1] = 255, 51
    manifest = pd.DataFrame({"image_id": ["x", "y"]})
    features = baselines.features("mean-std", SimpleNamespace(images=images, manifest=manifest))
    assert features.loc["x"].tolist() == pytest.approx([0.5, 0.5])
    assert features.loc["y"].tolist() == pytest.approx([0.2, 0.0])


def test_histogram_by_hand():
    """Bins of eight grey values, the lower one's edge in it; every grey value as numpy counts it."""
    images = np.zeros((2, 16, 16), np.uint8)
    images[0, :4], images[0, 4:8], images[0, 8] = 7, 8, 255
    images[1] = np.arange(256).reshape(16, 16)
    features = baselines.features("histogram", of(images))
    assert features.shape == (2, 32)
    assert features.loc["0"].iloc[[0, 1, 31]].tolist() == [11 / 16, 4 / 16, 1 / 16]
    assert features.loc["1"].tolist() == [1 / 32] * 32
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20)).astype(np.uint8)
    found = baselines.features("histogram", of(images)).to_numpy()
    for row, image in zip(found, images, strict=True):
        assert row * 400 == pytest.approx(np.histogram(image, np.arange(0, 257, 8))[0])


def test_thumbnail_has_the_means_of_equal_areas():
    """Of 32 px the means of 2 x 2; of a side that 16 does not divide, areas equal to a pixel."""
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32)).astype(np.uint8)
    found = baselines.features("thumbnail", of(images))
    wanted = images.reshape(2, 16, 2, 16, 2).mean(axis=(2, 4)) / 255
    assert found.to_numpy() == pytest.approx(wanted.reshape(2, 256))
    flat = baselines.features("thumbnail", of(np.full((1, 50, 50), 51, np.uint8)))
    assert flat.to_numpy() == pytest.approx(np.full((1, 256), 0.2))


def test_border_strip_sees_no_pixel_further_inside():
    """Whatever lies inside of the outer tenth changes nothing; each side and piece of it is seen."""
    images = np.random.default_rng(2).integers(0, 256, (1, 40, 40)).astype(np.uint8)
    inside, outside = images.copy(), images.copy()
    inside[:, 4:-4, 4:-4] = 0
    outside[:, 17, 3] = 255 - outside[:, 17, 3]
    plain, same, other = (
        baselines.features("border-strip", of(each)).to_numpy()[0] for each in (images, inside, outside)
    )
    assert (plain == same).all()
    # Left is the third of four sides; row 17 of 40 is in the fourth of eight pieces, by mean and std.
    assert np.flatnonzero(plain != other).tolist() == [32 + 3, 40 + 3]
    top = images[0, :4].reshape(4, 8, 5).astype(float) / 255
    assert plain[:8] == pytest.approx(top.mean(axis=(0, 2)))
    assert plain[8:16] == pytest.approx(top.std(axis=(0, 2)))


def test_file_properties_by_hand():
    """Numbers, one column per mode and format, and one per size that is not rare; no pixel is read."""
    manifest = pd.DataFrame({"image_id": [str(index) for index in range(40)], "bits": 8, "mode": "L"})
    manifest["width"], manifest["height"] = [512] * 38 + [600, 900], [256] * 38 + [300, 300]
    manifest["format"] = ["JPEG"] * 39 + ["PNG"]
    found = baselines.features("file-properties", SimpleNamespace(images=None, manifest=manifest))
    assert found.loc["0"].to_dict() == {
        "width": 512, "height": 256, "bits": 8, "aspect": 2, "mode_L": 1, "format_JPEG": 1, "format_PNG": 0,
        "size_512x256": 1,
    }  # fmt: skip
    assert found.loc["39", ["aspect", "format_PNG", "size_512x256"]].tolist() == [3, 1, 0]


@pytest.mark.parametrize("slug", ["mean-std", "histogram", "border-strip", "thumbnail"])
def test_features_do_not_depend_on_the_chunks(slug):
    """More images than fit in a chunk have the features that each has alone."""
    data = prepared(0.0, n=70, channels=3)
    features = baselines.features(slug, data)
    for index in (0, 31, 32, 69):
        alone = SimpleNamespace(images=data.images[[index]], manifest=data.manifest.iloc[[index]])
        assert baselines.features(slug, alone).to_numpy()[0] == pytest.approx(features.to_numpy()[index])


def test_an_unknown_baseline_is_named():
    """The known ones are said."""
    with pytest.raises(ValueError, match=r"`slug` must be one of \['mean-std', .* Received: 'mean'"):
        baselines.features("mean", prepared(0.0))


@pytest.mark.parametrize("slug", ["mean-std", "border-strip"])
def test_baseline_finds_a_brightness_shortcut_and_nothing_else(slug):
    """Brighter COVID-19 images are told apart perfectly; without a difference nothing is."""
    found, none = (
        evaluation.evaluate(scores(slug, prepared(difference)), draws=200)["test"]["auroc"]
        for difference in (80.0, 0.0)
    )
    assert found["value"] == 1.0
    assert none["ci95"][0] < 0.5 < none["ci95"][1]


def test_files_that_are_all_alike_give_a_valid_run_at_chance():
    """As of phantoms: every image has one score, and AUROC is 0.5."""
    table = scores("file-properties", prepared(80.0))
    assert set(table["score_COVID-19"]) == {table["score_COVID-19"].iloc[0]}
    assert table["score_COVID-19"].iloc[0] == pytest.approx(0.5)
    found = evaluation.evaluate(table, draws=200)["test"]["auroc"]
    assert found["value"] == 0.5 and found["ci95"][0] < 0.5 < found["ci95"][1]


def test_a_size_that_train_never_had_does_not_matter():
    """What does not vary in train has no weight, whatever comes later."""
    data = prepared(0.0)
    data.manifest.loc[data.manifest["split"] == "test", "width"] = 4000
    assert len(set(scores("file-properties", data)["score_COVID-19"])) == 1


def test_file_properties_find_a_scanner_that_goes_with_the_label():
    """Another format for COVID-19 is enough, without a pixel."""
    data = prepared(0.0)
    data.manifest.loc[data.manifest["label"] == "COVID-19", "format"] = "JPEG"
    assert evaluation.evaluate(scores("file-properties", data), draws=50)["test"]["auroc"]["value"] == 1.0


def test_the_penalty_is_chosen_by_patient():
    """Images of a patient stay together in the folds, so features that name patients cost most."""
    generator = np.random.default_rng(3)
    patient = np.repeat(np.arange(40), 5)
    names = generator.normal(size=(40, 40))[patient] + 0.01 * generator.normal(size=(200, 40))
    train = pd.DataFrame(
        {"label": np.where(patient % 2, "COVID-19", "non-COVID"), "patient_id": patient.astype(str)}
    )
    assert baselines._penalty(names, train) <= 1e-3
    # Were each image a patient, learning the patients by heart would pay.
    assert baselines._penalty(names, train.assign(patient_id=np.arange(200).astype(str))) == 1.0
    assert baselines._penalty(names[:, :24], train) == 1.0
    few = train.assign(patient_id=np.where(train["label"] == "COVID-19", "one", train["patient_id"]))
    assert baselines._penalty(names, few) == 0.01


def test_baseline_is_a_predictions_table():
    """It has the rows of val and test in the manifest's order, and twice the same."""
    data = prepared(10.0)
    table = scores("mean-std", data)
    expected = data.manifest.loc[data.manifest["split"] != "train", "image_id"].tolist()
    assert predictions.validate(table)["image_id"].tolist() == expected
    pd.testing.assert_frame_equal(table, scores("mean-std", data))


def test_augmented_copies_do_not_count():
    """Copies of a training image, however odd, leave the baseline as it was."""
    data = prepared(10.0)
    train = data.manifest.query("split == 'train'")
    copies = train.assign(image_id=train["image_id"] + "~1", parent_id=train["image_id"])
    manifest = pd.concat([data.manifest, copies], ignore_index=True)
    images = np.concatenate([data.images, np.full((len(copies), 16, 16, 1), 255, np.uint8)])
    with_copies = scores("mean-std", SimpleNamespace(images=images, manifest=manifest))
    pd.testing.assert_frame_equal(with_copies, scores("mean-std", data))


def test_baseline_needs_features_labels_and_images_to_score():
    """Absent or infinite features, one label in train, and nothing to score are errors."""
    data = prepared(10.0)
    features = baselines.features("mean-std", data)
    with pytest.raises(DataError, match=r"finite numbers for every image were wanted\. Not so: 1, first a/3"):
        baselines.predict(features.drop(index="a/3"), data.manifest)
    with pytest.raises(DataError, match="Not so: 120, first a/0"):
        baselines.predict(features.assign(std=np.inf), data.manifest)
    with pytest.raises(DataError, match=r"labels \['non-COVID'\]"):
        baselines.predict(features, data.manifest[data.manifest["label"] == "non-COVID"])
    with pytest.raises(DataError, match="0 images in val and test"):
        baselines.predict(features, data.manifest[data.manifest["split"] == "train"])


def test_baselines_are_grey_and_told_apart():
    """Each trivial baseline has its own shade, dashes and marker, and no colour."""
    looks = style.lines(list(baselines.BASELINES.values())).values()
    assert all(len(set(look["color"])) == 1 for look in looks)
    for part in ("color", "linestyle", "marker"):
        assert len({str(look[part]) for look in looks}) == len(baselines.BASELINES)
