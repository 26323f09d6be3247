"""Studies become slices: which, how they look, what is listed, and what happens when work is disturbed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ct_makers as make
import nibabel
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from covidtf import manifest as manifests
from covidtf.ct import prepare, slices
from covidtf.ct.lungs import examine
from covidtf.ct.prepare import prepare_studies
from covidtf.files import DataError
from covidtf.images import read_image, store

SLICES, SIDE = 12, 64


def chest(seed: int, first: int = 2, last: int = 9) -> np.ndarray:
    """A body of 5 mm voxels with two lungs in the slices from `first` to `last`, and noise."""
    rng = np.random.default_rng(seed)
    hu = np.full((SLICES, SIDE, SIDE), -1000, np.int16)
    hu[:, 8:56, 4:60] = 40
    hu[first : last + 1, 18:46, 10:28] = hu[first : last + 1, 18:46, 36:54] = -850
    return hu + rng.integers(-20, 20, hu.shape, np.int16)


def write_nifti(path: Path, hu: np.ndarray) -> None:
    """Slices from the head down, rows from the front, columns from the right, in NIfTI's canonical order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(hu[::-1, ::-1, ::-1].transpose(2, 1, 0), np.diag([5.0, 5.0, 5.0, 1.0]))
    image.header.set_qform(image.affine, 1)
    nibabel.save(image, path)


def rows_of(paths: list[str]) -> pd.DataFrame:
    labels = ("COVID-19", "Normal", "Bacterial Pneumonia")
    rows = [
        {
            "path": path,
            "label": labels[number % 3],
            "source": "s",
            "patient_id": f"s:{number}",
            "case_id": f"s:case{number}",
            "view": "UNKNOWN",
        }
        for number, path in enumerate(paths)
    ]
    return manifests.make(rows, "test")


@pytest.fixture
def cases(tmp_path):
    """Folder with four NIfTI studies, of which the second shows no lung, and their manifest."""
    root = tmp_path / "cases"
    for number in range(4):
        write_nifti(root / f"case{number}.nii.gz", chest(number, 2, 9 - number))
    write_nifti(root / "case1.nii.gz", chest(1, 5, 4))
    return root, rows_of([f"case{number}.nii.gz" for number in range(4)])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def count_reading(monkeypatch) -> list:
    calls, read = [], slices.read_study
    monkeypatch.setattr(slices, "read_study", lambda path: calls.append(path) or read(path))
    return calls


def text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_window_is_linear_between_its_ends():
    """-1350 is 0, 150 is 255, what lies beyond is clipped; 50 and 400 give -150 to 250."""
    hu = np.array([-3000, -1350, -1344, -600, 144, 150, 3000], np.int16)
    assert slices.window(hu).tolist() == [0, 0, 1, 128, 254, 255, 255]
    assert slices.window(np.array([-150, 50, 250]), 50, 400).tolist() == [0, 128, 255]


def test_thinning_is_even_and_keeps_both_ends():
    """Ten of 100 are 0, 11, 22 ... 99; fewer than wanted all stay; one is the middle."""
    assert slices.spread(100, 10).tolist() == list(range(0, 100, 11))
    assert slices.spread(5, 5).tolist() == slices.spread(5, 54).tolist() == [0, 1, 2, 3, 4]
    assert slices.spread(9, 1).tolist() == [4]
    steps = np.diff(slices.spread(173, 54))
    assert steps.min() >= 3 and steps.max() <= 4 and steps.sum() == 172


def test_slices_with_enough_lung_are_chosen():
    """The share counts from its limit on; too few are an error with the numbers."""
    shares = np.array([0, 0.01, 0.02, 0.3, 0.3, 0.019, 0.4, 0])
    assert slices.choose(shares, 54, 2, 0.02).tolist() == [2, 3, 4, 6]
    assert slices.choose(shares, 3, 2, 0.02).tolist() == [2, 4, 6]
    with pytest.raises(DataError, match=r"^1 of 8 slices show lung .* 0\.35 .* at least 2 are wanted"):
        slices.choose(shares, 54, 2, 0.35)


