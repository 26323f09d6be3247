"""Phantom CTs: valid DICOM, anatomy in its place and in HU, the classes' proportions, and the folder."""

import hashlib
import itertools
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom import config
from scipy import ndimage

from covidtf.ct import read_study
from covidtf.ct.lungs import lung_mask
from covidtf.files import DataError
from covidtf.phantom import ct, tomography, write_xrays
from covidtf.phantom.ct import write_cts
from covidtf.phantom.dicom import SCANNERS, SYNTAXES
from covidtf.phantom.thorax.shapes import EXTENT
from covidtf.phantom.thorax.volume import thorax

COLUMNS = [
    "case_id", "patient_id", "path", "finding", "label", "scanner", "sex", "age", "severity", "slices",
    "lesion_slices", "files",
]  # fmt: skip
NEEDED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "ImageType", "Modality", "Manufacturer", "PatientName", "PatientID", "PatientPosition", "SeriesNumber",
    "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "KVP",
    "ConvolutionKernel", "ReconstructionDiameter", "RescaleSlope", "RescaleIntercept", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "WindowCenter", "WindowWidth", "SliceLocation",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A set of 8 small cases with masks, and the phantom each was made of."""
    folder, phantoms = tmp_path_factory.mktemp("cts"), []

    def seen(*arguments):
        phantoms.append(thorax(*arguments))
        return phantoms[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ct, "thorax", seen)
        table = pd.read_csv(write_cts(folder, 8, seed=3, matrix=64, masks=True, workers=1))
    return folder, table, phantoms


@pytest.fixture(scope="module")
def headers(written, every_value_valid):
    """All datasets by case, as pydicom reads them when it refuses every invalid value."""
    folder, table, _ = written
    files = {row.case_id: sorted(ct._files(folder / row.path)) for row in table.itertuples()}
    return {case: [pydicom.dcmread(path) for path in paths] for case, paths in files.items()}


@pytest.fixture(scope="module")
def every_value_valid():
    before = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.RAISE
    yield
    config.settings.reading_validation_mode = before


@pytest.fixture
def quick(monkeypatch):
    """Slices four times as thick, so that a study is a dozen files, for tests about files and tables."""
    monkeypatch.setattr(ct, "_THICK", 20.0)


def lung_series(datasets):
    """The lung kernel's datasets from the head to the feet."""
    kernels = {scanner.lung.name for scanner in SCANNERS.values()}
    chosen = [dataset for dataset in datasets if dataset.get("ConvolutionKernel") in kernels]
    return sorted(chosen, key=lambda dataset: -dataset.ImagePositionPatient[2])


def hounsfield(datasets):
    return np.stack([data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
                     for data in datasets])  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# DICOM


def test_files_are_valid_dicom(headers):
    """Meta header, no value that its VR forbids, all tags of a CT slice, unique UIDs, one study a case."""
    everything = list(itertools.chain(*headers.values()))
    uids = [dataset.SOPInstanceUID for dataset in everything]
    assert len(set(uids)) == len(uids)
    assert all(uid.is_valid for uid in uids)
    for case, datasets in headers.items():
        assert len({dataset.StudyInstanceUID for dataset in datasets}) == 1
        assert {str(dataset.PatientName) for dataset in datasets} == {f"PHANTOM^{case}"}
    for dataset in everything:
        # Values are converted, and so checked, when they are asked for.
        assert all(element.value is not None for element in dataset if element.VR != "PN")
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
        if "ConvolutionKernel" in dataset:
            assert [name for name in NEEDED if name not in dataset] == []
    assert {dataset.file_meta.TransferSyntaxUID for dataset in everything} == set(SYNTAXES)


def test_studies_differ_as_those_of_scanners_do(written, headers):
    """Flat and nested folders, further series in some cases only, both scanners with their own habits."""
    folder, table, _ = written
    assert len({any(path.is_dir() for path in (folder / path).iterdir()) for path in table["path"]}) == 2
    assert table["scanner"].nunique() == 2
    extra = [{int(dataset.SeriesNumber) for dataset in datasets} - {2} for datasets in headers.values()]
    assert set().union(*extra) == {1, 3, 501}
    for row in table.itertuples():
        first = lung_series(headers[row.case_id])[0]
        siemens = row.scanner == "siemens"
        assert first.Manufacturer == ("SIEMENS" if siemens else "GE MEDICAL SYSTEMS")
        assert first.PatientPosition == ("HFS" if siemens else "FFS")
        assert (first.InstanceNumber == 1) == siemens
        assert (first.PixelRepresentation, first.RescaleIntercept) == ((0, -1024) if siemens else (1, 0))
        assert ("PixelPaddingValue" in first) != siemens


