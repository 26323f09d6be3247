"""Reading CT studies: which series, in which order, in which units, and what is refused or noted."""

import errno
import itertools
import logging
import os
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ct_makers as make
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from covidtf import manifest as manifests
from covidtf.ct import Study, StudyError, read_study, slices
from covidtf.ct.kernels import kernel_of
from covidtf.ct.prepare import prepare_studies
from covidtf.ct.volume import REJECTED_COLUMNS, SERIES_COLUMNS
from covidtf.files import DataError
from covidtf.images import store

NO_DICOM = "no DICOM file (no 'DICM' at byte 128)"
SIGNS = list(itertools.product((1, -1), repeat=3))
ORIENTATIONS = [
    (*(np.eye(3)[a] * s), *(np.eye(3)[1 - a] * t))
    for a, s, t in itertools.product((0, 1), (1.0, -1.0), (1.0, -1.0))
]


def reason(error: pytest.ExceptionInfo) -> str:
    return str(error.value)


def refused(folder: Path) -> StudyError:
    with pytest.raises(StudyError) as error:
        read_study(folder)
    assert reason(error).startswith(f"{folder}: ")
    assert not error.value.series["state"].str.startswith(("chosen", "not chosen")).any()
    return error.value


def reason_of(folder: Path) -> str:
    return str(refused(folder)).removeprefix(f"{folder}: ")


def reasons(study: Study | StudyError) -> dict[str, str]:
    return dict(study.rejected.to_numpy().tolist())


def notes(folder: Path) -> str:
    return " | ".join(read_study(folder).volume.notes)


