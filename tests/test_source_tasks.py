"""Tests of covidtf.sources.class_folders and covidtf.source_tasks."""

import zipfile

import numpy as np
import pandas as pd
import pytest
from makers import chestxray14, image

from covidtf import manifest, source_tasks
from covidtf.config import SourceConfig
from covidtf.files import DataError
from covidtf.images import prepare
from covidtf.sources.class_folders import read_class_folders, unpack


@pytest.fixture
def folder(tmp_path):
    """Two classes with a train of 20 each and a val of 3 each, and a list of classes beside them."""
    top = tmp_path / "data" / "things"
    for part, count in (("train", 20), ("val", 3)):
        for name in ("cat", "dog"):
            for number in range(count):
                image(top / part / name / f"{part}{number}.png", seed=number)
    (top / "classes.csv").write_text("a,b\n")
    return top


def zipped(folder, path):
    """A zip of a folder's content."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_class_folders_give_label_and_split(folder):
    """The folder's name is the label; what the folder calls val becomes test, since it has no other."""
    table, rejected = read_class_folders(folder, "things")
    assert rejected.empty
    assert table.groupby(["split", "label"]).size().to_dict() == {
        ("test", "cat"): 3,
        ("test", "dog"): 3,
        ("train", "cat"): 20,
        ("train", "dog"): 20,
    }
    assert table["patient_id"].is_unique


def test_a_test_of_its_own_leaves_val_as_it_is(folder):
    """With train, val and test the three are taken as they are."""
    image(folder / "test" / "cat" / "a.png")
    table, _ = read_class_folders(folder, "things")
    assert table["split"].value_counts().to_dict() == {"train": 40, "val": 6, "test": 1}


def test_bare_class_folders_leave_the_split_open(folder):
    """Without train, each folder is a class and nothing is said of the split."""
    table, _ = read_class_folders(folder / "train", "things")
    assert set(table["split"]) == {""}
    assert set(table["label"]) == {"cat", "dog"}


def test_other_files_are_rejected_with_a_reason(folder):
    """Files of other endings and files outside of a class folder are listed, not dropped."""
    (folder / "train" / "cat" / "notes.txt").write_text("x")
    image(folder / "train" / "stray.png")
    image(folder / "train" / "cat" / "deep" / "a.png")
    _, rejected = read_class_folders(folder, "things")
    assert sorted(rejected["path"]) == ["train/cat/deep/a.png", "train/cat/notes.txt", "train/stray.png"]
    assert rejected["reason"].str.contains("ending|class folder").all()


def test_a_folder_without_images_is_named(tmp_path):
    """An empty source is an error that names it."""
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no image can be used"):
        read_class_folders(tmp_path, "things")


def test_a_zip_is_unpacked_once_and_again_when_it_changes(folder, tmp_path):
    """The second call leaves the files alone; another archive replaces them."""
    archive = zipped(folder, tmp_path / "a.zip")
    first = unpack(archive, tmp_path / "out")
    kept = first / "train" / "cat" / "train0.png"
    kept.write_bytes(b"touched")
    assert unpack(archive, tmp_path / "out") == first
    assert kept.read_bytes() == b"touched"
    image(folder / "train" / "cat" / "new.png")
    unpack(zipped(folder, archive), tmp_path / "out")
    assert kept.read_bytes() != b"touched"
    assert (first / "train" / "cat" / "new.png").is_file()


def test_a_zip_with_one_folder_at_its_top_is_entered(folder, tmp_path):
    """An archive of `things/train/...` gives the folder `things`."""
    archive = zipped(folder.parent, tmp_path / "a.zip")
    assert unpack(archive, tmp_path / "out").name == "things"


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "a\\..\\outside.png"])
def test_a_member_that_leads_out_is_refused(tmp_path, name):
    """No file is written outside of the folder, and the archive is named."""
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DataError, match=r"bad\.zip: .* leads out"):
        unpack(tmp_path / "bad.zip", tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("outside.png"))