def test_a_slice_is_resized_as_a_picture_of_it(tmp_path):
    """Pixels are those that `images.fit` makes of the exported slice, and area means on a coarse scale."""
    grey = slices.window(chest(0).repeat(8, 1).repeat(8, 2)[5])
    Image.fromarray(grey).save(tmp_path / "slice.png")
    image = slices.square(grey, 224)
    expected = Image.fromarray(read_image(tmp_path / "slice.png").squeeze()).resize((224, 224))
    np.testing.assert_array_equal(image, expected)
    stripes = np.tile(np.array([0, 255], np.uint8), (512, 256))
    assert np.ptp(np.asarray(slices.square(stripes, 200))[:, 5:-5].astype(int)) <= 4


def test_rows_describe_slices(cases, tmp_path):
    """Each row has its slice's place, share, hash and reason, besides the columns of its study."""
    root, table = cases
    table["finding"] = "x"
    prepared = prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert prepared.crop == "resize" and prepared.images.shape == (8 + 6 + 5, 32, 32, 1)
    row, image = prepared.manifest.iloc[3], prepared.images[3]
    hu = chest(0)
    assert row["image_id"] == "s/case0.nii.gz#005" and row["slice"] == 5 and row["slices"] == SLICES
    assert (row["position_mm"], row["thickness_mm"], row["kernel"]) == (25, 5, "unknown")
    assert row["sha256"] == hashlib.sha256(hu[5].tobytes()).hexdigest()
    share = 2 * 28 * 18 / (48 * 56)
    assert row["lung_share"] == pytest.approx(share, abs=0.01) and row["chosen"] == "lung 0.38 of body"
    assert (row["width"], row["height"], row["mode"], row["format"], row["bits"]) == (
        64,
        64,
        "HU",
        "NIfTI",
        16,
    )
    np.testing.assert_array_equal(image.squeeze(), slices.square(slices.window(hu[5]), 32))
    for name in ("path", "label", "finding", "source", "patient_id", "case_id", "view", "split"):
        assert row[name] == table[name][0]
    assert prepared.manifest.groupby("case_id", sort=False)["slice"].apply(list).tolist() == [
        list(range(2, 10)), list(range(2, 8)), list(range(2, 7)),
    ]  # fmt: skip
    assert prepared.manifest["phash"].str.fullmatch("[0-9a-f]{64}").all()
    loaded = store.load(tmp_path / "out")
    pd.testing.assert_frame_equal(loaded.manifest, prepared.manifest)


def test_studies_are_reported_used_or_not(cases, tmp_path):
    """studies.csv has a row per study, series.csv one per series, `rejected` the study without lung."""
    root, table = cases
    prepared = prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert prepared.rejected.to_dict("records") == [
        {
            "source": "s",
            "path": "case1.nii.gz",
            "row": "3",
            "reason": "0 of 12 slices show lung (at least 0.005 of the body's area); at least 2 are wanted",
        }
    ]
    studies = text(tmp_path / "out" / "studies.csv")
    assert tuple(studies.columns) == prepare.STUDY_COLUMNS
    assert studies.iloc[0].to_dict() == {
        "case_id": "s:case0", "label": "COVID-19", "source": "s", "path": "case0.nii.gz", "kind": "NIfTI",
        "files": "1", "slices": "12", "with_lung": "8", "chosen": "8", "thickness_mm": "5",
        "spacing_mm": "5 x 5 x 5", "kernel": "unknown", "notes": studies["notes"][0], "state": "prepared",
    }  # fmt: skip
    assert studies["state"][1] == prepared.rejected["reason"][0] and studies["chosen"][1] == "0"
    series = text(tmp_path / "out" / "series.csv")
    assert series["case_id"].tolist() == table["case_id"].tolist()
    assert series["state"].str.startswith("chosen").all()