class TestVolume:
    def test_a_series_in_files_in_any_order_is_stacked_from_head_to_feet(self, tmp_path):
        hu = make.chest()
        make.series(tmp_path / "a" / "b", hu)
        study = read_study(tmp_path)
        volume = study.volume
        assert np.array_equal(volume.hu, hu) and volume.hu.dtype == np.int16
        assert volume.spacing == (make.BETWEEN, make.ROW, make.COLUMN)
        assert volume.positions.tolist() == [0, 5, 10, 15]
        assert (volume.thickness, volume.kernel) == (5, "lung")
        assert volume.notes == ("matrix of 16 x 16",)
        assert study.pictures == [] and study.rejected.empty
        assert tuple(study.series) == SERIES_COLUMNS and tuple(study.rejected) == REJECTED_COLUMNS
        row = study.series.iloc[0].to_dict()
        assert (row["number"], row["files"], row["kind"], row["thickness_mm"]) == (1, 4, "axial", 5)
        assert row["state"] == "chosen: the only series that can be used"

    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_prone_flipped_and_transposed_planes_end_the_same_way(self, tmp_path, orientation):
        hu = make.chest()[:, :, :12]
        make.series(tmp_path, hu, orientation=orientation)
        volume = read_study(tmp_path).volume
        assert np.array_equal(volume.hu[:, :, 2:14], hu)
        assert (volume.hu[:, :, [0, 1, 14, 15]] == -1024).all()
        assert volume.spacing == (make.BETWEEN, make.ROW, make.COLUMN)
        assert "matrix of 1" in volume.notes[0] and "air added" in volume.notes[0]

    def test_slope_and_intercept_are_those_of_each_slice(self, tmp_path):
        def change(i, dataset):
            dataset.RescaleSlope, dataset.RescaleIntercept = 1 + 0.5 * i, -1024 + 10 * i

        hu = make.chest(2)
        make.series(tmp_path, hu, change)
        wanted = np.rint((hu[1].astype(float) + 1024) * 1.5 - 1014)
        volume = read_study(tmp_path).volume
        assert np.array_equal(volume.hu[0], hu[0])
        assert np.array_equal(volume.hu[1], wanted)

    def test_padding_and_what_is_below_air_become_air(self, tmp_path):
        def change(_, dataset):
            stored = np.frombuffer(dataset.PixelData, "<i2").copy()
            stored[:5] = 3000, 3010, 3011, -1200, 30000
            dataset.PixelRepresentation, dataset.PixelData = 1, stored.tobytes()
            dataset.RescaleIntercept, dataset.RescaleSlope = 1000, 2
            dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = 3010, 3000

        make.series(tmp_path, make.chest(2) - 1000, change)
        first = read_study(tmp_path).volume.hu[0].ravel()
        # Twice the stored value and 1000: 3011 is no padding, -1200 below air, 30000 above int16.
        assert first[:5].tolist() == [-1024, -1024, 7022, -1024, 32767]

    @pytest.mark.parametrize(
        "syntax", ["RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]
    )
    def test_compressed_files_give_the_same_values(self, tmp_path, syntax):
        hu = make.chest(3)
        for path in make.series(tmp_path, hu):
            make.compress(path, syntax)
            assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
        assert np.array_equal(read_study(tmp_path).volume.hu, hu)

    def test_signed_values_of_twelve_bits_are_read_as_such(self, tmp_path):
        hu = np.clip(make.chest(2), -1000, 1000)

        def change(i, dataset):
            dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 1, 12, 11
            dataset.RescaleIntercept = 0
            # The four unused bits are 0, as old scanners leave them.
            dataset.PixelData = (hu[i].astype(np.int16).view(np.uint16) & 0x0FFF).tobytes()

        make.series(tmp_path, hu, change)
        assert np.array_equal(read_study(tmp_path).volume.hu, hu)

    def test_implicit_vr_files_are_read(self, tmp_path):
        hu = make.chest(2)
        for i, image in enumerate(hu):
            make.save(make.slice_dataset(image, 5.0 * i), tmp_path / str(i), implicit=i == 1)
        assert np.array_equal(read_study(tmp_path).volume.hu, hu)

    @pytest.mark.parametrize("syntax", ["JPEGLSLossless", "RLELossless"])
    def test_a_compressed_enhanced_object_with_frames_in_any_order_is_read(self, tmp_path, syntax):
        hu = make.chest(5)
        path = make.compress(make.enhanced(tmp_path / "IM1", hu, order=[3, 0, 4, 1, 2]), syntax)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
        assert np.array_equal(read_study(path).volume.hu, hu)

    def test_an_enhanced_object_is_read_as_folder_and_as_file(self, tmp_path):
        hu = make.chest(5)
        path = make.enhanced(tmp_path / "study" / "IM1", hu, order=[3, 0, 4, 1, 2])
        for place in (path, path.parent):
            study = read_study(place)
            assert np.array_equal(study.volume.hu, hu)
            assert study.volume.spacing == (make.BETWEEN, make.ROW, make.COLUMN)
            assert (study.volume.kernel, study.volume.thickness) == ("lung", 5)
            assert study.volume.notes == ("matrix of 16 x 16",)

    def test_frames_of_an_enhanced_object_that_are_a_localizer_are_reported(self, tmp_path):
        hu = make.chest(4)
        path = make.enhanced(tmp_path / "IM1", hu)

        def change(dataset):
            group = Dataset()
            group.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
            dataset.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [group]

        make.edit(path, change)
        study = read_study(path)
        assert np.array_equal(study.volume.hu, hu[1:])
        assert reasons(study) == {"IM1": "1 of 4 images in it: localizer"}

    def test_the_real_study_gives_its_lung_series_in_anatomical_order(self, real_data):
        folder = real_data / "ct-study-98.12.21"
        if not folder.is_dir():
            pytest.skip("needs ct-study-98.12.21/ in COVIDTF_DATA")
        study = read_study(folder)
        assert study.volume.hu.shape == (35, 512, 512)
        assert (study.volume.thickness, study.volume.kernel) == (5, "lung")
        states = study.series.set_index("files")["state"]
        assert states[35].startswith("chosen: ") and states[44].startswith("not chosen: ")
        assert sorted(study.rejected["reason"]) == ["dose page or other secondary capture", "localizer"]
        # The largest positions of the headers are nearest to the head.
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
        lung = [one for one in headers if one.get("ConvolutionKernel") == "LungA"]
        lung.sort(key=lambda one: -one.ImagePositionPatient[2])
        name = next(
            p for p in folder.iterdir() if pydicom.dcmread(p).SOPInstanceUID == lung[10].SOPInstanceUID
        )
        stored = pydicom.dcmread(name).pixel_array.astype(int)
        assert np.array_equal(study.volume.hu[10], np.maximum(stored - 1024, -1024))


class TestChoice:
    def states(self, folder: Path) -> list[str]:
        return read_study(folder).series["state"].tolist()

    def test_nearest_to_5_mm_comes_before_kernel_and_count(self, tmp_path):
        make.series(tmp_path, make.chest(6), number=1, SliceThickness=1)
        make.series(tmp_path, make.chest(4), number=2, SliceThickness=5, ConvolutionKernel="B30f")
        assert self.states(tmp_path) == [
            "not chosen: series 2 is nearer to 5 mm",
            "chosen: its thickness is nearest to 5 mm",
        ]

    def test_the_lung_kernel_comes_next_and_tenths_of_a_millimetre_do_not_count_before_it(self, tmp_path):
        make.series(tmp_path, make.chest(6), number=1, SliceThickness=5, ConvolutionKernel="B30f")
        make.series(tmp_path, make.chest(4), number=2, SliceThickness=4.96)
        assert self.states(tmp_path) == [
            "not chosen: series 2 has a lung kernel",
            "chosen: its kernel is for lung",
        ]

    def test_then_more_slices_then_the_lower_number(self, tmp_path):
        for number, count in ((7, 3), (3, 4), (11, 4)):
            make.series(tmp_path, make.chest(count), number=number)
        assert self.states(tmp_path) == [
            "chosen: it is first",
            "not chosen: series 1 has more slices",
            "not chosen: series 1 is first",
        ]

    def test_a_few_slices_for_detail_come_after_a_whole_chest(self, tmp_path):
        make.series(tmp_path, make.chest(2), number=1)
        make.series(tmp_path, make.chest(40), number=2, ConvolutionKernel="B30f")
        assert self.states(tmp_path) == [
            "not chosen: series 2 covers more of the body",
            "chosen: it covers more of the body",
        ]

    def test_half_of_the_longest_series_is_enough_and_the_longest_must_hold_up(self, tmp_path):
        # 10, 20 and 45 mm long; the longest has no air.
        make.series(tmp_path, make.chest(3), number=1)
        make.series(tmp_path, make.chest(5), number=2, ConvolutionKernel="B30f")
        make.series(tmp_path, np.maximum(make.chest(10), -400), number=3, ConvolutionKernel="B30f")
        states = self.states(tmp_path)
        assert states[0] == "chosen: its kernel is for lung"
        assert states[1] == "not chosen: series 1 has a lung kernel" and states[2].startswith("rejected")

    def test_a_best_series_that_does_not_hold_up_gives_way_to_the_next(self, tmp_path):
        hu = make.chest(3, seed=2)
        make.series(tmp_path, make.chest(5), number=1, RescaleIntercept=0)
        make.series(tmp_path, hu, number=2)
        study = read_study(tmp_path)
        assert np.array_equal(study.volume.hu, hu)
        assert study.series["state"][0].startswith("rejected: no air: its lowest value is ")
        assert study.series["state"][1] == "chosen: the only series that can be used"

    @pytest.mark.parametrize(
        "name",
        [
            "B60f",
            "B70f",
            "B80f",
            "Bl57d",
            "I70f\\3",
            "LUNG",
            "LungA",
            "FC51",
            "FC56",
            "YA",
            "L",
            "B_VSHARP_B",
        ],
    )
    def test_lung_kernels_of_six_makers_are_known(self, name):
        wanted = "lung" if name != "Bl57d" else "other"
        assert kernel_of(name.split("\\")) == wanted

    @pytest.mark.parametrize(
        "name", ["B30f", "STANDARD", "SA", "FC18", "B", "Br40d", "BONE", "B_SOFT_B", "I31f"]
    )
    def test_others_are_not(self, name):
        assert kernel_of([name]) == "other"

    def test_no_kernel_is_unknown(self, tmp_path):
        make.series(tmp_path, ConvolutionKernel=None)
        assert read_study(tmp_path).volume.kernel == "unknown"


class TestRefusedFiles:
    def kinds(self, folder: Path) -> dict[int, str]:
        return dict(zip(*(read_study(folder).series[name] for name in ("number", "kind")), strict=True))

    def test_what_is_not_an_original_axial_ct_is_listed_and_the_rest_read(self, tmp_path):
        hu = make.chest()
        make.series(tmp_path, hu, number=1)
        dose = {
            "ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"],
            "SOPClassUID": SecondaryCaptureImageStorage,
        }
        odd = {
            2: {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            3: dose,
            4: {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MPR"]},
            5: {"Modality": "MR", "SOPClassUID": MRImageStorage},
            6: {"Modality": "DX"},
            7: {"RescaleSlope": None},
            8: {"RescaleIntercept": None},
            9: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
            10: {"PhotometricInterpretation": "RGB"},
            11: {"ImageOrientationPatient": None},
            12: {"RescaleType": "Z_EFF"},
        }
        for number, fields in odd.items():
            make.series(tmp_path, hu[:2], number=number, **fields)
        study = read_study(tmp_path)
        assert np.array_equal(study.volume.hu, hu)
        found = dict(zip(study.series["number"], study.series["kind"], strict=True))
        assert list(found.values()) == [
            *("axial", "localizer", "secondary capture", "derived", "MR", "DX"),
            *("not in HU", "not in HU", "not axial", "colour", "unplaced", "not in HU"),
        ]
        for number, state in zip(study.series["number"], study.series["state"], strict=True):
            assert state.startswith("chosen" if number == 1 else "rejected: ")
        words = {
            2: "localizer",
            3: "dose page",
            4: "derived",
            5: "modality MR",
            7: "RescaleSlope",
            9: "45 degrees",
        }
        for number, word in words.items():
            assert word in reasons(study)[f"s{number}_0003"]
        assert len(study.rejected) == 2 * len(odd)

    def test_files_of_other_kinds_are_listed_with_their_reason(self, tmp_path):
        paths = make.series(tmp_path, make.chest(6))
        (tmp_path / ".DS_Store").write_bytes(b"x")
        (tmp_path / "notes.txt").write_text("hello")
        (tmp_path / "empty").touch()
        Image.new("L", (8, 8)).save(tmp_path / "shot.png")
        directory = pydicom.dcmread(paths[0])
        directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
        directory.save_as(tmp_path / "DICOMDIR")
        outside = tmp_path.parent / f"{tmp_path.name}_outside"
        make.series(outside, make.chest(2))
        (tmp_path / "link").symlink_to(next(outside.iterdir()))
        whole = paths[2].read_bytes()
        paths[2].write_bytes(whole[:-100])
        paths[3].write_bytes(whole[:400])
        study = read_study(tmp_path)
        assert len(study.volume.hu) == 4
        found = reasons(study)
        assert found.pop(".DS_Store") == "hidden file"
        assert found.pop("notes.txt") == found.pop("shot.png") == NO_DICOM
        assert found.pop("empty") == "empty file"
        assert found.pop("DICOMDIR").startswith("directory of a medium")
        assert found.pop("link") == "is a symbolic link that leads out of the folder"
        assert found.pop(paths[2].name) == "truncated: 512 bytes of pixels were wanted. Received: 412"
        assert "truncated" in found.pop(paths[3].name) or found == {}
        assert not found
        assert any(note.startswith("gap of 15.00 mm after slice 1 ") for note in study.volume.notes)

    def test_a_file_without_preamble_is_told_what_it_lacks(self, tmp_path):
        paths = make.series(tmp_path)
        paths[0].write_bytes(paths[0].read_bytes()[132:])
        assert reasons(read_study(tmp_path)) == {paths[0].name: NO_DICOM}
        for path in paths[1:]:
            path.write_bytes(path.read_bytes()[132:])
        error = refused(tmp_path)
        assert NO_DICOM in str(error)
        assert set(reasons(error).values()) == {
            "neither DICOM (no 'DICM' at byte 128) nor NIfTI nor an image (PNG, JPEG, TIFF, BMP)"
        }

    @pytest.mark.parametrize(
        ("fields", "word"),
        [
            (
                {"RescaleSlope": 1e38},
                "RescaleSlope within 1000 and RescaleIntercept within 100000 are wanted",
            ),
            ({"RescaleIntercept": -1e38}, "RescaleSlope within 1000 and RescaleIntercept within 100000"),
            ({"PixelSpacing": [1e-300, 1]}, "PixelSpacing in [0.01, 100] mm is wanted"),
            ({"PixelSpacing": [1e300, 1e300]}, "PixelSpacing in [0.01, 100] mm is wanted"),
            ({"ImagePositionPatient": [0, 0, 1e308]}, "ImagePositionPatient within 10000 mm is wanted"),
            ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 65535}, "every pixel is padding"),
        ],
    )
    def test_numbers_that_no_scanner_writes_are_refused(self, tmp_path, fields, word):
        make.series(tmp_path, **fields)
        assert word in str(refused(tmp_path))

    def test_a_matrix_that_becomes_too_large_when_it_is_square_is_refused(self, tmp_path):
        make.series(tmp_path, np.full((2, 1, 20_000), -1000))
        assert "matrix of 1 x 20000" in str(refused(tmp_path))

    def test_a_damaged_compressed_file_is_left_out_and_said(self, tmp_path):
        paths = make.series(tmp_path, make.chest(4, 64))
        for path in paths:
            make.compress(path, "JPEG2000Lossless")
        paths[0].write_bytes(paths[0].read_bytes()[:-3000])
        study = read_study(tmp_path)
        assert len(study.volume.hu) == 3
        assert reasons(study)[paths[0].name].startswith("damaged: its pixels cannot be read (")
        assert "damaged files left out: 1" in study.volume.notes

    def test_a_transfer_syntax_that_cannot_be_decoded_is_named(self, tmp_path):
        for path in make.series(tmp_path):
            data = path.read_bytes()
            # Explicit VR Little Endian -> MPEG2, of the same length once padded.
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
            dataset.PixelData = pydicom.encaps.encapsulate([b"\0\1" * 50])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
            dataset.save_as(path)
            assert data != path.read_bytes()
        error = refused(tmp_path)
        assert "transfer syntax MPEG2 Main Profile / Main Level cannot be decoded" in str(error)
        assert len(error.rejected) == 4