def test_a_truncated_zip_leaves_nothing_that_passes_for_whole(folder, tmp_path):
    """A zip that is cut short is an error, and a later call unpacks anew."""
    archive = zipped(folder, tmp_path / "a.zip")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-400])
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked whole"):
        unpack(archive, tmp_path / "out")
    archive.write_bytes(whole)
    assert (unpack(archive, tmp_path / "out") / "val" / "dog" / "val2.png").is_file()


@pytest.mark.parametrize(("offset", "value"), [(8, 99), (6, 1)])
def test_a_zip_that_cannot_be_read_is_refused(folder, tmp_path, offset, value):
    """An unknown compression, or an encrypted member, is an error that names the archive."""
    archive = zipped(folder, tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    for start, more in ((data.index(b"PK\3\4"), 0), (data.index(b"PK\1\2"), 2)):
        data[start + offset + more] = value
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked whole"):
        unpack(archive, tmp_path / "out")


def test_a_tenth_of_train_becomes_val(folder, tmp_path):
    """From a zip to a divided manifest: val is drawn from train alone, test stays the published val."""
    zipped(folder, folder.parent / "things.zip")
    config = SourceConfig(
        out=str(tmp_path / "out"), data_folder=str(folder.parent), source="things.zip", size=32
    )
    found = source_tasks.collect(config)
    prepared = prepare.prepare(found.manifest, found.roots, tmp_path / "prepared", 32, channels=3)
    divided = source_tasks.divide(config, prepared.manifest)
    assert divided.groupby(["split", "label"]).size().to_dict() == {
        ("test", "cat"): 3,
        ("test", "dog"): 3,
        ("train", "cat"): 18,
        ("train", "dog"): 18,
        ("val", "cat"): 2,
        ("val", "dog"): 2,
    }
    fewer = source_tasks.collect(SourceConfig(**{**vars(config), "images": 2})).manifest
    assert set(fewer.groupby(["split", "label"]).size()) == {2}


def test_chestxray14_spares_the_patients_of_the_target(tmp_path):
    """No Finding against Pneumonia, without patients whom the target task judges, each with its reason."""
    findings = ["No Finding", "Pneumonia|Edema", "Pneumonia", "Mass", "No Finding"]
    rows = [
        [f"{n:08}_000.png", found, 0, n, 58, "M", "PA", 9, 9, 1, 1, ""] for n, found in enumerate(findings, 1)
    ]
    chestxray14(tmp_path / "ChestX-ray14", rows)
    target = manifest.make(
        pd.DataFrame(
            {
                "path": ["a", "b", "c"],
                "label": "non-COVID",
                "finding": "Pneumonia",
                "source": "ChestX-ray14",
                "patient_id": [f"ChestX-ray14:{n}" for n in (1, 3, 5)],
                "view": "UNKNOWN",
                "split": ["train", "test", "val"],
            }
        ),
        "target",
    )
    manifest.write(target, tmp_path / "target" / "manifest.csv")
    config = SourceConfig(data_folder=str(tmp_path), source="ChestX-ray14", target=str(tmp_path / "target"))
    found = source_tasks.collect(config)
    assert dict(zip(found.manifest["patient_id"], found.manifest["label"], strict=True)) == {
        "ChestX-ray14:1": "No Finding",
        "ChestX-ray14:2": "Pneumonia",
    }
    assert found.rejected["reason"].value_counts().to_dict() == {
        "patient in the target's val or test": 2,
        "neither No Finding nor Pneumonia": 1,
    }
    with pytest.raises(DataError, match="must be the folder of a finished data step"):
        source_tasks.collect(SourceConfig(**{**vars(config), "target": str(tmp_path)}))


def test_an_absent_source_is_named(tmp_path):
    """A source that does not exist is an error naming it."""
    with pytest.raises(DataError, match="nowhere: no such folder or zip"):
        source_tasks.collect(SourceConfig(data_folder=str(tmp_path), source="nowhere"))


def test_phantoms_are_a_source_task_too(tmp_path):
    """Phantoms are made in the step's folder and keep the labels of the target task."""
    config = SourceConfig(out=str(tmp_path), source="phantom", images=2, channels=1, size=32)
    found = source_tasks.collect(config)
    assert set(found.manifest["label"]) == {"COVID-19", "non-COVID"}
    assert np.all(found.manifest.groupby(["split", "label"]).size() <= 2)
