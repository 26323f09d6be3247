"""A data set by name: folders and links, what is left out and where that is listed, and unwritable disks."""

import errno
import io
import itertools
import os
from pathlib import Path

import makers
import pandas as pd
import pytest

from covidtf import datasets, phantom
from covidtf.config import DataConfig
from covidtf.files import DataError, git_blob_sha1, write_csv
from covidtf.images.augment import augment
from covidtf.images.prepare import prepare
from covidtf.sources import xray5k
from covidtf.sources.chexpert import CHEXPERT_LABELS
from covidtf.sources.metadata import CHESTXRAY14, CHEXPERT, COVID_CHESTXRAY

COVID = ("images/4-x-day1.jpg", "images/16654_1_1.png")
NEGATIVE = ("train/patient00028/study2/view1_frontal.jpg", "train/patient00003/study1/view1_frontal.jpg")
UUID = "1f0c3b5e-0d4c-4a8e-9a57-0c5b7f6d2e{:02}"


def config(folder: Path, dataset: str, **settings) -> DataConfig:
    """Settings whose sources and outputs lie in `folder`."""
    return DataConfig(dataset=dataset, data_folder=str(folder / "data"), out=str(folder / "out"), **settings)


def link(folder: Path, name: str, target: Path) -> None:
    """A link to `target` in the folder of public data sets."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / name).symlink_to(target)


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """v3 cut to four files, whose sources are links to folders elsewhere; and that list."""
    clone = makers.covid_chestxray(
        tmp_path / "a" / "clone", [{"filename": Path(name).name} for name in COVID]
    )
    findings = {name.removeprefix("train/"): "No Finding" for name in NEGATIVE}
    chexpert = makers.chexpert(tmp_path / "b", findings)
    listed = xray5k.published_files()
    listed = listed[listed["path"].isin(COVID + NEGATIVE)].reset_index(drop=True)
    places = {COVID_CHESTXRAY: clone, CHEXPERT: chexpert}
    listed["git_blob_sha1"] = [git_blob_sha1(places[row.source] / row.path) for row in listed.itertuples()]
    monkeypatch.setattr(xray5k, "published_files", listed.copy)
    link(tmp_path, COVID_CHESTXRAY, clone)
    link(tmp_path, "CheXpert-v1.0-small", chexpert)
    return listed


@pytest.mark.parametrize("full", [False, True])
def test_v3_from_links(tmp_path, linked, full):
    """Both sources may be links, and the small release of CheXpert is taken where the full one is too."""
    if full:
        link(tmp_path, "CheXpert-v1.0", makers.chexpert(tmp_path / "c", {}, "CheXpert-v1.0"))
    found = datasets.collect(config(tmp_path, "v3"))
    assert set(found.report["state"]) == {"present"}
    assert sorted(found.manifest["image_id"]) == sorted(linked["image_id"])
    prepared = prepare(found.manifest, found.roots, tmp_path / "prepared", 16)
    assert len(prepared.images) == 4 and prepared.rejected.empty


def test_v3_without_its_chexpert(tmp_path, linked):
    """A release under a name of one's own is an error with the names that are looked for."""
    (tmp_path / "data" / "CheXpert-v1.0-small").rename(tmp_path / "data" / "chexpert")
    with pytest.raises(DataError, match=r"CheXpert-v1\.0-small or .* Received: \['chexpert', 'covid-chestx"):
        datasets.collect(config(tmp_path, "v3", missing="go on"))


def test_v3_that_stops_leaves_its_list(tmp_path, linked):
    """With a file absent the step ends in an error that names the written list of every file's state."""
    (tmp_path / "a" / "clone" / COVID[0]).unlink()
    settings = config(tmp_path, "v3")
    path = settings.folder / "tables" / "v3_files.csv"
    with pytest.raises(DataError, match=f"3 of them; 1 absent, .* The state of every file is in {path}"):
        datasets.collect(settings)
    assert pd.read_csv(path)["state"].value_counts().to_dict() == {"present": 3, "absent": 1}


def test_counts_show_what_v3_wanted(tmp_path, linked):
    """Going on, the counts have the wanted and present files of each split and label, also where none is."""
    (tmp_path / "a" / "clone" / COVID[0]).unlink()
    found = datasets.collect(config(tmp_path, "v3", missing="go on"))
    assert found.rejected[["path", "reason"]].to_numpy().tolist() == [[COVID[0], "absent"]]
    table = datasets.counts(found.manifest, found.report).set_index(["split", "label"])
    numbers = table[["images", "patients", "wanted", "present", "absent", "altered", "outside"]]
    assert numbers.loc[("train", "COVID-19")].tolist() == [0, 0, 1, 0, 1, 0, 0]
    for group in (("train", "non-COVID"), ("test", "COVID-19"), ("test", "non-COVID")):
        assert numbers.loc[group].tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_counts_of_other_data_sets(tmp_path):
    """Where no list was published there is nothing wanted, and val has no number of its own."""
    table = pd.DataFrame(
        {"split": ["train", "val"], "source": "s", "label": "COVID-19", "patient_id": ["a", "b"]}
    )
    table["image_id"] = ["i", "j"]
    assert list(datasets.counts(table, pd.DataFrame())) == ["split", "source", "label", "images", "patients"]
    report = table.assign(split="train", state=["present", "absent"])
    counts = datasets.counts(table, report)
    assert counts["wanted"].fillna(-1).tolist() == [2, -1]
    assert counts["images"].tolist() == [1, 1]