class TestRefusedStudies:
    @pytest.mark.parametrize(
        ("fields", "word"),
        [
            ({"PatientID": "P2"}, "2 patients (PatientID differs)"),
            ({"PatientName": "Other^One"}, "2 patients (PatientName differs)"),
            ({"PatientBirthDate": "19900101"}, "2 patients (PatientBirthDate differs)"),
            ({"StudyInstanceUID": "1.2.4"}, "2 studies (StudyInstanceUID differs)"),
        ],
    )
    def test_files_of_two_patients_or_studies_refuse_the_whole(self, tmp_path, fields, word):
        common = {"PatientName": "Some^One", "PatientBirthDate": "19800101"}
        make.series(tmp_path, number=1, **common)
        make.series(tmp_path, number=2, **(common | fields))
        error = refused(tmp_path)
        assert word in str(error)
        assert error.series["state"].str.contains(word, regex=False).all()

    def test_another_spelling_of_the_name_or_an_empty_id_is_no_other_patient(self, tmp_path):
        names = ["Some^One", "SOME^ONE^^", "Some One", "Some^One"]
        make.series(tmp_path, change=lambda i, one: setattr(one, "PatientName", names[i]))
        make.edit(next(tmp_path.iterdir()), lambda one: setattr(one, "PatientID", ""))
        assert len(read_study(tmp_path).volume.hu) == 4

    @pytest.mark.parametrize(
        ("hu", "fields", "change", "word"),
        [
            (make.chest(1), {}, None, "one slice; at least two are wanted"),
            (
                make.chest(),
                {"ImagePositionPatient": None, "SliceLocation": None},
                None,
                "neither ImagePosition",
            ),
            (make.chest(), {}, ("ImagePositionPatient", None), "1 of 4 slices have no ImagePositionPatient"),
            (make.chest(), {}, ("ImageOrientationPatient", [-1, 0, 0, 0, -1, 0]), "slices differ in matrix"),
            (make.chest(), {}, ("PixelSpacing", [0.7, 0.7]), "slices differ in matrix"),
            (make.chest(), {}, ("ImagePositionPatient", [0, 0, 100]), "two different images at one position"),
            (make.chest(), {"ImagePositionPatient": [0, 0, 7]}, None, "all slices lie at one position"),
            (np.maximum(make.chest(), -400), {}, None, "no air: its lowest value is -400"),
        ],
    )
    def test_a_series_that_cannot_be_a_volume_says_why(self, tmp_path, hu, fields, change, word):
        def alter(i, dataset):
            if change and i == 2:
                keyword, value = change
                delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)

        make.series(tmp_path, hu, alter, **fields)
        error = refused(tmp_path)
        assert word in str(error)
        assert word in error.series["state"][0]

    def test_slices_of_differing_matrix_refuse_their_series(self, tmp_path):
        make.series(tmp_path / "a", make.chest(2), SeriesInstanceUID="1.9")
        make.series(tmp_path / "b", make.chest(2, 18), SeriesInstanceUID="1.9")
        assert "slices differ in matrix" in str(refused(tmp_path))

    def test_padding_does_not_pass_for_air(self, tmp_path):
        hu = np.maximum(make.chest(), -400)
        hu[:, 0, 0] = -1024
        make.series(tmp_path / "padded", hu, PixelPaddingValue=0)

        def sign(_, dataset):
            # -2000 in the file; the padding value has the VR of the other sign and says 63536.
            dataset.PixelData = b"\x30\xf8" + dataset.PixelData[2:]
            dataset.add_new("PixelPaddingValue", "US", 63536)

        make.series(tmp_path / "signed", np.maximum(hu, -400), sign, PixelRepresentation=1)
        make.series(tmp_path / "wide", np.maximum(make.chest(), -400)[:, :9])
        for folder in tmp_path.iterdir():
            assert "no air: its lowest value is -400" in str(refused(folder))

    @pytest.mark.parametrize("make_it", [lambda path: None, Path.mkdir, lambda path: path.write_bytes(b"x")])
    def test_nothing_an_empty_folder_and_a_file_of_no_kind_are_refused(self, tmp_path, make_it):
        make_it(tmp_path / "study")
        refused(tmp_path / "study")


