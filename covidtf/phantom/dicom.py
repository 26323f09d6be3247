"""DICOM files of phantom CTs, with the headers and habits of two made-up scanners."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from covidtf.files import atomic
from covidtf.phantom.thorax.body import Patient

SYNTAXES = (ExplicitVRLittleEndian, RLELossless, ImplicitVRLittleEndian)


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel.

    Args:
        name: As ConvolutionKernel has it.
        noise: Standard deviation in the middle of the patient, HU.
        corner: Spatial frequency at which it falls off, 1/mm.
        sharpen: Share of the fine detail added (edges overshoot), or taken away where negative.
    """

    name: str
    noise: float
    corner: float
    sharpen: float


@dataclass(frozen=True)
class Scanner:
    """A made-up scanner.

    Args:
        maker, model: Manufacturer and its ManufacturerModelName.
        lung, soft: Its two kernels.
        image, scout, page: The ImageType of slices, localizer and dose page.
        position: PatientPosition.
        head_first: Whether instance number 1 is the slice nearest to the head.
        intercept: RescaleIntercept; stored values are signed where it is 0.
        padding: Stored outside the round field of view, or None where the square is filled.
        couch: Radius of the table's curve, mm.
    """

    maker: str
    model: str
    lung: Kernel
    soft: Kernel
    image: tuple[str, ...]
    scout: tuple[str, ...]
    page: tuple[str, ...]
    position: str
    head_first: bool
    intercept: int
    padding: int | None
    couch: float


