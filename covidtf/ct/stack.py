"""Axial slices -> one volume in Hounsfield units, turned so that every volume lies the same way."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.pixels import iter_pixels

from covidtf.ct.fields import fault
from covidtf.ct.headers import THICKEST, Slice
from covidtf.ct.volume import AIR, Volume, check_air, matrix_note, place
from covidtf.sources.metadata import RejectedError

SAME_PLACE = 0.01  # mm; positions have two or more decimals in headers
_HIGHEST = np.iinfo(np.int16).max


def distances(slices: list[Slice]) -> np.ndarray:
    """Place of each slice along the normal, mm, `(slices,)`, increasing towards the feet.

    ImagePositionPatient gives it, or SliceLocation where no slice has a position.

    Raises:
        RejectedError: Some slices have a position and others have none.
    """
    places = [one.position is not None for one in slices]
    if all(places):
        return np.array([one.position for one in slices]) @ _axes(slices[0])[2]
    if any(places):
        reason = f"{len(places) - sum(places)} of {len(places)} slices have no ImagePositionPatient"
        raise RejectedError(reason)
    if any(one.location is None for one in slices):
        raise RejectedError("slices have neither ImagePositionPatient nor SliceLocation")
    return -np.array([one.location for one in slices])


def distinct(places: np.ndarray) -> int:
    """How many places there are, `SAME_PLACE` apart."""
    return 1 + int((np.diff(np.sort(places)) > SAME_PLACE).sum()) if len(places) else 0


def build(root: Path, slices: list[Slice]) -> tuple[Volume, dict[str, str]]:
    """Volume of one series. To be called inside `covidtf.ct.fields.quiet`.

    Hounsfield units are `slope * stored + intercept` of each slice, rounded; padding and what is below -1024
    become -1024. A matrix that is not square gets air at its sides.

    Args:
        root: Folder that the slices' paths are relative to.
        slices: Of one matrix, orientation and pixel spacing.
    Returns:
        The volume, and path to reason of the files that were not used (damaged, equal copies).
    Raises:
        RejectedError: Two different images lie at one position, nothing is as low as air, or fewer than two
            slices can be decoded.
    """
    places = distances(slices)
    order = np.argsort(places, kind="stable")
    slices, places = [slices[i] for i in order], places[order]
    side = max(slices[0].shape)
    hu = np.full((len(slices), side, side), AIR, np.int16)
    damaged, lowest = _decode(root, slices, hu)
    kept = [i for i, one in enumerate(slices) if one.path not in damaged]
    if not kept:
        raise RejectedError(next(iter(damaged.values())))
    decoded = len(kept)
    kept, copies = _without_copies(hu, places, slices, kept)
    if len(kept) < 2:
        raise RejectedError("one slice; at least two are wanted")
    if len(kept) < len(slices):
        hu, places, slices = hu[kept], places[kept], [slices[i] for i in kept]
    check_air(lowest)
    between = np.diff(places)
    spacing = (float(np.median(between)), *_spacing(slices[0]))
    thickness = [one.thickness for one in slices if one.thickness]
    notes = [f"damaged files left out: {len(damaged)}"] if damaged else []
    notes += [f"equal copies of slices dropped: {decoded - len(kept)}"] if decoded > len(kept) else []
    volume = Volume(
        hu=hu,
        spacing=spacing,
        thickness=float(np.median(thickness)) if thickness else spacing[0],
        positions=places - places[0],
        kernel=common_kernel(slices),
        notes=(*notes, *_notes(slices, places)),
    )
    return volume, damaged | copies


def common_kernel(slices: list[Slice]) -> str:
    """The kernel of all slices, or "unknown" where they differ."""
    kernels = {one.kernel for one in slices}
    return kernels.pop() if len(kernels) == 1 else "unknown"


def _axes(one: Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of growing column and row, and the normal towards the feet, in patient coordinates."""
    along_row, along_column = np.array(one.orientation[:3]), np.array(one.orientation[3:])
    normal = np.cross(along_row, along_column)
    return along_row, along_column, -np.sign(normal[2]) * normal / np.linalg.norm(normal)


def _spacing(one: Slice) -> tuple[float, float]:
    return one.spacing[::-1] if _transposed(one) else one.spacing


def _transposed(one: Slice) -> bool:
    return abs(one.orientation[0]) < abs(one.orientation[1])


def _upright(image: np.ndarray, one: Slice) -> np.ndarray:
    """Image with row 0 anterior and column 0 at the patient's right: x grows leftwards, y backwards."""
    along_row, along_column, _ = _axes(one)
    if _transposed(one):
        image, along_row, along_column = image.T, along_column, along_row
    return image[:: 1 if along_column[1] > 0 else -1, :: 1 if along_row[0] > 0 else -1]


