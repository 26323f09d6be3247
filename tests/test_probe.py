"""The probe and the label shuffle: they learn what is there, and nothing where there is nothing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_training import TINY

from covidtf import manifest as manifests
from covidtf import metrics
from covidtf.audit import controls, probe, shuffle
from covidtf.files import DataError
from covidtf.training.networks import NETWORKS

LABELS = ("COVID-19", "non-COVID")


def make_manifest(patients, images=2, labels=LABELS):
    """Patients with some images each; labels in turn; 60 % train, 10 % val, 30 % test."""
    rows = []
    for patient in range(patients):
        split = "train" if patient % 10 < 6 else "val" if patient % 10 < 7 else "test"
        for image in range(images):
            row = {"path": f"{patient:03}-{image}.png", "source": "s", "patient_id": f"s:{patient}"}
            rows.append(row | {"label": labels[patient % len(labels)], "split": split, "view": "PA"})
    return manifests.make(rows, "test")


def make_features(manifest, shift, width=20, seed=0):
    """Normal features of which the first is larger by `shift` where the label is COVID-19."""
    values = np.random.default_rng(seed).normal(size=(len(manifest), width))
    values[:, 0] += shift * (manifest["label"] == LABELS[0])
    return values


def area(table, split="test"):
    """AUROC on a split."""
    return metrics.auroc(table[table["split"] == split], draws=200)["value"]


def test_the_probe_learns_what_can_be_told_and_only_that():
    """Labels 6 standard deviations apart are told without a fault; from noise AUROC is near 0.5."""
    manifest = make_manifest(300)
    table = probe.scores(make_features(manifest, 6), manifest)
    scored = manifest[manifest["split"] != "train"]
    assert list(table["image_id"]) == list(scored["image_id"])
    assert list(table["label"]) == list(scored["label"])
    assert area(table) == 1
    noise = [area(probe.scores(make_features(manifest, 0, seed=seed), manifest)) for seed in range(10)]
    # 180 images of test: the standard error of one AUROC is 0.043, of the mean of ten 0.014.
    assert abs(np.mean(noise) - 0.5) < 0.05


def test_another_question_takes_other_labels():
    """Sources instead of labels; rows of train made from other images are not learnt from."""
    manifest = make_manifest(60)
    sources = np.where(np.arange(len(manifest)) % 4 < 2, "one", "two")
    values = make_features(manifest, 0)
    values[:, 3] += 8 * (sources == "two")
    table = probe.scores(values, manifest, sources)
    assert list(table.filter(like="score_")) == ["score_one", "score_two"]
    test = table[table["split"] == "test"]
    assert metrics.auroc(test, "two", draws=100)["value"] == 1
    copies = manifest[manifest["split"] == "train"].copy()
    copies["parent_id"], copies["image_id"] = copies["image_id"], copies["image_id"] + "#1"
    more = pd.concat([manifest, copies], ignore_index=True)
    wrong = np.concatenate([values, -values[: len(copies)]])
    again = probe.scores(wrong, more, np.concatenate([sources, sources[: len(copies)]]))
    pd.testing.assert_frame_equal(again, table)


def test_weights_make_classes_and_sources_count_alike():
    """Of 5 images of a and 3 of b each class weighs 4; by source, each source of a class weighs the same."""
    labels, sources = np.array(list("aaaaabbb")), np.array(list("xxxxyxxx"))
    by_label = probe._weights(sources, labels, "label")
    np.testing.assert_allclose(by_label, [4 / 5] * 5 + [4 / 3] * 3)
    by_source = probe._weights(sources, labels, "source")
    np.testing.assert_allclose(by_source, [2 / 4] * 4 + [2] + [4 / 3] * 3)
    with pytest.raises(ValueError, match="`balance` must be one of"):
        probe._weights(sources, labels, "patient")


def test_the_probe_says_what_it_lacks():
    """One label in train, a label of test alone, features of other images or not finite."""
    manifest = make_manifest(20)
    values = make_features(manifest, 1)
    with pytest.raises(DataError, match="two labels in train"):
        probe.scores(values, manifest, ["a"] * len(manifest))
    labels = np.where(manifest["split"] == "test", "c", manifest["label"])
    with pytest.raises(DataError, match=r"train has no image of \['c'\]"):
        probe.scores(values, manifest, labels)
    with pytest.raises(ValueError, match=r"`features` must be of 40 images\. Received: 39"):
        probe.scores(values[1:], manifest)
    values[7, 3] = np.nan
    with pytest.raises(DataError, match="in row 7"):
        probe.scores(values, manifest)


@pytest.fixture
def tiny(monkeypatch):
    """A network that needs no pixels to speak of."""
    monkeypatch.setitem(NETWORKS, "Tiny", TINY)
    probe._backbone.cache_clear()
    return "Tiny"


def make_prepared(manifest, size=32):
    """Noise with lungs in it that are brighter where the label is COVID-19; one mask is empty."""
    images = np.random.default_rng(0).integers(60, 120, (len(manifest), size, size, 1)).astype(np.uint8)
    masks = np.zeros((len(manifest), size, size), bool)
    masks[:, 8:20, 6:12] = masks[:, 8:20, 16:22] = True
    bright = (manifest["label"] == LABELS[0]).to_numpy()[:, None, None]
    images[..., 0][masks & bright] += 100
    masks[-1] = False
    return SimpleNamespace(images=images, manifest=manifest), masks


def test_controls_find_where_the_label_is(tiny, tmp_path):
    """The label is in the lungs: they alone tell it, the rest and the border do not. Same images in all."""
    prepared, masks = make_prepared(make_manifest(100))
    found = probe.retrained(prepared, masks, tmp_path, network=tiny, weights="none")
    assert list(found) == list(controls.CONTROLS)
    areas = {name: area(table) for name, table in found.items()}
    assert areas["original"] == areas["lungs only"] == 1
    for name in ("lungs blacked out", "border only"):
        assert 0.25 < areas[name] < 0.75
    for table in found.values():
        assert list(table["image_id"]) == list(found["original"]["image_id"])
    scored = (prepared.manifest["split"] != "train").sum()
    assert len(found["original"]) == scored - 1


def test_features_are_kept_by_content(tiny, tmp_path, monkeypatch):
    """The same images are read, not computed; other ones are computed; a damaged file is named."""
    images = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 1)).astype(np.uint8)
    first = probe.features(images, tmp_path, tiny, "none")
    assert first.shape[0] == 40
    each = [probe.features(images[i : i + 1], tmp_path / "each", tiny, "none")[0] for i in (0, 39)]
    np.testing.assert_allclose(each, first[[0, 39]], rtol=1e-4, atol=1e-5)
    asked = []
    compute = probe._compute
    monkeypatch.setattr(probe, "_compute", lambda *args: asked.append(1) or compute(*args))
    np.testing.assert_array_equal(probe.features(images, tmp_path, tiny, "none"), first)
    assert asked == []
    images[5] += 1
    assert (probe.features(images, tmp_path, tiny, "none")[5] != first[5]).any()
    assert asked == [1]
    images[5] -= 1
    for file in tmp_path.glob("*.npy"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match="damaged file of features"):
        probe.features(images, tmp_path, tiny, "none")


def test_feature_maps_become_vectors_by_their_mean(tmp_path):
    """SqueezeNet with the weights that ship: the mean over positions of what the backbone gives."""
    from covidtf.training.networks import build, split_model
    from covidtf.weights import start

    images = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    model = build("SqueezeNet1_0", 2, channels=3, size=32)
    start(model, "tiny-imagenet", list(LABELS))
    maps = np.asarray(split_model(model)[0](images))
    found = probe.features(images, tmp_path)
    np.testing.assert_allclose(found, maps.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_permuted_labels_are_of_patients_and_of_both_kinds_alike():
    """All images of a patient have one label; as many patients of each; val and test keep theirs."""
    manifest = make_manifest(100, labels=(LABELS[0], LABELS[1], LABELS[1], "third"))
    labels = shuffle.permuted(manifest, seed=1)
    train = (manifest["split"] == "train").to_numpy()
    by_patient = pd.Series(labels[train]).groupby(manifest.loc[train, "patient_id"].to_numpy())
    assert (by_patient.min() == by_patient.max()).all()
    counts = by_patient.first().value_counts().to_dict()
    true = manifest[train].groupby("patient_id")["label"].first()
    positives = int((true == LABELS[0]).sum())
    assert counts == {LABELS[0]: positives, "other": positives, "": len(true) - 2 * positives}
    moved = by_patient.first()[true.index[true == LABELS[0]]]
    assert 0 < (moved == "other").sum() < positives
    assert list(labels[~train] == LABELS[0]) == list(manifest.loc[~train, "label"] == LABELS[0])
    assert (labels == shuffle.permuted(manifest, seed=1)).all()
    assert (labels != shuffle.permuted(manifest, seed=2)).any()
    with pytest.raises(DataError, match="Received: 0 and 60"):
        shuffle.permuted(manifest, 0, "absent")


def test_a_shuffle_forgets_labels_that_can_be_learnt():
    """Rare labels that the probe tells without a fault: after shuffles 0.5 is in the interval of the mean."""
    manifest = make_manifest(200, labels=(LABELS[0], *[LABELS[1]] * 3))
    values = make_features(manifest, 6)
    assert area(probe.scores(values, manifest)) == 1
    tables = [table[table["split"] == "test"] for table in shuffle.shuffled(values, manifest, 20)]
    mean, each = shuffle.auroc(tables, draws=200)
    low, high = mean["ci95"]
    assert low <= 0.5 <= high
    assert high - low < 0.25
    areas = [metric["value"] for metric in each]
    assert mean["value"] == pytest.approx(np.mean(areas))
    # Each shuffle is far off: its labels fall on the one feature that differs, to one side or the other.
    assert max(abs(value - 0.5) for value in areas) > 0.2


def test_interval_of_the_mean_over_shuffles():
    """Areas 0.4, 0.5, 0.6, 0.5: mean 0.5, s 0.0816, half width 3.182 s / 2."""
    found = shuffle._interval(np.array([0.4, 0.5, 0.6, 0.5]))
    assert found["spread"] == pytest.approx(0.081650, abs=1e-6)
    assert found["ci95"] == pytest.approx([0.5 - 0.129923, 0.5 + 0.129923], abs=1e-4)
    assert shuffle._interval(np.array([0.4]))["ci95"] is None
    with pytest.raises(DataError, match="Received: none"):
        shuffle.auroc([])