@pytest.fixture
def for_v1(tmp_path):
    """Sources, as links, from which v1 can be drawn in small: 12 COVID-19 patients, 14 labels of CheXpert."""
    clone = makers.covid_chestxray(tmp_path / "clone", [{} for _ in range(12)])
    findings = {
        f"patient{3 * label + number:05}/study1/view1_frontal.jpg": name
        for (label, name), number in itertools.product(enumerate(CHEXPERT_LABELS), range(3))
    }
    for release in ("CheXpert-v1.0-small", "CheXpert-v1.0"):
        link(tmp_path, release, makers.chexpert(tmp_path / "elsewhere", findings, release))
    link(tmp_path, COVID_CHESTXRAY, clone)
    return tmp_path


def test_v1_has_the_chosen_numbers(for_v1, monkeypatch):
    """`covid_train` and `covid_test` reach the draw, which takes the small release where both are."""
    sample = xray5k.sample_v1
    few = {"no_finding": (1, 1), "per_label": (1, 1)}
    monkeypatch.setattr(xray5k, "sample_v1", lambda *args, **more: sample(*args, **more, **few))
    found = datasets.collect(config(for_v1, "v1", covid_train=5, covid_test=3))
    counts = found.manifest[found.manifest["label"] == "COVID-19"]["split"].value_counts()
    assert counts.to_dict() == {"train": 5, "test": 3}
    assert found.roots[CHEXPERT].name == "CheXpert-v1.0-small"
    assert all((found.roots[row.source] / row.path).is_file() for row in found.manifest.itertuples())


def test_v1_has_the_published_numbers_by_default(for_v1):
    """Without a choice 31 and 40 images are wanted."""
    with pytest.raises(DataError, match="31 train and 40 test images of whole patients were wanted"):
        datasets.collect(config(for_v1, "v1"))