def _decode(root: Path, slices: list[Slice], hu: np.ndarray) -> tuple[dict[str, str], float]:
    """Fill `hu`; path to reason of the files that cannot be decoded, and the lowest value in the others."""
    files, damaged, lowest = defaultdict(list), {}, np.inf
    for i, one in enumerate(slices):
        files[one.path].append((one.frame, i))
    for path, frames in files.items():
        frames.sort()
        try:
            images = iter_pixels(root / path, raw=True, indices=[frame for frame, _ in frames])
            for (_, i), image in zip(frames, images, strict=True):
                values, low = _hounsfield(image, slices[i])
                place(_upright(values, slices[i]), hu[i])
                lowest = min(lowest, low)
        # Decoders raise almost anything on damaged files, and quote the header in it.
        except Exception as error:
            damaged[path] = fault(error, "pixels")
    return damaged, lowest


def _hounsfield(stored: np.ndarray, one: Slice) -> tuple[np.ndarray, float]:
    """Hounsfield units of one image, and the lowest outside the padding."""
    # float32 holds every 16-bit value exactly and takes half the time of float64.
    values = stored.astype(np.float32 if stored.dtype.itemsize <= 2 else np.float64)
    values *= one.slope
    values += one.intercept
    np.clip(np.rint(values, out=values), AIR, _HIGHEST, out=values)
    if not one.padding:
        return values.astype(np.int16), values.min()
    padding = (stored >= one.padding[0]) & (stored <= one.padding[1])
    lowest = values.min(where=~padding, initial=np.inf)
    values[padding] = AIR
    return values.astype(np.int16), lowest


def _without_copies(
    hu: np.ndarray, places: np.ndarray, slices: list[Slice], kept: list[int]
) -> tuple[list[int], dict[str, str]]:
    alone, copies = kept[:1], {}
    for i in kept[1:]:
        first = alone[-1]
        if places[i] - places[first] > SAME_PLACE:
            alone.append(i)
        elif np.array_equal(hu[i], hu[first]):
            copies[slices[i].path] = "equal copy of another file"
        else:
            raise RejectedError("two different images at one position")
    used = {slices[i].path for i in alone}
    return alone, {path: reason for path, reason in copies.items() if path not in used}


def _notes(slices: list[Slice], places: np.ndarray) -> Iterator[str]:
    yield from _notes_on_images(slices)
    apart, thick = np.median(np.diff(places)), max(one.thickness or 0 for one in slices)
    if thick and apart > 1.2 * thick:
        yield f"slices of {thick:g} mm lie {apart:.2f} mm apart, so what is between them was not imaged"
    yield from _spacing_notes(places)
    yield from _contradictions(slices, places)


def _notes_on_images(slices: list[Slice]) -> Iterator[str]:
    matrix = matrix_note(slices[0].shape)
    if matrix:
        yield matrix
    tilt = np.degrees(np.arccos(min(abs(_axes(slices[0])[2][2]), 1)))
    if tilt > 0.5:
        yield f"gantry tilt of {tilt:.1f} degrees"
    elif max(abs(one.tilt) for one in slices) > 0.5:
        tilt = max((one.tilt for one in slices), key=abs)
        yield f"gantry tilt of {abs(tilt):.1f} degrees by the header, none by the orientation"
    in_plane = np.sort(np.abs(slices[0].orientation[:2]))
    if np.degrees(np.arctan2(*in_plane)) > 0.5:
        yield f"slices are turned by {np.degrees(np.arctan2(*in_plane)):.1f} degrees in their plane"
    if not all(one.typed for one in slices):
        yield "ImageType is missing, so an original is taken for granted"
    without = sum(one.thickness is None for one in slices)
    if without:
        instead = "the distance between slices" if without == len(slices) else "that of the others"
        reason = f"SliceThickness is missing or not in (0, {THICKEST:g}] mm"
        yield f"{reason} in {without} of {len(slices)} slices; {instead} stands in"
    if len({one.kernel for one in slices}) > 1:
        yield "slices have different kernels"


def _spacing_notes(places: np.ndarray) -> Iterator[str]:
    """Notes on gaps (more than 1.5 times the median distance) and on other uneven distances (over 10 %)."""
    between = np.diff(places)
    median = np.median(between)
    for i in np.flatnonzero(between > 1.5 * median):
        yield f"gap of {between[i]:.2f} mm after slice {i} (slices are {median:.2f} mm apart)"
    rest = between[between <= 1.5 * median]
    if np.ptp(rest) > 0.1 * median:
        yield f"uneven distances between slices: {rest.min():.2f} to {rest.max():.2f} mm"


def _contradictions(slices: list[Slice], places: np.ndarray) -> Iterator[str]:
    if slices[0].position is None:
        yield "ImagePositionPatient is missing; SliceLocation stands in, taken to increase towards the head"
    elif not _agrees([one.location for one in slices], places):
        yield "SliceLocation contradicts ImagePositionPatient, which is used"
    if not _agrees([one.instance for one in slices], None):
        yield "InstanceNumber contradicts the order of the positions, which is used"


def _agrees(values: list[float | None], places: np.ndarray | None) -> bool:
    """Whether the values rise or fall all the way and, with `places`, about as far; true if one is absent."""
    if None in values:
        return True
    steps = np.diff(values)
    # A tilted gantry makes distances along the table up to 1 / cos(30 degrees) longer.
    far = places is None or abs(abs(steps.sum()) / np.ptp(places) - 1) < 0.2
    return bool(far and ((steps > 0).all() or (steps < 0).all()))
