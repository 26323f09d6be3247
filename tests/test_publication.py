"""Publication of notebook 07: pictures of phantoms alone, tables of all."""

import json

import pandas as pd
import pytest

from covidtf.files import DataError
from covidtf.publication import publish

STEP = "07_heat_maps"
TABLES = ["evidence.csv", "evidence.svg", "evidence_images.csv", "examples.csv", "runs.csv"]
PICTURES = ["examples_SqueezeNet-1.0.png", "notebook.ipynb"]


@pytest.fixture
def experiment(tmp_path):
    """An experiment on phantoms whose notebook 07 has ended, with a figure that an earlier call left."""
    rows = pd.DataFrame({"source": ["phantom", "phantom"], "network": "SqueezeNet 1.0", "smoke": False})
    tables = ("01_xray_dataset/manifest", "03_augmentation/manifest", "SqueezeNet1_0-seed0/predictions")
    names = [*tables, "09_transfer/runs", *(f"{STEP}/{name[:-4]}" for name in TABLES if name.endswith("csv"))]
    for name in names:
        path = tmp_path / "runs" / "any" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(path, index=False)
    folder = tmp_path / "runs" / "any" / STEP
    for name in ("evidence.svg", "examples_SqueezeNet-1.0.pdf", "step.json"):
        (folder / name).write_text("{}")
    for name in ("examples_SqueezeNet-1.0.png", "examples_ResNet18.png"):
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notebook.ipynb").write_text(json.dumps({"metadata": {"papermill": {}}, "cells": []}))
    return tmp_path / "runs" / "any"


def published(experiment):
    """Names of the step's files that went out."""
    return sorted(
        path.name for path in publish(experiment, experiment.parents[1] / "any") if path.parent.name == STEP
    )


def test_pictures_of_phantoms_are_published(experiment):
    """Byte by byte; not the PDF, and not the figure of a network that the notebook no longer shows."""
    assert published(experiment) == sorted(TABLES + PICTURES)
    out = experiment.parents[1] / "any" / STEP
    assert (out / PICTURES[0]).read_bytes() == (experiment / STEP / PICTURES[0]).read_bytes()
    assert json.loads((out / "notebook.ipynb").read_text())["metadata"] == {}


@pytest.mark.parametrize(
    "name",
    [
        *("01_xray_dataset/manifest.csv", "03_augmentation/manifest.csv"),
        *("SqueezeNet1_0-seed0/predictions.csv", f"{STEP}/evidence_images.csv", f"{STEP}/examples.csv"),
    ],
)
@pytest.mark.parametrize("source", ["ChestX-ray14", ""])
def test_one_row_of_another_source_holds_all_pictures_back(experiment, name, source):
    """Wherever it stands, and whatever the experiment is called; the tables go out all the same."""
    table = pd.read_csv(experiment / name)
    table.loc[1, "source"] = source
    table.to_csv(experiment / name, index=False)
    assert published(experiment) == TABLES


@pytest.mark.parametrize(
    "name",
    [
        *("01_xray_dataset/manifest.csv", "03_augmentation/manifest.csv", f"{STEP}/step.json"),
        *(f"{STEP}/evidence_images.csv", f"{STEP}/examples.csv"),
    ],
)
def test_what_cannot_be_checked_is_not_shown(experiment, name):
    """A table is absent, or the notebook did not end: no picture."""
    (experiment / name).unlink()
    assert not set(published(experiment)) & {*PICTURES, "examples_ResNet18.png"}


def test_no_data_step_no_picture(experiment):
    """Nothing says what the images are."""
    for name in ("01_xray_dataset", "03_augmentation"):
        (experiment / name / "manifest.csv").unlink()
        (experiment / name).rmdir()
    assert published(experiment) == TABLES


def test_a_smoke_run_is_refused(experiment):
    """Its heat maps mean nothing, of phantoms too."""
    path = experiment / STEP / "runs.csv"
    pd.read_csv(path).assign(smoke=True).to_csv(path, index=False)
    with pytest.raises(DataError, match="smoke"):
        published(experiment)


def test_an_audit_is_published_alone_only_where_no_network_is_in_it(tmp_path):
    """With the baselines it rests on; with a network, whose report is missing, nothing goes out."""
    folder = tmp_path / "runs" / "data"
    baseline, audit = folder / "02_ct_dataset" / "baseline-mean-std", folder / "08_audit"
    for path in (baseline, audit):
        path.mkdir(parents=True)
    (baseline / "predictions.csv").write_text("image_id\na\n")
    listed = pd.DataFrame({"run_id": ["baseline-mean-std"], "smoke": False})
    listed.to_csv(audit / "runs.csv", index=False)
    written = publish(folder, tmp_path / "data")
    assert [path.name for path in written] == ["predictions.csv", "runs.csv"]
    with_network = pd.concat([listed, listed.assign(run_id="ResNet18-seed0-0")])
    with_network.to_csv(audit / "runs.csv", index=False)
    with pytest.raises(DataError, match=r"06_report/results\.csv is missing"):
        publish(folder, tmp_path / "data")
    assert len(list((tmp_path / "data").rglob("*.csv"))) == 2
