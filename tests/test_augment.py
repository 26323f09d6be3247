"""Augmentation is Augmentor's own, adds the stated number of train images, and repeats bit for bit."""

import random
from dataclasses import replace

import Augmentor
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from covidtf import manifest, splits
from covidtf.files import DataError, read_json
from covidtf.images import augment as module
from covidtf.images import store
from covidtf.images.augment import augment, transform
from covidtf.images.prepare import load, prepare

SIZE = 48


def picture(number):
    """Smooth made-up grey picture without symmetry, so that every operation changes it."""
    coarse = np.random.default_rng(number).integers(0, 255, (6, 6), np.uint8)
    return Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def make(folder, channels=1):
    """Prepared data set of six pictures: in train three of COVID-19, one of non-COVID; one val, one test."""
    rows = []
    for number in range(6):
        (folder / "in").mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / "in" / f"{number}.png")
        label = "non-COVID" if number == 3 else "COVID-19"
        split = {4: "val", 5: "test"}.get(number, "train")
        row = {"path": f"{number}.png", "label": label, "patient_id": f"phantom:{number}", "split": split}
        rows.append(row | {"source": "phantom", "finding": "", "case_id": "", "view": "PA"})
    table = manifest.make(rows, "rows")
    return prepare(table, {"phantom": folder / "in"}, folder / "prepared", SIZE, channels=channels)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepared data set that tests only read."""
    return make(tmp_path_factory.mktemp("augment"))


def contents(folder):
    """Bytes of each file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_augment_adds_rows_behind_the_originals(prepared, tmp_path):
    """3 train images become 15 by factor 5; all six rows stay first and untouched, in val and test too."""
    result = augment(prepared, tmp_path / "a", "released", factor=5)
    assert len(result.images) == len(result.manifest) == 6 + 3 * 4
    assert np.array_equal(result.images[:6], prepared.images)
    pd.testing.assert_frame_equal(result.manifest[:6], prepared.manifest)
    train = result.manifest[(result.manifest["split"] == "train") & (result.manifest["label"] == "COVID-19")]
    assert len(train) == 15
    assert result.crop == prepared.crop


def test_augmented_rows_are_tied_to_their_originals(prepared, tmp_path):
    """Each new row has its original's patient, its own id, path, sha256 and hash, and is in train."""
    table = augment(prepared, tmp_path / "a", factor=3).manifest
    new = table[6:]
    assert new["image_id"].tolist() == [f"phantom/{i}.png#aug{k}" for i in range(3) for k in (1, 2)]
    assert new["parent_id"].tolist() == [f"phantom/{i}.png" for i in range(3) for _ in (1, 2)]
    assert new["path"].tolist() == [f"{i}.png#aug{k}" for i in range(3) for k in (1, 2)]
    assert new["patient_id"].tolist() == [f"phantom:{i}" for i in range(3) for _ in (1, 2)]
    assert set(new["split"]) == {"train"}
    assert new["sha256"].is_unique
    assert not new["sha256"].isin(table["sha256"][:6]).any()
    assert splits.duplicates(table).empty


@pytest.mark.parametrize("recipe", ["released", "paper"])
def test_transform_is_what_augmentor_writes(prepared, tmp_path, recipe):
    """With the same seed, Augmentor's own pipeline from file to file gives the same pixels, ten times."""
    original = prepared.images[0]
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(original[..., 0]).save(source / "0.png")
    for key in map(str, range(10)):
        pipeline = Augmentor.Pipeline(source, tmp_path / key)
        for name, parameters in module.RECIPES[recipe]:
            getattr(pipeline, name)(**parameters)
        random.seed(key)
        pipeline.process()
        (written,) = (tmp_path / key).iterdir()
        assert np.array_equal(np.asarray(Image.open(written)), transform(original, recipe, key)[..., 0])


def test_recipes_are_the_stated_ones():
    """The released recipe has the published parameters, the other one the paper's three operations."""
    assert module.RECIPES["released"] == (
        ("rotate", {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}),
        ("zoom", {"probability": 0.5, "min_factor": 1.1, "max_factor": 1.5}),
    )
    assert [name for name, _ in module.RECIPES["paper"]] == ["flip_left_right", "rotate", "random_distortion"]