def test_many_slices_are_thinned(cases, tmp_path):
    """At most `most` stay, first and last among them, and the manifest says how many one stands for."""
    root, table = cases
    prepared = prepare_studies(table[:1], {"s": root}, tmp_path / "out", 32, most=4, workers=1)
    assert prepared.manifest["slice"].tolist() == [2, 4, 7, 9]
    assert prepared.manifest["chosen"][0] == "lung 0.38 of body, 1 of every 2"
    assert text(tmp_path / "out" / "studies.csv")["with_lung"].tolist() == ["8"]


def test_slice_images_are_taken_as_they_are(tmp_path):
    """Without HU all pictures count, in natural order; unreadable ones are listed, the rest is thinned."""
    root, rng = tmp_path / "cases", np.random.default_rng(0)
    (root / "a").mkdir(parents=True)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(root / "a" / f"{number}.png")
    (root / "a" / "3.png").write_bytes((root / "a" / "3.png").read_bytes()[:900])
    prepared = prepare_studies(rows_of(["a"]), {"s": root}, tmp_path / "out", 32, most=6, workers=1)
    assert prepared.manifest["slice"].tolist() == [0, 2, 5, 7, 9, 11]
    row = prepared.manifest.iloc[2]
    assert row["chosen"] == "5.png, no HU, lung unknown, 1 of every 1.83"
    assert row["image_id"] == "s/a#005" and np.isnan(row["lung_share"]) and np.isnan(row["position_mm"])
    assert (row["width"], row["height"], row["mode"], row["format"], row["bits"]) == (50, 40, "L", "PNG", 8)
    assert row["sha256"] == hashlib.sha256((root / "a" / "5.png").read_bytes()).hexdigest()
    expected = Image.open(root / "a" / "5.png").resize((32, 32))
    np.testing.assert_array_equal(prepared.images[2].squeeze(), expected)
    assert prepared.rejected["path"].tolist() == ["a/3.png"] and prepared.rejected["row"].tolist() == ["2"]
    study = text(tmp_path / "out" / "studies.csv").iloc[0]
    assert (study["kind"], study["files"], study["slices"], study["with_lung"], study["chosen"]) == (
        "images", "12", "12", "", "6",
    )  # fmt: skip


def test_bad_studies_are_listed_and_the_rest_is_prepared(cases, tmp_path):
    """Absent, damaged, linked from outside, of another hash: a reason each, without the folder's path."""
    root, table = cases
    outside = tmp_path / "outside.nii.gz"
    shutil.copy(root / "case0.nii.gz", outside)
    (root / "link.nii.gz").symlink_to(outside)
    (root / "cut.nii.gz").write_bytes(outside.read_bytes()[:3000])
    (root / "text").mkdir()
    (root / "text" / "notes.txt").write_text("none")
    names = ["absent", "link.nii.gz", "cut.nii.gz", "text", "case0.nii.gz", "case2.nii.gz", "case3.nii.gz"]
    table = rows_of(names)
    table["sha256"] = [
        "",
        "",
        "",
        "",
        "0" * 64,
        hashlib.sha256((root / names[5]).read_bytes()).hexdigest(),
        "",
    ]
    prepared = prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert prepared.manifest["path"].unique().tolist() == names[5:]
    reasons = dict(zip(prepared.rejected["path"], prepared.rejected["reason"], strict=True))
    assert list(dict.fromkeys(prepared.rejected["row"])) == ["2", "3", "4", "5", "6"]
    assert "a symbolic link leads out" in reasons["link.nii.gz"]
    assert "damaged" in reasons["cut.nii.gz"] and "the manifest says 000" in reasons["case0.nii.gz"]
    assert reasons["absent"] and "text/notes.txt" in reasons
    for name in ("rejected.csv", "studies.csv", "series.csv", "manifest.csv"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text()


@pytest.mark.parametrize("error", [OverflowError("Some One"), ValueError("Some One"), OSError("Some One")])
def test_an_unforeseen_fault_costs_one_study(cases, tmp_path, monkeypatch, error):
    """Its reason is the class of the exception, never its text; the rest is prepared."""
    root, table = cases
    examine = slices.examine

    def fail(volume):
        if len(calls) == 3:
            raise error
        return examine(volume)

    calls = count_reading(monkeypatch)
    monkeypatch.setattr(slices, "examine", fail)
    prepared = prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert prepared.manifest["path"].unique().tolist() == ["case0.nii.gz", "case3.nii.gz"]
    reasons = dict(zip(prepared.rejected["path"], prepared.rejected["reason"], strict=True))
    assert reasons["case2.nii.gz"] == f"cannot be read: {type(error).__name__}"
    assert text(tmp_path / "out" / "series.csv")["path"].tolist() == table["path"].tolist()


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_is_no_study_s_fault_ends_the_work(cases, tmp_path, monkeypatch, error):
    """No memory, an unreachable disk and a wish to stop are not put down to the study."""
    root, table = cases

    def fail(_):
        raise error

    monkeypatch.setattr(slices, "read_study", fail)
    with pytest.raises(type(error)):
        prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)


