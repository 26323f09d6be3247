"""DICOM files of one X-ray -> 8-bit pixels as a viewer would show them."""

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from covidtf.files import DataError


def is_dicom(data: bytes) -> bool:
    """Whether `data` is a DICOM file (128 bytes of preamble, then "DICM")."""
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, max_pixels: int) -> tuple[np.ndarray, dict[str, int | str]]:
    """Pixels of a DICOM image as displayed: stored values, modality, values of interest, polarity.

    Stored values go through the modality lookup table or `x * RescaleSlope + RescaleIntercept`, then through
    the first VOI lookup table, else the first window (LINEAR, LINEAR_EXACT or SIGMOID), else from their
    smallest and largest value; MONOCHROME1 is turned around. Overlays are not drawn.

    Args:
        data: Content of the file, compressed or not.
        max_pixels: Largest Rows x Columns accepted.
    Returns:
        uint8 array, shape `(height, width)`, and width, height, mode (PhotometricInterpretation), format and
        bits of the file.
    Raises:
        DataError: If there are no pixels, several frames, colours, or a window without width.
    Reference: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation) and C.11.2 (VOI LUT).
    """
    dataset = pydicom.dcmread(io.BytesIO(data))
    _check(dataset, max_pixels)
    properties = {
        "width": int(dataset.Columns),
        "height": int(dataset.Rows),
        "mode": str(dataset.PhotometricInterpretation),
        "format": "DICOM",
        "bits": int(dataset.BitsStored),
    }
    shown = _of_interest(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    return np.round(255 * shown).astype(np.uint8), properties


def _check(dataset: Dataset, max_pixels: int) -> None:
    if "PixelData" not in dataset:
        raise DataError("DICOM without integer pixels")
    width, height = dataset.Columns, dataset.Rows
    if width * height > max_pixels:
        raise DataError(f"too large: {width} x {height} px by its header; at most {max_pixels} are accepted")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise DataError(f"{frames} frames; one image per file is wanted")
    kind = dataset.get("PhotometricInterpretation", "absent")
    if kind not in ("MONOCHROME1", "MONOCHROME2") or dataset.SamplesPerPixel != 1:
        raise DataError(f"PhotometricInterpretation {kind}; an X-ray is MONOCHROME1 or MONOCHROME2")


def _of_interest(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Display values in [0, 1]."""
    if dataset.get("VOILUTSequence"):
        item = dataset.VOILUTSequence[0]
        _, first, bits = item.LUTDescriptor
        order = "<u2" if dataset.original_encoding[1] else ">u2"
        table = (
            np.frombuffer(item.LUTData, order) if isinstance(item.LUTData, bytes) else np.array(item.LUTData)
        )
        position = np.clip(np.round(values).astype(np.int64) - first, 0, len(table) - 1)
        return np.clip(table[position] / (2**bits - 1), 0, 1)
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        center, width = (float(np.ravel(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        return _window(values, center, width, dataset.get("VOILUTFunction") or "LINEAR")
    low, high = float(values.min()), float(values.max())
    return (values - low) / ((high - low) or 1.0)


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise DataError(f"VOILUTFunction {function!r} is not known")
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise DataError(f"WindowWidth {width:g} cannot be applied")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        # The standard's LINEAR counts grey levels, so that the first and the last are both inside.
        center, width = center - 0.5, max(width - 1, 1e-9)
    return np.clip((values - center) / width + 0.5, 0, 1)
