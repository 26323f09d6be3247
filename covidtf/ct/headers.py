"""One DICOM file's header -> the CT slices in it, or why there are none."""

import os
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from covidtf.ct.fields import Fields, fault
from covidtf.ct.kernels import kernel_of
from covidtf.ct.refusals import refusal
from covidtf.sources.metadata import RejectedError

NO_PREAMBLE = "no 'DICM' at byte 128"
THICKEST = 1000.0  # mm
_FARTHEST = 10_000.0  # mm, along the table
_STEEPEST = 90.0  # degrees
_DIRECTORY = "1.2.840.10008.1.3.10"
_FLOATING = (0x7FE00008, 0x7FE00009)
_UNDEFINED = 0xFFFFFFFF
_TAGS = [
    *("SOPClassUID", "Modality", "ImageType", "PatientID", "PatientName", "PatientBirthDate"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber", "InstanceNumber"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "ImagePositionPatient"),
    *("ImageOrientationPatient", "SliceLocation", "SliceThickness", "PixelSpacing", "GantryDetectorTilt"),
    *("ConvolutionKernel", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


@dataclass(frozen=True)
class Slice:
    """What a header says about one axial CT slice; lengths in mm, `None` where it says nothing."""

    path: str
    frame: int
    shape: tuple[int, int]
    spacing: tuple[float, float]
    orientation: tuple[float, ...]
    position: tuple[float, ...] | None
    location: float | None
    instance: float | None
    acquisition: float | None
    thickness: float | None
    tilt: float
    kernel: str
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    typed: bool


@dataclass(frozen=True)
class Header:
    """One DICOM file: whose it is (only ever compared, never shown), its slices, and why others are not."""

    path: str
    patient: tuple[str, str, str] = field(repr=False)
    study: str = field(repr=False)
    series: str = field(repr=False)
    number: float | None
    shape: tuple[int, int]
    thickness: float | None
    kernel: str
    frames: int
    slices: tuple[Slice, ...]
    refused: Counter  # (kind, reason) to number of frames


def read_header(root: Path, name: str) -> Header:
    """Header of `root/name`; the pixels are not read. To be called inside `covidtf.ct.fields.quiet`.

    Raises:
        RejectedError: The file is no DICOM image, or its header cannot be read.
    """
    dataset, missing = _open(root / name)
    try:
        return _header(dataset, missing, name)
    # Sequences are taken apart when they are first used, and raise then what is wrong with them.
    except Exception as error:
        raise RejectedError(fault(error, "header")) from None


def _header(dataset: Dataset, missing: str, name: str) -> Header:
    enhanced = "PerFrameFunctionalGroupsSequence" in dataset
    frames = range(len(dataset.PerFrameFunctionalGroupsSequence)) if enhanced else [None]
    whole, refused, slices = Fields(dataset), Counter(), []
    if not frames:
        refused["damaged", "no frames in it"] = 1
    for frame in frames:
        fields = Fields(dataset, frame)
        why = refusal(fields, dataset, missing)
        if why:
            refused[why] += 1
        else:
            slices.append(_slice(fields, name, frame, whole.number("PixelRepresentation") == 1))
    first = Fields(dataset, frames[0] if frames else None)
    return Header(
        path=name,
        patient=_patient(whole),
        study=whole.text("StudyInstanceUID"),
        series=whole.text("SeriesInstanceUID"),
        number=whole.number("SeriesNumber"),
        shape=whole.shape,
        thickness=_positive(first.number("SliceThickness")),
        kernel=kernel_of(first.texts("ConvolutionKernel")),
        frames=len(frames),
        slices=tuple(slices),
        refused=refused,
    )


def _open(path: Path) -> tuple[Dataset, str]:
    try:
        with path.open("rb") as file:
            start = file.read(132)
            if start[128:] != b"DICM":
                raise RejectedError(f"no DICOM file ({NO_PREAMBLE})" if start else "empty file")
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
            if dataset.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
                raise RejectedError("directory of a medium (DICOMDIR), not an image")
            return dataset, _missing_pixels(file, dataset)
    except RejectedError:
        raise
    except Exception as error:
        raise RejectedError(fault(error, "header")) from None


def _missing_pixels(file, dataset: Dataset) -> str:
    """Reason if the file ends before its pixels do; pydicom left `file` where they begin."""
    if dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return ""
    implicit, little = dataset.original_encoding
    head = file.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12):
        return "truncated, or without pixels"
    group, element = struct.unpack_from("<HH" if little else ">HH", head)
    if (group << 16) + element in _FLOATING:
        return "floating-point pixels"
    length = struct.unpack("<I" if little else ">I", head[-4:])[0]
    fields = Fields(dataset)
    rows, columns = fields.shape
    frames = fields.number("NumberOfFrames") or 1
    wanted = rows * columns * frames * (fields.number("BitsAllocated") or 16) / 8
    found = min(length, os.fstat(file.fileno()).st_size - file.tell())
    if length != _UNDEFINED and found < wanted:
        return f"truncated: {wanted:.0f} bytes of pixels were wanted. Received: {found}"
    return ""


def _slice(fields: Fields, name: str, frame: int | None, signed: bool) -> Slice:
    classic = frame is None
    return Slice(
        path=name,
        frame=frame or 0,
        shape=fields.shape,
        spacing=fields.numbers("PixelSpacing", 2),
        orientation=fields.numbers("ImageOrientationPatient", 6),
        position=fields.numbers("ImagePositionPatient", 3),
        location=_within(fields.number("SliceLocation"), _FARTHEST) if classic else None,
        instance=fields.number("InstanceNumber") if classic else None,
        acquisition=fields.number("AcquisitionNumber"),
        thickness=_positive(fields.number("SliceThickness")),
        tilt=_within(fields.number("GantryDetectorTilt"), _STEEPEST) or 0.0,
        kernel=kernel_of(fields.texts("ConvolutionKernel")),
        slope=fields.number("RescaleSlope"),
        intercept=fields.number("RescaleIntercept"),
        padding=_padding(fields, signed),
        typed=bool(fields.texts("ImageType")),
    )


def _padding(fields: Fields, signed: bool) -> tuple[int, int] | None:
    ends = [fields.number(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    # Files often give the value with the VR of the other sign.
    ends = [int(end) % 2**16 for end in ends if end is not None]
    ends = [end - 2**16 if signed and end >= 2**15 else end for end in ends]
    return min(ends), max(ends)


def _patient(fields: Fields) -> tuple[str, str, str]:
    name = fields.text("PatientName").replace("^", " ").replace("=", " ")
    return fields.text("PatientID"), " ".join(name.casefold().split()), fields.text("PatientBirthDate")


def _positive(value: float | None) -> float | None:
    return value if value is not None and 0 < value <= THICKEST else None


def _within(value: float | None, most: float) -> float | None:
    return value if value is not None and abs(value) <= most else None