def test_slices_lie_five_millimetres_apart(written, headers):
    """One slice a place, numbered without a gap, and file names that say nothing about the order."""
    folder, table, _ = written
    for row in table.itertuples():
        series = lung_series(headers[row.case_id])
        heights = np.array([dataset.ImagePositionPatient[2] for dataset in series])
        numbers = [int(dataset.InstanceNumber) for dataset in series]
        assert np.allclose(np.diff(heights), -5) and len(series) == row.slices
        assert sorted(numbers) == list(range(1, len(series) + 1))
        assert np.array_equal(np.abs(np.diff(numbers)), np.ones(len(series) - 1))
        by_name = sorted(series, key=lambda dataset: Path(dataset.filename).name)
        moved = [a is not b for a, b in zip(by_name, series, strict=True)]
        assert np.mean(moved) > 0.8
        assert len(ct._files(folder / row.path)) == row.files
        assert 350 <= float(series[0].ReconstructionDiameter) <= 400


def test_padding_fills_the_corners_alone(written, headers):
    """GE's -2000 lies outside the circle in the square, nothing below -1024 in it or in Siemens' square."""
    _, table, _ = written
    across = np.arange(64) - 31.5
    outside = np.hypot(across, across[:, None]) > 32
    for row in table.itertuples():
        hu = hounsfield(lung_series(headers[row.case_id]))
        if row.scanner == "ge":
            assert (hu[:, outside] == -2000).all()
            assert hu[:, ~outside].min() >= -1024
        else:
            assert hu.min() >= -1024


def test_reader_finds_the_lung_series_of_every_study(written):
    """`read_study` chooses all slices of the lung kernel, and lists localizer and dose page as rejected."""
    folder, table, _ = written
    for row in table.itertuples():
        study = read_study(folder / row.path)
        assert study.volume.kernel == "lung" and study.volume.thickness == 5
        assert study.volume.hu.shape == (row.slices, 64, 64)
        used = study.series["files"][~study.series["state"].str.startswith("rejected")].sum()
        assert used + len(study.rejected) == row.files
        assert study.volume.notes == ("matrix of 64 x 64",)


# Anatomy


def sampled(phantom, series, values):
    """Nearest value of the phantom at each pixel's centre, by the headers' coordinates alone."""
    first = series[0]
    x, y, _ = (float(value) for value in first.ImagePositionPatient)
    steps = np.arange(64) * float(first.PixelSpacing[0])
    heights = [float(dataset.ImagePositionPatient[2]) for dataset in series]
    mesh = np.meshgrid(heights, y + steps, x + steps, indexing="ij")
    places = [
        (axis - low) / step - 0.5 for axis, (low, _), step in zip(mesh, EXTENT, phantom.spacing, strict=True)
    ]
    return ndimage.map_coordinates(values.astype(np.float32), places, order=0, cval=-1)


def test_tissues_lie_at_their_coordinates_in_hounsfield_units(written, headers):
    """Where the phantom has lung, heart, liver or air, the files say so: place, order and rescaling agree."""
    _, table, phantoms = written
    for row, phantom in zip(table.itertuples(), phantoms, strict=True):
        series = lung_series(headers[row.case_id])
        hu, parts = hounsfield(series), sampled(phantom, series, phantom.parts)
        healthy = (parts >= 1) & (parts <= 5) & (sampled(phantom, series, phantom.lesion) == 0)
        inner = {name: ndimage.binary_erosion(mask) for name, mask in
                 {"lung": healthy, "heart": parts == 6, "abdomen": parts == 7}.items()}  # fmt: skip
        assert -920 < np.median(hu[inner["lung"]]) < -740
        assert np.median(hu[inner["lung"]]) == pytest.approx(
            np.median(sampled(phantom, series, phantom.hu)[inner["lung"]]), abs=25
        )
        assert np.median(hu[inner["heart"]]) == pytest.approx(40, abs=15)
        assert 20 < np.median(hu[inner["abdomen"]]) < 75
        # The heart's apex and the right dome are on one side: mirrored or upside down they would meet lung.
        assert (hu[inner["heart"]] > -200).mean() > 0.99
        assert (hu[inner["lung"]] < -300).mean() > 0.99
        assert np.median(hu[:, 1:4, 28:36]) == pytest.approx(-1000, abs=10)