class TestNotes:
    def test_an_even_series_in_the_usual_matrix_has_none(self, tmp_path):
        make.series(tmp_path, make.chest(2, 512))
        assert notes(tmp_path) == ""

    def test_other_matrices_are_noted(self, tmp_path):
        make.series(tmp_path, make.chest(2, 630))
        assert notes(tmp_path) == "matrix of 630 x 630"

    def test_a_gap_and_uneven_distances_are_noted(self, tmp_path):
        z = [0, 5, 10, 20, 26]
        make.series(
            tmp_path,
            make.chest(5),
            lambda i, one: one.update({"ImagePositionPatient": [0, 0, -z[i]], "SliceLocation": -z[i]}),
        )
        text = notes(tmp_path)
        assert "gap of 10.00 mm after slice 2 (slices are 5.50 mm apart)" in text
        assert "uneven distances between slices: 5.00 to 6.00 mm" in text
        assert read_study(tmp_path).volume.positions.tolist() == z

    def test_equal_copies_are_dropped_noted_and_listed(self, tmp_path):
        hu = make.chest()
        first = make.series(tmp_path / "a", hu)
        make.series(tmp_path / "b", hu[:2])
        study = read_study(tmp_path)
        assert np.array_equal(study.volume.hu, hu)
        assert "equal copies of slices dropped: 2" in study.volume.notes
        assert reasons(study) == {f"b/{path.name}": "equal copy of another file" for path in first[:2]}

    def test_a_series_of_two_acquisitions_at_the_same_positions_is_taken_apart(self, tmp_path):
        one, two = make.chest(4, seed=1), make.chest(5, seed=2)
        make.series(tmp_path / "a", one, AcquisitionNumber=1)
        make.series(tmp_path / "b", two, AcquisitionNumber=2)
        study = read_study(tmp_path)
        assert np.array_equal(study.volume.hu, two)
        assert study.series["files"].tolist() == [4, 5]
        assert study.series["state"][0] == "not chosen: series 2 has more slices"

    def test_acquisitions_one_below_the_other_stay_one_series(self, tmp_path):
        hu = make.chest()
        make.series(tmp_path, hu, lambda i, one: setattr(one, "AcquisitionNumber", 1 + i // 2))
        assert np.array_equal(read_study(tmp_path).volume.hu, hu)

    def test_gantry_tilt_is_noted_and_slices_stay_sorted_along_the_normal(self, tmp_path):
        angle = np.radians(15)
        cosines = [1, 0, 0, 0, np.cos(angle), np.sin(angle)]
        hu = make.chest()
        make.series(
            tmp_path,
            hu,
            lambda _, one: setattr(one, "ImageOrientationPatient", np.round(cosines, 6).tolist()),
        )
        volume = read_study(tmp_path).volume
        assert "gantry tilt of 15.0 degrees" in volume.notes
        assert np.array_equal(volume.hu, hu)
        assert volume.spacing[0] == pytest.approx(5 * np.cos(angle), abs=1e-4)

    @pytest.mark.parametrize(
        ("fields", "change", "word"),
        [
            ({"GantryDetectorTilt": -12}, None, "gantry tilt of 12.0 degrees by the header, none by the"),
            (
                {"SliceThickness": None},
                None,
                "SliceThickness is missing or not in (0, 1000] mm in 4 of 4 slices",
            ),
            ({"SliceThickness": "1e308"}, None, "SliceThickness is missing or not in (0, 1000] mm in 4 of 4"),
            ({"SliceLocation": "1e308"}, None, "matrix"),
            ({"GantryDetectorTilt": "1e308"}, None, "matrix"),
            ({"ImageType": None}, None, "ImageType is missing"),
            (
                {"ImagePositionPatient": None},
                None,
                "SliceLocation stands in, taken to increase towards the head",
            ),
            ({}, lambda i, one: setattr(one, "SliceLocation", [4, 1, 2, 3][i]), "SliceLocation contradicts"),
            ({}, lambda i, one: setattr(one, "SliceLocation", 2.5 * i), "SliceLocation contradicts"),
            (
                {},
                lambda i, one: setattr(one, "InstanceNumber", [1, 3, 2, 4][i]),
                "InstanceNumber contradicts",
            ),
        ],
    )
    def test_what_is_odd_or_mended_is_noted_and_the_volume_the_same(self, tmp_path, fields, change, word):
        hu = make.chest()
        make.series(tmp_path, hu, change or (lambda *_: None), **fields)
        assert word in notes(tmp_path)
        volume = read_study(tmp_path).volume
        assert np.array_equal(volume.hu, hu)
        assert volume.thickness == 5

    def test_slices_that_lie_further_apart_than_they_are_thick_are_noted(self, tmp_path):
        make.series(tmp_path, SliceThickness=2.5)
        assert "slices of 2.5 mm lie 5.00 mm apart" in notes(tmp_path)

    def test_instance_numbers_that_fall_all_the_way_contradict_nothing(self, tmp_path):
        make.series(tmp_path, change=lambda i, one: setattr(one, "InstanceNumber", 9 - i))
        assert notes(tmp_path) == "matrix of 16 x 16"


class TestNifti:
    @pytest.mark.parametrize("signs", SIGNS)
    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
    def test_every_flip_and_a_permutation_give_the_same_voxels(self, tmp_path, signs, axes):
        hu = make.chest(4)[:, :, :12]
        volume = read_study(make.nifti(tmp_path / "x.nii.gz", hu, signs, axes)).volume
        assert np.array_equal(volume.hu[:, :, 2:14], hu)
        assert volume.spacing == pytest.approx((make.BETWEEN, make.ROW, make.COLUMN))
        assert volume.positions.tolist() == [0, 5, 10, 15]
        assert volume.thickness == volume.spacing[0] and volume.kernel == "unknown"

    def test_agrees_with_dicom_and_is_found_in_a_folder(self, tmp_path):
        make.series(tmp_path / "dicom")
        make.nifti(tmp_path / "nifti" / "x.nii", make.chest())
        (tmp_path / "nifti" / "notes.txt").touch()
        one, two = (read_study(tmp_path / name) for name in ("dicom", "nifti"))
        assert np.array_equal(one.volume.hu, two.volume.hu)
        assert one.volume.spacing == two.volume.spacing
        assert reasons(two) == {"notes.txt": "not the NIfTI file"}

    def test_scale_and_intercept_are_applied(self, tmp_path):
        stored = make.chest().transpose(2, 1, 0)[::-1, ::-1, ::-1]
        path = make.raw_nifti(tmp_path / "x.nii", stored, np.eye(4), (0.5, -700))
        wanted = np.maximum(np.rint(make.chest() * 0.5 - 700), -1024)
        assert np.array_equal(read_study(path).volume.hu, wanted)

    @pytest.mark.parametrize(
        ("data", "affine", "word"),
        [
            (np.where(make.chest() > 290, np.nan, make.chest()), None, "NaN or infinity"),
            (np.where(make.chest() > 290, np.inf, make.chest()), None, "NaN or infinity"),
            (np.zeros((4, 4, 4, 2), np.int16), None, "one volume is wanted. Received: 4 x 4 x 4 x 2"),
            (np.zeros((4, 4), np.int16), None, "one volume is wanted"),
            (np.maximum(make.chest(), -400), None, "no air: its lowest value is -400"),
            (make.chest()[:, :, :1], None, "one slice"),
            (make.chest(), np.diag([1, 1, 0, 1]), "not finite or not invertible"),
            (make.chest(), np.diag([1e-3, 1, 5, 1]), "voxels with sides in [0.01, 1000] mm are wanted"),
            (make.chest(), np.diag([1, 1, 1e4, 1]), "voxels with sides in [0.01, 1000] mm are wanted"),
            (np.zeros((32_000, 1, 9), np.int16), None, "too large once it is square: 9 slices of 1 x 32000"),
            (
                make.chest(),
                np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]]),
                "oblique by 36.9 degrees",
            ),
        ],
    )
    def test_what_cannot_be_used_says_why(self, tmp_path, data, affine, word):
        path = tmp_path / "x.nii"
        data = data.astype(np.float32) if data.dtype.kind == "f" else data
        make.raw_nifti(path, data, np.eye(4) if affine is None else affine)
        error = refused(path)
        assert word in str(error)
        assert word in reasons(error)["x.nii"]

    def test_without_qform_and_sform_the_orientation_is_not_known(self, tmp_path):
        image = nib.Nifti1Image(make.chest(), None)
        nib.save(image, tmp_path / "x.nii")
        assert "neither qform nor sform is set" in str(refused(tmp_path / "x.nii"))

    def test_damaged_files_and_two_in_a_folder_are_refused(self, tmp_path):
        path = make.nifti(tmp_path / "x.nii.gz", make.chest(8, 32))
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"x" * 500, b""):
            path.write_bytes(damaged)
            assert "damaged: its NIfTI header or values cannot be read" in str(refused(path))
        path.write_bytes(whole)
        make.nifti(tmp_path / "y.nii", make.chest())
        assert reason_of(tmp_path) == "one NIfTI file is wanted. Received: 2"

    def test_a_reason_does_not_repeat_the_name_of_a_file(self, tmp_path):
        (tmp_path / "Some_One.nii").write_bytes(b"x" * 500)
        assert reason_of(tmp_path).startswith("damaged: its NIfTI header or values cannot be read (")