def test_lungs_cut_by_the_edge_are_noted(tmp_path):
    """studies.csv says so of the study whose sides are missing, and not of the whole one."""
    root, hu = tmp_path / "cases", chest(0)
    write_nifti(root / "whole.nii.gz", hu)
    write_nifti(root / "cut.nii.gz", hu[:, :, 20:])
    prepare_studies(rows_of(["whole.nii.gz", "cut.nii.gz"]), {"s": root}, tmp_path / "out", 32, workers=1)
    notes = text(tmp_path / "out" / "studies.csv")["notes"].tolist()
    assert [slices.CUT_OFF in each for each in notes] == [False, True]


def test_series_that_were_not_tried_are_said(tmp_path):
    """A study is rejected for its best series, and its reason says that there was another."""
    root, without_lungs = tmp_path / "cases", make.lungs()
    without_lungs[:, 8:56, 4:60] = 40
    for name, others in (("a", 1), ("b", 0)):
        for number in range(1, 2 + others):
            hu = make.lungs() if number == 2 else without_lungs
            make.series(root / name, hu, number=number, PixelSpacing=[5, 5])
    make.series(root / "c", make.lungs(), PixelSpacing=[5, 5])
    prepared = prepare_studies(rows_of(["a", "b", "c"]), {"s": root}, tmp_path / "out", 32, workers=1)
    first, second = prepared.rejected["reason"]
    assert first.startswith("0 of 12 slices show lung")
    assert first.endswith("; other series that could be used and were not tried: 1")
    assert second.endswith("at least 2 are wanted")


def test_no_usable_study_is_an_error_that_changes_nothing(cases, tmp_path):
    """If no study can be used the error gives the first reason, and the older data set stays."""
    root, table = cases
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    before = content(tmp_path / "out")
    with pytest.raises(DataError, match=r"no study can be used; row 2: case1\.nii\.gz: 0 of 12 slices"):
        prepare_studies(table[1:2], {"s": root}, tmp_path / "out", 32, workers=1)
    assert content(tmp_path / "out") == before


def test_result_does_not_depend_on_the_number_of_processes(cases, tmp_path):
    """This process alone and two spawned ones give the same bytes in every file."""
    root, table = cases
    for workers in (1, 2):
        prepare_studies(table, {"s": root}, tmp_path / str(workers), 32, workers=workers)
    files = content(tmp_path / "1")
    assert sorted(files) == sorted([*store.FILES, *prepare.TABLES]) and files == content(tmp_path / "2")


def test_finished_work_is_only_loaded(cases, tmp_path, monkeypatch):
    """The same call reads no study again, unless one of the data set's tables is gone."""
    root, table = cases
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    calls = count_reading(monkeypatch)
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert not calls
    (tmp_path / "out" / "studies.csv").unlink()
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert len(calls) == 4 and (tmp_path / "out" / "studies.csv").exists()