def test_body_wall_has_fat_and_muscle():
    """Averaged over the slices of one larger matrix: fat about -104, muscle 45, air -1000."""
    phantom = thorax(2, "No Finding", spacing=(2.5, 2.0, 2.0))
    slab = tomography.cut(phantom, np.random.default_rng(0))
    view = tomography.View(180, 360.0, (0.0, 0.0))
    couch = tomography.couch(slab, view, 500.0)
    for scanner in SCANNERS.values():
        for kernel in (scanner.lung, scanner.soft):
            hu = tomography.reconstruct(slab, view, kernel, couch, slice(20, 40), np.random.default_rng(1))
            plain = np.stack([tomography.resample(plane, slab, view) for plane in slab.hu[20:40]])
            for low, high, wanted in ((-106, -100, -104), (44, 46, 45), (-1001, -999, -1000)):
                tissue = ndimage.binary_erosion((plain > low) & (plain < high))
                tissue &= couch < -999
                assert tissue.sum() > 300
                # Noise is cut off at -1024, which lifts the mean of air.
                assert np.median(hu[tissue]) == pytest.approx(wanted, abs=4)


def test_noise_has_the_spread_and_texture_of_its_kernel():
    """Unit spread; neighbours of a soft kernel agree, those of a lung kernel hardly do."""
    view = tomography.View(256, 180.0, (0.0, 0.0))
    for scanner in SCANNERS.values():
        alike = {}
        for kernel in (scanner.lung, scanner.soft):
            noise = tomography._noise(tomography._spectrum(view, kernel), 256, np.random.default_rng(0))
            assert noise.std() == pytest.approx(1, abs=0.03) and abs(noise.mean()) < 1e-3
            alike[kernel.name] = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
        assert alike[scanner.soft.name] > 0.7 > 0.5 > alike[scanner.lung.name]
        assert 4 * scanner.soft.noise > scanner.lung.noise > 3 * scanner.soft.noise


def test_arms_are_out_of_the_field(written, headers):
    """No slice has tissue beside the trunk, which is as wide as its patient below the armpits."""
    _, table, phantoms = written
    for row, phantom in zip(table.itertuples(), phantoms, strict=True):
        series = lung_series(headers[row.case_id])
        body = hounsfield(series)[:, :40] > -400
        patient, pixel = phantom.patient, float(series[0].PixelSpacing[0])
        limit = 2 * (patient.width + patient.muscle + patient.fat + 5)
        for plane, dataset in zip(body, series, strict=True):
            if float(dataset.ImagePositionPatient[2]) < 0 and limit < 350:
                assert np.ptp(np.flatnonzero(plane.any(0))) * pixel < limit + 1.5 * pixel


def test_table_lies_below_the_patient():
    """The couch touches nothing of the body: where it is drawn the phantom has air."""
    view = tomography.View(96, 384.0, (0.0, 0.0))
    for seed in range(4):
        slab = tomography.cut(thorax(seed, spacing=(2.5, 4.0, 4.0)), np.random.default_rng(0))
        body = np.stack([tomography.resample(plane, slab, view) for plane in slab.hu]).max(0) > -500
        for scanner in SCANNERS.values():
            couch = tomography.couch(slab, view, scanner.couch)
            assert (couch > -400).sum() > 50
            assert not (body & (couch > -400)).any()


# Classes and tables


@pytest.mark.parametrize(
    ("cases", "wanted"),
    [(225, (61, 95, 69)), (20, (5, 9, 6)), (3, (1, 1, 1)), (4, (1, 2, 1)), (45, (12, 19, 14))],
)
def test_classes_have_the_published_proportions(cases, wanted):
    """61 / 95 / 69 at 225; 5.42, 8.44, 6.13 of 20 are 5, 9, 6 by largest remainder; each class at least 1."""
    counts = Counter(ct._mix(cases, 0))
    assert tuple(counts[label] for label in ("COVID-19", "Normal", "Bacterial Pneumonia")) == wanted
    assert ct._mix(cases, 0) != sorted(ct._mix(cases, 0)) or cases == 3