class TestPictures:
    def test_slice_images_come_in_natural_order_told_by_content(self, tmp_path):
        for name, kind in (("10.png", "PNG"), ("9.jpg", "JPEG"), ("a2.tif", "TIFF"), ("a10", "BMP")):
            Image.new("L", (8, 8)).save(tmp_path / name, kind)
        (tmp_path / "list.csv").write_text("a,b")
        Image.new("L", (8, 8)).save(
            tmp_path / "many.tif", save_all=True, append_images=[Image.new("L", (8, 8))]
        )
        study = read_study(tmp_path)
        assert [path.name for path in study.pictures] == ["9.jpg", "10.png", "a2.tif", "a10"]
        assert study.volume is None and study.series.empty
        assert reasons(study)["list.csv"].startswith("neither DICOM (no 'DICM' at byte 128) nor NIfTI nor an")
        assert reasons(study)["many.tif"] == "2 images in one file; one is wanted"


MARKERS = {
    **dict.fromkeys(("PatientName", "ReferringPhysicianName", "OperatorsName"), "Zmark^Person"),
    **dict.fromkeys(("PatientID", "InstitutionName", "SeriesDescription", "StudyDescription"), "ZMARKLO"),
    **dict.fromkeys(("ProtocolName", "DeviceSerialNumber", "OtherPatientIDs"), "ZMARKDEV"),
    **dict.fromkeys(("AccessionNumber", "StationName", "StudyID"), "ZMARKSH"),
    **dict.fromkeys(("PatientComments", "ImageComments", "AdditionalPatientHistory"), "ZMARKLT"),
    **dict.fromkeys(("PatientBirthDate", "StudyDate", "SeriesDate", "ContentDate"), "19330221"),
    **dict.fromkeys(("StudyTime", "ContentTime"), "031527.918"),
    **dict.fromkeys(("StudyInstanceUID", "FrameOfReferenceUID"), "1.2.826.424242.1"),
    **dict.fromkeys(("PatientAge",), "087Y"),
    **dict.fromkeys(("InstitutionAddress",), "ZMARKST"),
    **dict.fromkeys(("ConvolutionKernel",), "ZMARKKERN"),
}
SECRETS = ("zmark", "19330221", "031527", "424242", "087y")