SCANNERS = {
    "siemens": Scanner(
        "SIEMENS", "Phantom 16", Kernel("B60f", 34, 0.5, 0.5), Kernel("B31f", 9, 0.22, -0.5),
        ("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"), ("ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"),
        ("DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"), "HFS", True, -1024, None, 550.0,
    ),
    "ge": Scanner(
        "GE MEDICAL SYSTEMS", "PhantomSpeed", Kernel("LUNG", 42, 0.6, 1.0),
        Kernel("STANDARD", 11, 0.26, -0.3), ("ORIGINAL", "PRIMARY", "AXIAL"),
        ("ORIGINAL", "PRIMARY", "LOCALIZER"), ("DERIVED", "SECONDARY", "SCREEN SAVE"),
        "FFS", False, 0, -2000, 700.0,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One case's study while it is written.

    Args:
        folder: Where its files go.
        case_id, patient_id: Made up.
        patient: Whose sex and age the headers give.
        scanner: Key of `SCANNERS`.
        syntax: Transfer syntax of the slices, one of `SYNTAXES`.
        nested: Whether each series has a folder of its own.
        entropy: What UIDs and file names are made from; the same gives the same.
    """

    folder: Path
    case_id: str
    patient_id: str
    patient: Patient
    scanner: str
    syntax: UID
    nested: bool
    entropy: tuple[str, ...]

    def uid(self, *parts: object) -> UID:
        """UID of a part of the study."""
        return generate_uid(entropy_srcs=[*self.entropy, self.case_id, *map(str, parts)])

    def names(self, series: int, count: int) -> list[Path]:
        """Paths for the files of a series, in an order that says nothing about that of the slices."""
        seed = [*map(ord, self.case_id), series]
        order = np.random.default_rng(seed).permutation(count)
        start = "" if self.nested else f"{series:03d}_"
        folder = self.folder / f"SE{series:04d}" if self.nested else self.folder
        ending = ".dcm" if self.syntax != ImplicitVRLittleEndian else ""
        return [folder / f"{start}IM{place + 1:05d}{ending}" for place in order]


def write_slices(
    study: Study, series: int, kernel: Kernel, hu: np.ndarray, corners: np.ndarray, pixel: float
) -> None:
    """Write one axial series.

    Args:
        study: Where it belongs.
        series: SeriesNumber, at least 1.
        kernel: Of its scanner.
        hu: Slices from the head to the feet, int16, shape `(slices, matrix, matrix)`.
        corners: Centre of each slice's first pixel (x, y, z), shape `(slices, 3)`: mm to the patient's left,
            back and head.
        pixel: Side of a pixel, mm; the field of view is the circle in the square.
    """
    scanner = SCANNERS[study.scanner]
    dataset = _common(study, series, scanner.image, f"Thorax 5.0 {kernel.name}")
    _geometry(dataset, study, (1, 0, 0, 0, 1, 0), (pixel, pixel))
    dataset.ConvolutionKernel = kernel.name
    dataset.ReconstructionDiameter = round(pixel * hu.shape[2], 3)
    dataset.WindowCenter, dataset.WindowWidth = (-600, 1500) if kernel == scanner.lung else (40, 400)
    outside = _outside(hu.shape[1]) if scanner.padding is not None else None
    paths = study.names(series, len(hu))
    for place, (plane, corner, path) in enumerate(zip(hu, corners, paths, strict=True)):
        dataset.InstanceNumber = place + 1 if scanner.head_first else len(hu) - place
        dataset.ImagePositionPatient = [round(float(value), 4) for value in corner]
        dataset.SliceLocation = round(float(corner[2]), 4)
        dataset.SOPInstanceUID = study.uid(series, place)
        _save(dataset, _stored(plane, scanner, outside), study.syntax, path)


def write_localizer(
    study: Study, series: int, picture: np.ndarray, spacing: tuple[float, float], corner: Sequence[float]
) -> None:
    """Write the picture seen from the front that the slices are planned on.

    Args:
        study: Where it belongs.
        series: SeriesNumber.
        picture: Mean HU along each ray, int16, shape `(rows, columns)`, the head up, the patient's left to
            the right.
        spacing: Between its rows and between its columns, mm.
        corner: Centre of its first pixel (x, y, z), as in `write_slices`.
    """
    scanner = SCANNERS[study.scanner]
    dataset = _common(study, series, scanner.scout, "Topogram")
    _geometry(dataset, study, (1, 0, 0, 0, 0, -1), spacing)
    dataset.WindowCenter, dataset.WindowWidth = -300, 900
    dataset.InstanceNumber = 1
    dataset.ImagePositionPatient = [round(float(value), 4) for value in corner]
    dataset.SOPInstanceUID = study.uid(series, 0)
    _save(dataset, _stored(picture, scanner, None), ExplicitVRLittleEndian, study.names(series, 1)[0])


def write_dose_page(study: Study, series: int) -> None:
    """Write a page of text as a secondary capture, as scanners put it beside the slices."""
    dataset = _common(study, series, SCANNERS[study.scanner].page, "Dose report")
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = study.uid(series, 0)
    dataset.InstanceNumber = 1
    dataset.ConversionType = "WSD"
    page = Image.new("L", (256, 256))
    text = f"PHANTOM, no patient\n{study.case_id}\n\nScan     kV  mAs  CTDIvol\nThorax  120  110     7.4"
    ImageDraw.Draw(page).multiline_text((16, 16), text, 255, ImageFont.load_default(12))
    _save(dataset, np.asarray(page), ExplicitVRLittleEndian, study.names(series, 1)[0])


def _common(study: Study, series: int, kind: Sequence[str], description: str) -> Dataset:
    """What all images of a series say."""
    scanner, dataset = SCANNERS[study.scanner], Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = CTImageStorage
    dataset.ImageType = list(kind)
    # Before any real CT of COVID-19, so that nobody takes it for one.
    for tag in ("StudyDate", "SeriesDate", "ContentDate"):
        setattr(dataset, tag, "19000101")
    for tag in ("StudyTime", "SeriesTime", "ContentTime"):
        setattr(dataset, tag, "120000")
    dataset.Modality = "CT"
    dataset.Manufacturer, dataset.ManufacturerModelName = scanner.maker, scanner.model
    dataset.StudyDescription, dataset.SeriesDescription = "PHANTOM Thorax", description
    dataset.PatientName, dataset.PatientID = f"PHANTOM^{study.case_id}", study.patient_id
    dataset.PatientSex, dataset.PatientAge = study.patient.sex, f"{study.patient.age:03d}Y"
    for tag in ("PatientBirthDate", "AccessionNumber", "ReferringPhysicianName"):
        setattr(dataset, tag, "")
    dataset.BodyPartExamined = "CHEST"
    dataset.BurnedInAnnotation = "NO"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.uid("study"), study.uid(series, "series")
    dataset.StudyID, dataset.SeriesNumber = "1", series
    return dataset


def _geometry(dataset: Dataset, study: Study, axes: Sequence[int], spacing: Sequence[float]) -> None:
    """What axial slices and the localizer say beyond that."""
    scanner = SCANNERS[study.scanner]
    dataset.PatientPosition = scanner.position
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = study.uid("frame"), ""
    dataset.ImageOrientationPatient = list(axes)
    dataset.PixelSpacing = [round(float(side), 6) for side in spacing]
    dataset.SliceThickness = 5
    dataset.GantryDetectorTilt = 0
    dataset.AcquisitionNumber = dataset.SeriesNumber
    dataset.KVP, dataset.XRayTubeCurrent, dataset.ExposureTime = 120, 220, 500
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = scanner.intercept, 1, "HU"
    if scanner.padding is not None:
        dataset.PixelPaddingValue = scanner.padding


def _outside(matrix: int) -> np.ndarray:
    """True outside the round field of view."""
    across = np.arange(matrix) - (matrix - 1) / 2
    return np.hypot(across, across[:, None]) > matrix / 2


def _stored(hu: np.ndarray, scanner: Scanner, outside: np.ndarray | None) -> np.ndarray:
    if scanner.intercept == 0:
        return hu if outside is None else np.where(outside, np.int16(scanner.padding), hu)
    return np.clip(hu - scanner.intercept, 0, 4095).astype(np.uint16)


def _save(dataset: Dataset, pixels: np.ndarray, syntax: UID, path: Path) -> None:
    stored = 12 if pixels.dtype == np.uint16 else pixels.dtype.itemsize * 8
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.set_pixel_data(pixels, "MONOCHROME2", stored, generate_instance_uid=False)
    if syntax == RLELossless:
        dataset.compress(syntax, encoding_plugin="gdcm", generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    with atomic(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
