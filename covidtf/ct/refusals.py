"""Why a DICOM image is not a slice that can be used: the rules, by what the header says."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID_dictionary

from covidtf.ct.fields import Fields
from covidtf.images import MAX_PIXELS

_CT_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2"))
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Only these are ever repeated in a reason: anything else in the field may be anything.
_MODALITIES = (
    *("AU", "CR", "DX", "DOC", "ECG", "IO", "KO", "MG", "MR", "NM", "OCT", "OT", "PR", "PT", "PX", "RF"),
    *("RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "SC", "SEG", "SM", "SR", "US", "XA", "XC"),
)
# Beyond these a header is damaged, and sums of its numbers are no numbers any more.
_SIDES = (0.01, 100.0)  # mm, of a pixel
_FARTHEST = 10_000.0  # mm
_STEEPEST, _HIGHEST = 1000.0, 100_000.0  # HU per stored value; HU
_NOT_HU = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")


def refusal(fields: Fields, dataset: Dataset, missing: str) -> tuple[str, str] | None:
    """Kind and reason of an image that cannot be used; None of one that can.

    Args:
        fields: Of the image.
        dataset: The object that it is in.
        missing: What its pixels lack, "" for nothing.
    """
    return (
        _not_original(fields)
        or (missing and ("damaged", missing))
        or _not_decodable(fields, dataset)
        or _not_in_hu(fields)
        or _not_axial(fields)
        or None
    )


def _not_original(fields: Fields) -> tuple[str, str] | None:
    modality, kind = fields.text("Modality"), fields.text("SOPClassUID")
    types = [text.upper() for text in fields.texts("ImageType")]
    if modality != "CT":
        shown = modality if modality in _MODALITIES else "another" if modality else "absent"
        return (shown if modality in _MODALITIES else "not CT"), f"modality {shown}; CT is wanted"
    if "LOCALIZER" in types:
        return "localizer", "localizer"
    if kind.startswith(_SECONDARY_CAPTURE) or types[1:2] == ["SECONDARY"] or "DOSE_INFO" in types:
        return "secondary capture", "dose page or other secondary capture"
    if kind not in _CT_CLASSES:
        known = UID_dictionary.get(kind)
        return "not CT", f"not a CT image but {known[0] if known else 'an object of an unknown class'}"
    if types[:1] == ["DERIVED"]:
        return "derived", "derived from other images (a reformat, for example), not an original"
    return None


def _not_decodable(fields: Fields, dataset: Dataset) -> tuple[str, str] | None:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    known = UID_dictionary.get(syntax)
    shown = known[0] if known else "unknown" if syntax else "absent"
    colour = fields.text("PhotometricInterpretation")
    rows, columns = fields.shape
    if fields.number("SamplesPerPixel") != 1 or not colour.startswith("MONOCHROME"):
        return "colour", "colour pixels"
    # Slices become square, so the longer side decides on the memory.
    if min(rows, columns) <= 0 or max(rows, columns) ** 2 > MAX_PIXELS:
        return "damaged", f"matrix of {rows} x {columns}"
    if (fields.number("NumberOfFrames") or 1) > 1 and not dataset.get("PerFrameFunctionalGroupsSequence"):
        return "not CT", "several frames without functional groups"
    try:
        available = get_decoder(syntax).is_available
    except Exception:
        available = False
    return None if available else ("compressed", f"transfer syntax {shown} cannot be decoded")


def _not_in_hu(fields: Fields) -> tuple[str, str] | None:
    slope, intercept = fields.number("RescaleSlope"), fields.number("RescaleIntercept")
    if not slope or intercept is None:
        return "not in HU", "no RescaleSlope and RescaleIntercept: values are not in Hounsfield units"
    if abs(slope) > _STEEPEST or abs(intercept) > _HIGHEST:
        wanted = f"RescaleSlope within {_STEEPEST:g} and RescaleIntercept within {_HIGHEST:.0f}"
        return "not in HU", f"{wanted} are wanted: values are not in Hounsfield units"
    if fields.text("RescaleType").upper() in _NOT_HU:
        return "not in HU", "RescaleType says that values are not in Hounsfield units"
    return None


def _not_axial(fields: Fields) -> tuple[str, str] | None:
    cosines = fields.numbers("ImageOrientationPatient", 6)
    spacing = fields.numbers("PixelSpacing", 2) or (0,)
    if cosines is None or min(spacing) <= 0:
        return "unplaced", "no valid ImageOrientationPatient and PixelSpacing"
    if min(spacing) < _SIDES[0] or max(spacing) > _SIDES[1]:
        return "unplaced", f"PixelSpacing in [{_SIDES[0]:g}, {_SIDES[1]:g}] mm is wanted"
    if max(map(abs, fields.numbers("ImagePositionPatient", 3) or (0,))) > _FARTHEST:
        return "unplaced", f"ImagePositionPatient within {_FARTHEST:.0f} mm is wanted"
    along_row, along_column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if not np.allclose(lengths, 1, atol=1e-2) or abs(along_row @ along_column) > 1e-2:
        return "unplaced", "ImageOrientationPatient is not two unit vectors at a right angle"
    if abs(np.cross(along_row, along_column)[2]) < np.cos(np.radians(45)):
        return "not axial", "not axial: the normal is more than 45 degrees off the body axis"
    return None
