"""Tiny CT studies as files, for the tests: classic and enhanced DICOM, NIfTI."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

AXIAL = (1, 0, 0, 0, 1, 0)
BETWEEN, ROW, COLUMN = 5.0, 0.75, 0.5


def chest(slices: int = 4, size: int = 16, seed: int = 0) -> np.ndarray:
    """Hounsfield units `(slices, size, size)` as in `Volume.hu`, without symmetry, air in the first row."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-900, 300, (slices, size, size)).astype(np.int16)
    hu[:, 0, :] = -1000
    return hu


def lungs(slices: int = 12, side: int = 64) -> np.ndarray:
    """A body of 5 mm pixels with two lungs in all but the first and last two slices, and noise."""
    hu = np.full((slices, side, side), -1000, np.int16)
    hu[:, 8:56, 4:60] = 40
    hu[2:-2, 18:46, 10:28] = hu[2:-2, 18:46, 36:54] = -850
    return hu + np.random.default_rng(0).integers(-20, 20, hu.shape, np.int16)


def slice_dataset(
    hu: np.ndarray, place: float = 0.0, orientation: tuple = AXIAL, **fields: object
) -> Dataset:
    """A classic CT image, `hu` as displayed, `place` mm below the uppermost; a field of None is absent."""
    pixels, corner = turned(hu, orientation)
    dataset = _image(pixels + 1024)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    values = {
        "PatientID": "P1",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "SeriesNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [*corner, 100.0 - place],
        "ImageOrientationPatient": list(orientation),
        "SliceLocation": 100.0 - place,
        "InstanceNumber": 1 + int(place),
        "SliceThickness": 5,
        "PixelSpacing": [ROW, COLUMN] if orientation[0] else [COLUMN, ROW],
        "ConvolutionKernel": "B70f",
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        **fields,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def series(
    folder: Path,
    hu: np.ndarray | None = None,
    change: Callable[[int, Dataset], object] = lambda _, dataset: None,
    number: int = 1,
    **fields: object,
) -> list[Path]:
    """A series of classic CT images, `BETWEEN` mm apart, in files whose names are not in slice order.

    Args:
        hu: As displayed, uppermost slice first.
        change: Called with the index and data set of each slice before it is written.
        number: SeriesNumber, and the last part of its UID.
        fields: For `slice_dataset`.
    """
    hu = chest() if hu is None else hu
    fields = {"SeriesNumber": number, "SeriesInstanceUID": f"1.2.3.{number}"} | fields
    paths = []
    for i, image in enumerate(hu):
        dataset = slice_dataset(image, i * BETWEEN, **fields)
        change(i, dataset)
        paths.append(save(dataset, folder / f"s{number}_{(i * 7 + 3) % 1009:04d}"))
    return paths


def enhanced(path: Path, hu: np.ndarray, kernel: str = "LUNG", order: list[int] | None = None) -> Path:
    """An enhanced multi-frame CT object; the frames are in the order given."""
    order = list(range(len(hu))) if order is None else order
    dataset = _image(hu[order] + 1024)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    dataset.NumberOfFrames = len(hu)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.PatientID, dataset.StudyInstanceUID = "P1", "1.2.3"
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = "1.2.3.9", 9, 1
    shared = Dataset()
    _group(shared, "PlaneOrientationSequence", ImageOrientationPatient=list(AXIAL))
    _group(shared, "PixelMeasuresSequence", PixelSpacing=[ROW, COLUMN], SliceThickness=5)
    _group(shared, "CTReconstructionSequence", ConvolutionKernel=kernel)
    _group(shared, "CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for i in order:
        frame = Dataset()
        _group(frame, "PlanePositionSequence", ImagePositionPatient=[0, 0, 100.0 - i * BETWEEN])
        _group(frame, "FrameContentSequence", FrameAcquisitionNumber=1)
        _group(frame, "PixelValueTransformationSequence", RescaleIntercept=-1024, RescaleSlope=1)
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return save(dataset, path)


def nifti(path: Path, hu: np.ndarray, signs: tuple = (1, 1, 1), axes: tuple = (0, 1, 2)) -> Path:
    """`hu` as displayed, stored with its axes flipped and permuted in the file, and the affine that says so.

    Args:
        signs: Direction of growing x (right), y (forwards) and z (up): -1 for the other one.
        axes: Which of x, y and z the file's first, second and third axis are.
    """
    # Nibabel's world grows to the patient's right, forwards and up; `hu` to the left, backwards and down.
    stored = hu.transpose(2, 1, 0)[::-1, ::-1, ::-1]
    spacing, affine = np.array([COLUMN, ROW, BETWEEN]), np.eye(4)
    for axis, sign in enumerate(signs):
        affine[axis, axis] = sign * spacing[axis]
        affine[axis, 3] = 0 if sign > 0 else (stored.shape[axis] - 1) * spacing[axis]
    stored = stored[tuple(slice(None, None, sign) for sign in signs)].transpose(axes)
    affine[:, :3] = affine[:, list(axes)]
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.ascontiguousarray(stored), affine)
    nib.save(image, path)
    return path


def raw_nifti(path: Path, stored: np.ndarray, affine: np.ndarray, scale: tuple = (1, 0)) -> Path:
    """A NIfTI file of just these stored values, slope and intercept; `affine` is its sform, sound or not."""
    header = nib.Nifti1Image(stored, np.eye(4)).header
    header.set_qform(None, 0)
    header.set_sform(affine, 1)
    header.set_slope_inter(*scale)
    header["vox_offset"] = 352
    with path.open("wb") as file:
        header.write_to(file)
        file.write(stored.tobytes(order="F"))
    return path


def save(dataset: Dataset, path: Path, implicit: bool = False) -> Path:
    """Write a data set as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def compress(path: Path, syntax: str) -> Path:
    """Rewrite a DICOM file without loss in a compressed transfer syntax, by gdcm's name for it."""
    # gdcm brings a zlib of its own for the whole process: loaded before Python's, it breaks gzip.
    import gdcm

    dataset = pydicom.dcmread(path)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    # gdcm writes enhanced objects with places of its own, so only the pixels are taken from it.
    compressed = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = compressed.file_meta.TransferSyntaxUID
    dataset["PixelData"] = compressed["PixelData"]
    dataset.save_as(path)
    return path


def edit(path: Path, change: Callable[[Dataset], object]) -> Path:
    """Change a DICOM file in place."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def turned(hu: np.ndarray, orientation: tuple) -> tuple[np.ndarray, tuple[float, float]]:
    """Pixels of an axis-aligned image plane that shows `hu`, and x and y of its first pixel.

    Each pixel's place is worked out in patient coordinates (x to the left, y backwards) and looked up there.
    """
    along_row, along_column = np.round(orientation[:2]), np.round(orientation[3:5])
    rows, columns = hu.shape if along_row[0] else hu.shape[::-1]
    j, i = np.meshgrid(np.arange(columns), np.arange(rows))
    x, y = (j * along_row[axis] + i * along_column[axis] for axis in (0, 1))
    pixels = hu[(y - y.min()).astype(int), (x - x.min()).astype(int)]
    return pixels, (float(-x.min() * COLUMN), float(-y.min() * ROW))


def _image(stored: np.ndarray) -> Dataset:
    dataset = Dataset()
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelData = np.ascontiguousarray(stored).astype("<u2").tobytes()
    return dataset


def _group(item: Dataset, keyword: str, **fields: object) -> None:
    inner = Dataset()
    for name, value in fields.items():
        setattr(inner, name, value)
    setattr(item, keyword, [inner])