def test_tables_agree_with_the_masks(written):
    """Each slice's share of lesion is that of its mask, and a case counts the slices that show it."""
    folder, table, _ = written
    slices = pd.read_csv(folder / "slices.csv")
    assert list(table) == COLUMNS and list(slices) == ["case_id", "position", "lesion_share"]
    assert table["patient_id"].is_unique
    for row in table.itertuples():
        rows = slices[slices["case_id"] == row.case_id]
        assert rows["position"].tolist() == list(range(row.slices))
        assert (rows["lesion_share"] >= 0.01).sum() == row.lesion_slices
        assert (row.lesion_slices == 0) == (row.label == "Normal") == (row.severity == 0)
        mask = np.asarray(nib.load(folder / "masks" / f"{row.case_id}.nii.gz").dataobj)
        assert mask.shape == (64, 64, row.slices)
        lung, lesion = (mask > 0).sum((0, 1)), (mask == 2).sum((0, 1))
        # The tip of a lung is a pixel or none at this matrix.
        shown = lung >= 20
        share, wanted = lesion[shown] / lung[shown], rows["lesion_share"].to_numpy()[shown]
        assert np.abs(share - wanted).max() < 0.1
        assert row.label == "Normal" or np.corrcoef(share, wanted)[0, 1] > 0.95
    ill = table[table["label"] != "Normal"]
    assert (ill["lesion_slices"] < ill["slices"]).all()


def test_lung_mask_of_what_the_reader_gives_covers_the_true_lungs(tmp_path):
    """Through DICOM, with noise, couch and padding, Dice is 0.9 where the lungs hold no solid lobe."""
    table = pd.read_csv(write_cts(tmp_path, 3, matrix=128, masks=True, workers=1)).set_index("label")
    for row in table.loc[["Normal", "COVID-19"]].itertuples():
        mask = lung_mask(read_study(tmp_path / row.path).volume)
        image = nib.load(tmp_path / "masks" / f"{row.case_id}.nii.gz")
        true = np.asarray(image.dataobj).transpose(2, 1, 0) > 0
        assert 2 * (mask & true).sum() / (mask.sum() + true.sum()) >= 0.9


def test_masks_lie_on_the_slices(written, headers):
    """The mask's affine (RAS) names the same points as the slices' headers (LPS)."""
    folder, table, _ = written
    for row in table.itertuples():
        series = lung_series(headers[row.case_id])
        affine = nib.load(folder / "masks" / f"{row.case_id}.nii.gz").affine
        for place in (0, row.slices - 1):
            point = affine @ [0, 0, place, 1]
            assert np.allclose(point[:3] * [-1, -1, 1], series[place].ImagePositionPatient, atol=1e-3)
            corner = affine @ [63, 63, place, 1]
            moved = (
                np.array(series[place].ImagePositionPatient) + [63 * float(series[place].PixelSpacing[0])] * 3
            )
            assert np.allclose(corner[:2] * -1, moved[:2], atol=1e-3)


def test_shortcut_gives_classes_their_scanner():
    """0.95 of COVID-19 and 0.03 of the others on Siemens with it; about a half of each class without."""
    shares = {}
    for shortcut in (False, True):
        jobs = [
            ct._Job(Path(), case, label, 5, shortcut, 64, False) for case, label in enumerate(ct._mix(900, 5))
        ]
        scanners = [ct._scanner(job, np.random.default_rng([5, job.case, 44])) for job in jobs]
        table = pd.DataFrame(
            {"label": [job.label for job in jobs], "siemens": [name == "siemens" for name in scanners]}
        )
        shares[shortcut] = table.groupby("label")["siemens"].mean()
    assert shares[True]["COVID-19"] == pytest.approx(0.95, abs=0.04)
    assert shares[True].drop("COVID-19").to_numpy() == pytest.approx([0.03, 0.03], abs=0.03)
    assert shares[False].to_numpy() == pytest.approx([0.5] * 3, abs=0.09)


def test_shortcut_changes_the_scanner_and_nothing_else(tmp_path, quick):
    """The same patients, findings, slices, series and masks with it and without."""
    tables = [
        pd.read_csv(write_cts(tmp_path / str(shortcut), 6, 2, shortcut, 32, masks=True, workers=1))
        for shortcut in (False, True)
    ]
    pd.testing.assert_frame_equal(*(table.drop(columns="scanner") for table in tables))
    assert not tables[0]["scanner"].equals(tables[1]["scanner"])
    for part in ("masks", "slices.csv"):
        same = [tmp_path / str(shortcut) / part for shortcut in (False, True)]
        if part == "masks":
            assert contents(same[0]) == contents(same[1])
        else:
            assert same[0].read_bytes() == same[1].read_bytes()
    names = [set(contents(tmp_path / str(shortcut))) for shortcut in (False, True)]
    assert names[0] == names[1]


