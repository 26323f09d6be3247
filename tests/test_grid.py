"""The grid of heads: folds by patient, and each head the run with that seed on that fold."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from covidtf.files import DataError
from covidtf.training import batches, train
from covidtf.training.grid import COLUMNS, divide, grid
from covidtf.training.networks import build

SIZE = 32


def prepare():
    """Thirty images of ten patients, one label each, some augmented, some shown twice."""
    patient = np.arange(30) % 10
    label = np.where(patient < 5, "COVID-19", "non-COVID")
    noise = np.random.default_rng(0).integers(0, 100, (30, SIZE, SIZE, 1))
    parent = np.where(np.isin(np.arange(30), (20, 25)), "s/0.png", "")
    manifest = pd.DataFrame(
        {
            "image_id": [f"s/{index}.png" for index in range(30)],
            "patient_id": [f"s:{number}" for number in patient],
            "parent_id": parent,
            **{"case_id": "s:1", "source": "s", "view": "PA", "finding": "f", "label": label},
            "split": np.where(patient == 4, "test", np.where(patient % 5 == 3, "val", "train")),
            "copies": np.where(np.arange(30) == 1, 2, 1),
        }
    )
    images = (noise + 40 * (label == "COVID-19")[:, None, None, None]).astype(np.uint8)
    return SimpleNamespace(images=images, manifest=manifest, folder="prepared", crop="center", grey="stored")


def test_folds_keep_patients_together():
    """Each original outside of test is in val once, no patient is on both sides, copies are shown twice."""
    data = batches.read(prepare())
    parts, patient = divide(data, 3), data.manifest["patient_id"].to_numpy()
    held = np.concatenate([val for _, val in parts])
    outside = data.manifest["split"] != "test"
    wanted = np.flatnonzero(outside & (data.manifest["parent_id"] == ""))
    np.testing.assert_array_equal(np.sort(held), wanted)
    for shown, val in parts:
        assert not set(patient[shown]) & set(patient[val])
        assert set(data.labels[val]) == {0, 1}
        assert (shown == 1).sum() == (0 if "s:1" in patient[val] else 2)
        assert set(patient[shown]) | set(patient[val]) == set(patient[outside])


def test_too_many_folds_are_refused():
    """A class of four patients has no five folds; one fold is none."""
    data = batches.read(prepare())
    with pytest.raises(DataError, match=r"5 folds need as many patients of 'COVID-19'. Received: 4"):
        divide(data, 5)
    with pytest.raises(ValueError, match=r"at least 2. Received: 1"):
        divide(data, 1)


def test_a_row_of_the_grid_is_the_run_on_that_fold(tmp_path):
    """Best epoch, AUROC and losses are those that `train` writes for the same seed, fold and rate."""
    prepared = prepare()
    data = batches.read(prepared)
    model = build("ResNet18", 2, size=SIZE, seed=4)
    table = grid([model], data, tmp_path / "features", (4, 5), 2, (1e-3, 1e-2), epochs=3, batch_size=4)
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 2 * 2 * 2
    shown, val = divide(data, 2)[1]
    split = np.full(30, "", object)
    split[shown], split[val], split[prepared.manifest["split"] == "test"] = "train", "val", "test"
    prepared.manifest["split"] = split
    config = {"network": "ResNet18", "weights": "none", "epochs": 3, "head_epochs": 3, "batch_size": 4}
    config |= {"optimizer": "adam", "learning_rate": 1e-2, "mixed_precision": False, "seed": 4}
    config |= {"schedule": "constant", "random_crop": 1.0, "random_flip": False}
    history = train(SimpleNamespace(**config), prepared, tmp_path / "run")
    row = table.query("seed == 4 and fold == 2 and learning_rate == 0.01").iloc[0]
    wanted = history.set_index("epoch").loc[row["best_epoch"]]
    assert row["val_auroc"] == history["val_auroc"].max()
    assert row["val_loss"] == pytest.approx(wanted["val_loss"], rel=1e-5)
    assert row["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-5)