@pytest.mark.parametrize("change", ["file", "new file", "manifest", "size", "level", "most", "least_lung"])
def test_changed_input_is_prepared_anew(cases, tmp_path, monkeypatch, change):
    """Another time of a file in a study's folder, another manifest or setting replaces the data set."""
    root, table = cases
    (root / "folder").mkdir()
    (root / "case3.nii.gz").rename(root / "folder" / "a.nii.gz")
    table.loc[3, "path"] = "folder"
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    options = {"size": 32}
    if change == "file":
        os.utime(root / "folder" / "a.nii.gz", (1, 1))
    elif change == "new file":
        (root / "folder" / "b.txt").touch()
    elif change == "manifest":
        table["finding"] = "other"
    else:
        options[change] = {"size": 48, "level": -500.0, "most": 5, "least_lung": 0.1}[change]
    calls = count_reading(monkeypatch)
    prepare_studies(table, {"s": root}, tmp_path / "out", **options, workers=1)
    assert len(calls) == 4


@pytest.mark.parametrize("rows", [1, 4, 10, 11, 17])
def test_interrupted_work_goes_on_within_a_study(cases, tmp_path, monkeypatch, rows):
    """Stopped after any number of rows, only studies that are not whole are read again, to the same bytes."""
    root, table = cases
    prepare_studies(table, {"s": root}, tmp_path / "undisturbed", 32, workers=1)
    monkeypatch.setattr(store, "CHECKPOINT", 1)
    add = store.Store.add

    def stop(self, *row):
        if len(self.records) == rows:
            raise KeyboardInterrupt
        add(self, *row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store.Store, "add", stop)
        prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    # Rows of the studies: one and eight slices, one, one and six, one and five; the last row is not yet
    # known to be on the disk.
    whole = sum(rows - 1 >= end for end in (9, 10, 17, 23))
    calls = count_reading(monkeypatch)
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert len(calls) == 4 - whole
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_crash_while_publishing_is_repaired(cases, tmp_path, monkeypatch):
    """Between the renames nothing can be loaded; the next call finishes them without reading a study."""
    root, table = cases
    replace = Path.replace

    def fail(self, target):
        if self.name == "studies.csv" and Path(target).parent == tmp_path / "out":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"cannot write to .*out: Input/output"):
        patch.setattr(Path, "replace", fail)
        prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    with pytest.raises(DataError, match="not a finished prepared data set"):
        store.load(tmp_path / "out")
    calls = count_reading(monkeypatch)
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert not calls and sorted(content(tmp_path / "out")) == sorted([*store.FILES, *prepare.TABLES])


SCRIPT = """
import sys, time
from pathlib import Path
from covidtf import manifest
from covidtf.ct import prepare
from covidtf.images import store

store.CHECKPOINT = 2
add = store.Store.add
def told(self, *row):
    add(self, *row)
    if len(self.records) == 13:
        print("working", flush=True)
        time.sleep(600)
store.Store.add = told
if __name__ == "__main__":
    prepare.prepare_studies(manifest.read(sys.argv[1]), {"s": Path(sys.argv[2])}, sys.argv[3], 32, workers=2)
"""