def test_processes_do_not_change_a_byte(prepared, tmp_path):
    """Two processes write the same files as one."""
    for workers in (1, 2):
        augment(prepared, tmp_path / str(workers), factor=4, seed=3, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_images_do_not_depend_on_other_rows(prepared, tmp_path):
    """Taking the first original out of train leaves the new images of the others as they were."""
    fewer = prepared.manifest.assign(split=["", *prepared.manifest["split"][1:]])
    some = augment(replace(prepared, manifest=fewer), tmp_path / "some", factor=3)
    every = augment(prepared, tmp_path / "every", factor=3)
    assert np.array_equal(some.images[6:], every.images[8:])


def test_seed_and_number_change_the_image(prepared, tmp_path):
    """Two seeds give two sets, and the images of one original differ from each other."""
    first, second = (
        augment(prepared, tmp_path / str(seed), factor=4, seed=seed).images[6:] for seed in (0, 1)
    )
    assert not np.array_equal(first, second)
    assert len({image.tobytes() for image in first}) == len(first)


def test_global_random_state_is_neither_used_nor_changed(prepared):
    """Whatever the state of `random` before, the image is the same and the state is as it was."""
    random.seed(1)
    state = random.getstate()
    first = transform(prepared.images[0], "released", "key")
    assert random.getstate() == state
    random.seed(2)
    assert np.array_equal(transform(prepared.images[0], "released", "key"), first)


def test_colour_images_are_turned_like_grey_ones(tmp_path, prepared):
    """Three equal channels come out as three times the grey result."""
    colour = make(tmp_path, channels=3).images[0]
    assert colour.shape == (SIZE, SIZE, 3)
    grey = transform(prepared.images[0], "paper", "key")
    assert np.array_equal(transform(colour, "paper", "key"), np.repeat(grey, 3, axis=2))


def test_none_copies(prepared, tmp_path):
    """Without a recipe the result is the data set as it was, whatever the factor and the label."""
    result = augment(prepared, tmp_path / "a", "none", label="absent")
    assert np.array_equal(result.images, prepared.images)
    pd.testing.assert_frame_equal(result.manifest, prepared.manifest)


def test_a_finished_call_is_only_loaded(prepared, tmp_path, monkeypatch):
    """A second call with equal inputs computes nothing; one with another seed or split replaces the first."""
    calls = []
    real = module.transform
    monkeypatch.setattr(module, "transform", lambda *arguments: calls.append(1) or real(*arguments))
    first = np.array(augment(prepared, tmp_path / "a", factor=2).images)
    assert np.array_equal(augment(prepared, tmp_path / "a", factor=2).images, first)
    assert len(calls) == 3
    augment(prepared, tmp_path / "a", factor=2, seed=1)
    moved = replace(prepared, manifest=prepared.manifest.replace({"split": {"val": "train"}}))
    assert len(augment(moved, tmp_path / "a", factor=2, seed=1).images) == 10
    assert len(calls) == 3 + 3 + 4


@pytest.mark.parametrize("limit", [2, 6, 11])
def test_an_interrupted_call_goes_on(prepared, tmp_path, monkeypatch, limit):
    """Stopped while copying or augmenting, nothing is there to load; repeated, it ends as in one go."""
    augment(prepared, tmp_path / "whole", factor=5)
    monkeypatch.setattr(store, "CHECKPOINT", 1)
    add = store.Store.add
    added = []

    def fail_at_limit(rows, pixels, record):
        if len(added) == limit:
            raise KeyboardInterrupt
        added.append(pixels)
        add(rows, pixels, record)

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "add", fail_at_limit)
        with pytest.raises(KeyboardInterrupt):
            augment(prepared, tmp_path / "a", factor=5)
        with pytest.raises(DataError, match="not a finished"):
            load(tmp_path / "a")
    monkeypatch.setattr(store.Store, "add", lambda *arguments: added.append(arguments) or add(*arguments))
    augment(prepared, tmp_path / "a", factor=5)
    assert len(added) <= 6 + 12 + 1  # the last row may not have reached the disk
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def test_images_of_val_and_test_are_never_augmented(prepared, tmp_path):
    """A label that is only in val and test is refused, with the counts; nothing is written."""
    table = prepared.manifest.replace({"split": {"train": "test"}})
    with pytest.raises(
        DataError, match=r"no image of 'COVID-19' is in it\. Received: .*'test', 'COVID-19'\): 4"
    ):
        augment(replace(prepared, manifest=table), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_augmented_images_are_not_augmented_again(prepared, tmp_path, capsys):
    """A label that has copies in train stays as it is, which is said and recorded; another is enlarged."""
    once = augment(prepared, tmp_path / "a", factor=2)
    assert capsys.readouterr().err == ""
    again = augment(once, tmp_path / "b", "paper", factor=5)
    assert "train holds 3 augmented images of COVID-19 already; none is added" in capsys.readouterr().err
    assert np.array_equal(again.images, once.images)
    pd.testing.assert_frame_equal(again.manifest, once.manifest)
    settings = [read_json(result.folder / "settings.json") for result in (once, again)]
    assert [(s["recipe"], s["augmented_before"]) for s in settings] == [("released", 0), ("none", 3)]
    assert settings[1]["operations"] == []
    assert len(augment(once, tmp_path / "c", factor=2, label="non-COVID").images) == 6 + 3 + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "mixup"}, r"`recipe` must be one of \('none', 'released', 'paper'\)\. Received: 'mixup'"),
        ({"factor": 0}, "`factor` must be an integer of at least 1. Received: 0"),
        ({"factor": 2.5}, "`factor` must be an integer of at least 1. Received: 2.5"),
        ({"workers": 0}, "`workers` must be at least 1, or None. Received: 0"),
    ],
)
def test_augment_refuses_arguments(prepared, tmp_path, arguments, message):
    """Unknown recipes and factors that are no count are errors with the value."""
    with pytest.raises(ValueError, match=message):
        augment(prepared, tmp_path / "a", **arguments)


def test_augment_does_not_write_over_its_input(prepared):
    """The folder of the input is refused, because it would be lost."""
    with pytest.raises(ValueError, match="`folder` must not be the folder of `prepared`"):
        augment(prepared, prepared.folder)