def mark(dataset: Dataset) -> None:
    """A marker in every identifying field, and values that break their VR in fields that are read."""
    for keyword, value in MARKERS.items():
        setattr(dataset, keyword, value)
    dataset.SeriesInstanceUID = f"1.2.826.424242.{dataset.SeriesNumber}"
    dataset.SOPInstanceUID = f"1.2.826.424242.9.{dataset.InstanceNumber}"
    block = dataset.private_block(0x0011, "ZMARKPRIV", create=True)
    block.add_new(0x01, "LO", "ZMARKPRIVATE")
    dataset.RescaleType = "ZMARKTYPE"


def spoil(path: Path, keyword: str, value: bytes) -> None:
    """Put bytes that are no value of its VR into a field of text."""
    with config.disable_value_validation():
        element = pydicom.dcmread(path)[keyword]
        dataset = pydicom.dcmread(path)
        dataset.add_new(element.tag, "LO", value.decode("latin1"))
        dataset.save_as(path)
    data = path.read_bytes()
    tag = element.tag.group.to_bytes(2, "little") + element.tag.elem.to_bytes(2, "little")
    assert tag + b"LO" in data
    path.write_bytes(data.replace(tag + b"LO", tag + element.VR.encode()))


def told(folder: Path) -> str:
    """Everything that reading a study says, but for what it prints."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            study = read_study(folder)
            text = repr(study.volume.notes) + repr(study)
        except StudyError as error:
            study, text = error, "".join(traceback.format_exception(error)) + repr(error.__context__)
    text += study.series.to_csv() + study.rejected.to_csv()
    return text + "".join(str(one.message) for one in caught)


def _good(folder: Path) -> None:
    make.series(folder, change=lambda _, one: mark(one))


def _mixed(folder: Path) -> None:
    _good(folder)
    make.edit(next(folder.iterdir()), lambda one: setattr(one, "PatientID", "ZMARKOTHER"))


def _two_studies(folder: Path) -> None:
    _good(folder)
    make.edit(next(folder.iterdir()), lambda one: setattr(one, "StudyInstanceUID", "1.2.826.424242.5"))


def _truncated(folder: Path) -> None:
    _good(folder)
    paths = sorted(folder.iterdir())
    for path, share in zip(paths[:2], (0.3, 0.9), strict=True):
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])


def _invalid(folder: Path) -> None:
    _good(folder)
    values = {"SliceThickness": b"ZMARKDS ", "InstanceNumber": b"ZMARKIS ", "PatientBirthDate": b"ZMARKDA "}
    for path in folder.iterdir():
        for keyword, value in values.items():
            spoil(path, keyword, value)


def _invalid_places(folder: Path) -> None:
    _good(folder)
    for path in folder.iterdir():
        for keyword in ("ImagePositionPatient", "RescaleSlope", "StudyInstanceUID"):
            spoil(path, keyword, b"ZMARKBAD")


def _damaged_headers(folder: Path) -> None:
    _good(folder)
    for path, tag in zip(sorted(folder.iterdir()), (0x52009229, 0x52009230, 0x52009230, 0), strict=True):
        if not tag:
            # Such a file is whole; pydicom warns with the unknown name of its character set.
            make.edit(path, lambda one: setattr(one, "SpecificCharacterSet", "ISO_IR 192"))
            path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", b"ZMARK_CHAR"))
            continue
        make.edit(path, lambda one, tag=tag: one.add_new(tag, "UT", "ZMARK-IS-NOT-A-SEQUENCE"))
        data = path.read_bytes()
        place = data.index(b"UT\0\0", data.index(b"\0\x52" + (tag & 0xFFFF).to_bytes(2, "little")))
        path.write_bytes(data[:place] + b"SQ" + data[place + 2 :])


def _other_kinds(folder: Path) -> None:
    fields = [
        {"Modality": "ZMARKMOD"},
        {"SOPClassUID": "1.2.826.424242.7"},
        {"ImageType": ["DERIVED", "ZMARK"]},
    ]
    for number, changes in enumerate(fields, 1):
        make.series(folder, change=lambda _, one: mark(one), number=number, **changes)


PLANTS = (_good, _mixed, _two_studies, _truncated, _invalid, _invalid_places, _damaged_headers, _other_kinds)


@pytest.mark.parametrize("plant", PLANTS)
def test_no_identifying_field_gets_out(tmp_path, plant, capfd, caplog):
    """A marker in every such field, in good and bad files, is in no table, message, log, warning or print."""
    folder = tmp_path / "study"
    plant(folder)
    files = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"ZMARK" in files and b"424242" in files
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        text = told(folder)
    text += "".join(capfd.readouterr()) + caplog.text
    text = text.replace(str(tmp_path), "")
    assert "rejected" in text or "chosen" in text
    for secret in SECRETS:
        assert secret not in text.casefold(), secret


def test_the_markers_would_be_seen_without_the_care(tmp_path):
    """pydicom itself does quote the planted values, so the test above can fail."""
    _invalid(tmp_path)
    with pytest.warns(UserWarning, match="ZMARKIS"):
        assert pydicom.dcmread(next(tmp_path.iterdir())).InstanceNumber == "ZMARKIS"


def _with_lungs(folder: Path) -> None:
    make.series(folder, make.lungs(), lambda _, one: mark(one), PixelSpacing=[5, 5])


def _unforeseen(folder: Path) -> None:
    _with_lungs(folder)
    (folder / "UNFORESEEN").touch()


def _doubled(folder: Path) -> None:
    """With another series that is not chosen, and copies."""
    _with_lungs(folder)
    _with_lungs(folder / "again")
    make.series(folder, make.lungs(), lambda _, one: mark(one), number=2, PixelSpacing=[5, 5])


@pytest.mark.parametrize(("workers", "some"), [(1, True), (1, False), (2, True)])
def test_no_identifying_field_gets_into_a_prepared_data_set(
    tmp_path, monkeypatch, capfd, caplog, workers, some
):
    """None is in any file that is written, nor said, be some studies good or all of them bad."""
    plants = [*PLANTS, _unforeseen, *([_with_lungs, _doubled] if some else [])]
    for plant in plants:
        plant(tmp_path / "cases" / plant.__name__)
    rows = [
        {"path": one.__name__, "label": "x", "source": "s", "view": "UNKNOWN",
         "patient_id": f"s:{i}", "case_id": f"s:{i}"}
        for i, one in enumerate(plants)
    ]  # fmt: skip
    read = slices.read_study

    def fail(path):
        if (path / "UNFORESEEN").exists():
            raise ValueError(str(pydicom.dcmread(next(path.glob("s1*")))))
        return read(path)

    if workers == 1:
        monkeypatch.setattr(slices, "read_study", fail)
    arguments = (manifests.make(rows, "test"), {"s": tmp_path / "cases"}, tmp_path / "out", 32)
    text = ""
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        try:
            prepare_studies(*arguments, least=2 if some else 13, most=54, workers=workers)
        except DataError as error:
            text = "".join(traceback.format_exception(error)) + repr(error.__context__)
    assert bool(text) != some
    written = {path.name: path.read_bytes() for path in tmp_path.glob("out/**/*") if path.is_file()}
    assert some == ({*store.FILES, "studies.csv", "series.csv"} <= set(written))
    if some and workers == 1:
        assert b"cannot be read: ValueError" in written["studies.csv"]
    written = "".join(data.decode("latin1") for name, data in written.items() if name != "images.npy")
    text += written + "".join(capfd.readouterr()) + caplog.text + "".join(str(one.message) for one in caught)
    for secret in SECRETS:
        assert secret not in text.replace(str(tmp_path), "").casefold(), secret


def test_words_in_a_nifti_header_do_not_get_out_either(tmp_path, capfd, caplog):
    for name, lowest in (("good", -1000), ("bad", -400)):
        stored = np.maximum(make.chest(), lowest)
        path = make.raw_nifti(tmp_path / f"{name}.nii", stored, np.eye(4))
        data = bytearray(path.read_bytes())
        for offset in (14, 148, 228, 328):  # db_name, descrip, aux_file, intent_name
            data[offset : offset + 9] = b"ZMARKTEXT"
        path.write_bytes(data)
        with caplog.at_level(logging.DEBUG):
            text = told(path)
        text += "".join(capfd.readouterr()) + caplog.text
        assert ("no air" in text) == (name == "bad")
        assert "zmark" not in text.casefold()


def test_reading_leaves_warnings_and_logging_as_they_were_in_threads_too(tmp_path):
    def state() -> tuple:
        mode = config.settings.reading_validation_mode
        return warnings.filters.copy(), logger.propagate, logger.disabled, mode

    _invalid(tmp_path)
    logger = logging.getLogger("pydicom")
    before = state()
    assert before[1:3] == (True, False)
    with ThreadPoolExecutor(4) as threads:
        # Any warning that got out would be an error here.
        studies = list(threads.map(read_study, [tmp_path] * 12))
    assert all(len(study.volume.hu) == 4 for study in studies)
    assert state() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_listed(tmp_path):
    paths = make.series(tmp_path)
    paths[1].chmod(0)
    assert reasons(read_study(tmp_path)) == {paths[1].name: "cannot be read: Permission denied"}


@pytest.mark.parametrize(("number", "listed"), [(errno.EACCES, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_listed_is_said_and_an_unreachable_disk_is_an_error(
    tmp_path, monkeypatch, number, listed
):
    make.series(tmp_path)
    make.series(tmp_path / "sub", number=2)
    scan = os.scandir

    def deny(folder):
        if Path(folder) in denied:
            raise OSError(number, os.strerror(number), str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", deny)
    denied = [tmp_path / "sub"]
    if not listed:
        with pytest.raises(OSError, match="Input/output error"):
            read_study(tmp_path)
        return
    assert reasons(read_study(tmp_path)) == {"sub": "cannot be listed: Permission denied"}
    denied = [tmp_path]
    assert reason_of(tmp_path) == "cannot be listed: Permission denied"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_listed(tmp_path):
    make.series(tmp_path)
    (tmp_path / "sub").mkdir(mode=0)
    assert reasons(read_study(tmp_path)) == {"sub": "cannot be listed: Permission denied"}


def test_links_that_go_round_in_circles_are_listed(tmp_path):
    make.series(tmp_path)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert set(reasons(read_study(tmp_path))) == {"a", "b"}