def test_a_killed_process_takes_its_pool_along_and_is_continued(cases, tmp_path, monkeypatch):
    """Its workers do not outlive it, another process is refused meanwhile, and the rest is done later."""
    root, table = cases
    table = manifests.read(manifests.write(table, tmp_path / "table.csv"))
    (tmp_path / "script.py").write_text(SCRIPT)
    files = map(str, (tmp_path / "script.py", tmp_path / "table.csv", root, tmp_path / "out"))
    environment = os.environ | {"PYTHONPATH": str(Path(prepare.__file__).parents[2])}
    with subprocess.Popen([sys.executable, *files], stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout.readline() == b"working\n"
            workers = psutil.Process(process.pid).children(recursive=True)
            with pytest.raises(DataError, match=r"out: another process is preparing this data set"):
                prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
        finally:
            process.send_signal(signal.SIGKILL)
    assert workers and not psutil.wait_procs(workers, timeout=10)[1]
    calls = count_reading(monkeypatch)
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, workers=1)
    assert len(calls) == 2
    prepare_studies(table, {"s": root}, tmp_path / "undisturbed", 32, workers=1)
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 8}, r"`size` must be in \[16, 2048\]. Received: 8"),
        ({"width": 0.0}, r"`width` must be above 0. Received: 0.0"),
        ({"level": float("nan")}, r"`level` must be a finite number of HU. Received: nan"),
        ({"least": 0}, r"`least` must be at least 1. Received: 0"),
        ({"most": 1}, r"`most` must be at least `least`, 2. Received: 1"),
        ({"least_lung": 1.0}, r"`least_lung` must be in \[0, 1\). Received: 1.0"),
        ({"workers": 0}, r"`workers` must be at least 1, or None. Received: 0"),
        ({"roots": {"t": Path()}}, r"`roots` must have a folder for \['s'\]. Received: \['t'\]"),
        ({"parent": "s/case1.nii.gz"}, r"row 2: `parent_id` must be empty"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(cases, tmp_path, arguments, message):
    """A wrong argument gives an error with what was wanted and what came, and no folder."""
    root, table = cases
    table.loc[0, "parent_id"] = arguments.pop("parent", "")
    table.loc[0, ["patient_id", "label"]] = table.loc[1, ["patient_id", "label"]]
    given = {"studies": table, "roots": {"s": root}, "folder": tmp_path / "out", "size": 32} | arguments
    with pytest.raises(ValueError, match=message):
        prepare_studies(**given)
    assert not (tmp_path / "out").exists()


def test_settings_say_how_the_slices_were_made(cases, tmp_path):
    """Window, limits and crop can be read without this package."""
    root, table = cases
    prepare_studies(table, {"s": root}, tmp_path / "out", 32, level=-500, most=9, workers=1)
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    wanted = {
        "size": 32,
        "crop": "resize",
        "channels": 1,
        "level": -500,
        "width": 1500,
        "most": 9,
        "least": 2,
    }
    assert wanted.items() <= settings.items()


def test_real_study(real_data, tmp_path):
    """Of the 35 slices of the lung series those with lung are kept; the other series and pages are listed."""
    name = "ct-study-98.12.21"
    prepared = prepare_studies(rows_of([name]), {"s": real_data}, tmp_path / "out", workers=1)
    assert prepared.manifest["slice"].tolist() == list(range(1, 34))
    assert set(prepared.manifest["slices"]) == {35} and set(prepared.manifest["kernel"]) == {"lung"}
    assert len(prepared.rejected) == 2 and prepared.rejected["path"].str.startswith(f"{name}/").all()
    series = text(tmp_path / "out" / "series.csv")
    assert sorted(state.split(":")[0] for state in series["state"]) == [
        "chosen", "not chosen", "rejected", "rejected",
    ]  # fmt: skip
    shares = prepared.manifest["lung_share"]
    assert shares.max() > 0.2 and shares.iloc[[0, -1]].max() < 0.03
    assert slices.CUT_OFF not in text(tmp_path / "out" / "studies.csv")["notes"][0]


def test_real_study_in_a_narrow_field_of_view(real_data):
    """Cut to 274 mm it loses ten of its 33 slices with lung, and that is said."""
    volume = slices.read_study(real_data / "ct-study-98.12.21").volume
    side = int(274 / volume.spacing[1] / 2)
    cut = replace(volume, hu=volume.hu[:, 256 - side : 256 + side, 256 - side : 256 + side])
    shares, is_cut = examine(cut)
    assert (shares >= prepare.LEAST_LUNG).sum() < 25 and is_cut
    shares, is_cut = examine(volume)
    assert (shares >= prepare.LEAST_LUNG).sum() == 33 and not is_cut