# The folder


@pytest.fixture
def small(tmp_path):
    """Writes three tiny cases with masks."""
    return lambda name="set", **more: write_cts(
        tmp_path / name, **{"cases": 3, "matrix": 32, "masks": True, "workers": 1} | more
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What `small` writes with `quick`, once for all tests; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ct, "_THICK", 20.0)
        write_cts(folder, 3, matrix=32, masks=True, workers=1)
    return folder


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path, small):
    """One process and two write the same bytes."""
    for workers in (1, 2):
        small(str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert {name.split("/")[0] for name in contents(tmp_path / "1")} == {
        "studies", "masks", "cases.csv", "slices.csv", "settings.json",
    }  # fmt: skip


def test_complete_folder_is_left_alone(tmp_path, small, quick, whole):
    """A second call with the same arguments writes nothing; with another seed no old study stays."""
    shutil.copytree(whole, tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    small()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    small(cases=4, seed=1)
    small("other", cases=4, seed=1)
    assert contents(tmp_path / "set") == contents(tmp_path / "other")


@pytest.mark.parametrize("lost", ["studies/ct00001", "masks/ct00000.nii.gz", "slices.csv"])
def test_lost_file_is_written_again(tmp_path, small, quick, whole, lost):
    """A set that misses a file of a study, a mask or a table becomes what it was."""
    shutil.copytree(whole, tmp_path / "set")
    path = tmp_path / "set" / lost
    (next(iter(ct._files(path))) if path.is_dir() else path).unlink()
    small()
    assert contents(tmp_path / "set") == contents(whole)


def test_half_written_folder_is_made_anew(tmp_path, small, quick, whole, monkeypatch):
    """A crash in the third case leaves no table, and the next call gives what an unbroken one does."""
    write_case = ct._write_case

    def fail_late(job):
        if job.case == 2:
            raise OSError("disk full")
        return write_case(job)

    monkeypatch.setattr(ct, "_write_case", fail_late)
    with pytest.raises(OSError, match="disk full"):
        small()
    assert not (tmp_path / "set" / "cases.csv").exists() and (tmp_path / "set" / "studies").exists()
    monkeypatch.setattr(ct, "_write_case", write_case)
    small()
    assert contents(tmp_path / "set") == contents(whole)


def test_second_writer_is_refused(tmp_path, small, quick, whole, monkeypatch):
    """While a set is written, another call for the folder is refused by its name and deletes nothing."""
    write_case, refused = ct._write_case, []

    def disturbed(job):
        done = write_case(job)
        with pytest.raises(DataError, match=f"{job.folder}: another process is writing phantoms") as error:
            small(seed=9)
        refused.append(error)
        return done

    monkeypatch.setattr(ct, "_write_case", disturbed)
    small()
    assert len(refused) == 3
    assert contents(tmp_path / "set") == contents(whole)


@pytest.mark.parametrize("settings", [None, '{"kind": "phantom X-rays"}', "not JSON"])
def test_foreign_folder_is_refused(tmp_path, small, settings):
    """Studies that are not phantoms are never deleted."""
    mine = tmp_path / "set" / "studies" / "mine.dcm"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    if settings is not None:
        (tmp_path / "set" / "settings.json").write_text(settings)
    with pytest.raises(DataError, match=r"studies|settings\.json"):
        small()
    assert mine.read_bytes() == b"mine"


def test_x_rays_and_cts_share_no_folder(tmp_path, small, whole):
    """Neither writes over the other's set, whose settings would be lost."""
    write_xrays(tmp_path / "xrays", 1, 1, size=64, workers=1)
    shutil.copytree(whole, tmp_path / "cts")
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"settings\.json: not the settings of phantom CTs"):
        small("xrays")
    with pytest.raises(DataError, match=r"settings\.json: not the settings of phantom X-rays"):
        write_xrays(tmp_path / "cts", 1, 1, size=64, workers=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("name", "least"), [("cases", 3), ("seed", 0), ("matrix", 32), ("workers", 1)])
def test_numbers_that_are_too_small_are_refused(tmp_path, name, least):
    """The message names the argument, its least value and what came."""
    with pytest.raises(ValueError, match=f"`{name}` must be at least {least}. Received: {least - 1}"):
        write_cts(tmp_path, **{name: least - 1})
    assert not list(tmp_path.iterdir())