@pytest.fixture
def for_sample(tmp_path):
    """The sources of `sample`, as links: four patients of each of three groups, two images each."""
    rows = [
        {"patientid": str(number // 2), "finding": "COVID-19" if number < 8 else "SARS"}
        for number in range(16)
    ]
    link(tmp_path, COVID_CHESTXRAY, makers.covid_chestxray(tmp_path / "clone", rows))
    lines = [
        [f"{number:08}_000.png", "Effusion", "0", str(number // 2), "58", "F", "PA", 1, 1, 0.1, 0.1, ""]
        for number in range(8)
    ]
    link(tmp_path, CHESTXRAY14, makers.chestxray14(tmp_path / "nih", lines))
    return tmp_path


def test_real_images_are_all_kept_by_default(for_sample):
    """The default number of patients makes 250 phantoms and leaves no real image out."""
    found = datasets.collect(config(for_sample, "sample"))
    assert len(found.manifest) == 24 and found.rejected.empty


def test_images_left_out_are_listed(for_sample):
    """With fewer patients every image that goes is among the rejected, with split and label in its reason."""
    found = datasets.collect(config(for_sample, "sample", patients=3))
    assert found.manifest.groupby(["source", "label"])["patient_id"].nunique().tolist() == [3, 3, 3]
    counts = found.rejected.groupby(["source", "reason"]).size().to_dict()
    assert counts == {
        (CHESTXRAY14, "left out by `patients`: non-COVID"): 2,
        (COVID_CHESTXRAY, "left out by `patients`: COVID-19"): 2,
        (COVID_CHESTXRAY, "left out by `patients`: non-COVID"): 2,
    }
    assert not set(found.rejected["path"]) & set(found.manifest["path"])


def test_phantoms_have_a_default_number(tmp_path, monkeypatch):
    """0 patients are 250 phantoms; any other number is made as said."""
    asked = []

    def write(folder, patients, **settings):
        asked.append(patients)
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "write_xrays", write)
    for settings in ({}, {"patients": 7}, {"smoke": True}):
        with pytest.raises(KeyboardInterrupt):
            datasets.collect(config(tmp_path, "phantom", **settings))
    assert asked == [250, 7, 24]


@pytest.fixture
def archive(tmp_path):
    """The released archive, as a link, its train already enlarged; copies differ in number as when drawn."""
    names = [
        f"{split}/{kind}/{index}.png"
        for kind in ("covid",)
        for split in ("train", "test")
        for index in range(6)
    ]
    names += [
        f"{split}/non/Edema-patient{start + index:05}-study1-view1_frontal.jpg"
        for split, start in (("train", 100), ("test", 200))
        for index in range(6)
    ]
    names = [name.replace("test/covid/", "test/covid/t") for name in names]
    numbers = itertools.count()
    for original, copies in enumerate((3, 2, 0, 2, 4, 2)):
        names += [
            f"train/covid/covid_original_{original}.png_{UUID.format(next(numbers))}.png"
            for _ in range(copies)
        ]
    makers.released(tmp_path / "archive", names)
    link(tmp_path, "COVID-XRay-5K", tmp_path / "archive")
    return tmp_path


def step(settings: DataConfig) -> tuple[datasets.Collected, datasets.Division]:
    """What notebook 01 does: collect, prepare, divide, save."""
    found = datasets.collect(settings)
    prepared = prepare(found.manifest, found.roots, settings.folder / "prepared", 16)
    division = datasets.divide(settings, prepared.manifest)
    write_csv(division.manifest, settings.folder / "manifest.csv")
    return found, division


def test_released_archive_stays_as_it_is(archive, capsys):
    """An archive that holds its copies passes through augmentation unchanged, and that is said."""
    settings = config(archive, "released")
    _, division = step(settings)
    enlarged = division.manifest.query("label == 'COVID-19' and split == 'train' and parent_id != ''")
    loaded = datasets.load(settings.folder)
    result = augment(loaded, archive / "augmented", "released", factor=5)
    assert f"train holds {len(enlarged)} augmented images of COVID-19 already" in capsys.readouterr().err
    pd.testing.assert_frame_equal(result.manifest, loaded.manifest)
    assert (result.images == loaded.images).all()
    assert len(enlarged) > 0


def test_released_archive_gets_urls_from_the_clone(archive):
    """With covid-chestxray-dataset beside it, images and copies have URLs, and `strict` sees shared ones."""
    rows = [
        {
            "filename": f"{name}{index}.png",
            "url": f"https://example.org/{'same' if index == 0 else name + str(index)}",
        }
        for name in ("", "t")
        for index in range(6)
    ]
    rows = [{**row, "view": "AP", "sex": "F", "age": "44", "make": False} for row in rows]
    makers.covid_chestxray(archive / "data" / COVID_CHESTXRAY, rows)
    found, division = step(config(archive, "released", strict=True))
    covid = found.manifest[found.manifest["label"] == "COVID-19"].set_index("path")
    assert covid[["view", "sex", "age"]].drop_duplicates().to_numpy().tolist() == [["AP", "F", 44.0]]
    assert covid["url"].value_counts()["https://example.org/same"] == 2 + 3
    assert (found.manifest.loc[found.manifest["source"] == CHEXPERT, "url"] == "").all()
    assert set(division.dropped["path"].str.extract(r"(?:original_)?(\d)\.png")[0]) == {"0"}
    assert division.dropped["reason"].tolist() == ["url"] * 4


@pytest.mark.parametrize("strict", [False, True])
def test_dropped_rows_have_a_reason(archive, strict):
    """What is dropped has the columns that are written, also where nothing is."""
    makers.image(archive / "archive" / "train" / "covid" / "1.png", seed=1)
    makers.image(archive / "archive" / "test" / "covid" / "t1.png", seed=1)
    _, division = step(config(archive, "released", strict=strict))
    dropped = division.dropped[["image_id", "split", "label", "reason"]]
    assert set(dropped["reason"]) == ({"exact"} if strict else set())
    assert len(dropped) == (3 if strict else 0)


@pytest.fixture
def read_only(monkeypatch):
    """Call it with a folder, and the operating system refuses to change anything in it."""

    def freeze(folder: Path) -> None:
        for module, name in ((os, "mkdir"), (os, "open"), (os, "replace"), (os, "unlink"), (io, "open")):
            monkeypatch.setattr(module, name, guarded(getattr(module, name), folder))

    def guarded(function, folder: Path):
        def call(path, *arguments, **more):
            mode = str(next((word for word in (*arguments, *more.values()) if isinstance(word, str)), "r"))
            reads = function.__module__ in ("io", "_io") and not set(mode) & set("wa+x")
            inside = isinstance(path, str | Path) and Path(path).is_relative_to(folder)
            if inside and not reads and not (function.__name__ == "mkdir" and Path(path).exists()):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return function(path, *arguments, **more)

        return call

    return freeze


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_read_only_disk_keeps_what_is_there(archive, read_only, monkeypatch):
    """On a disk that became read-only every writer names the folder, and older data is as it was."""
    settings = config(archive, "released")
    found, division = step(settings)
    loaded = datasets.load(settings.folder)
    augment(loaded, settings.folder / "augmented", factor=2)
    phantoms = settings.folder / "phantoms"
    phantoms.mkdir()
    (phantoms / "settings.json").write_text('{"kind": "phantom X-rays"}')
    makers.image(phantoms / "images" / "old.png")
    before = contents(settings.folder)
    read_only(settings.folder)
    writers = (
        lambda: prepare(found.manifest, found.roots, settings.folder / "prepared", 32),
        lambda: augment(loaded, settings.folder / "augmented", factor=3),
        lambda: phantom.write_xrays(phantoms, 2, workers=1),
        lambda: write_csv(division.manifest, settings.folder / "manifest.csv"),
    )
    for write in writers:
        with pytest.raises(OSError, match="Read-only file system") as error:
            write()
        assert str(settings.folder) in str(error.value)
    monkeypatch.undo()
    assert contents(settings.folder) == before
