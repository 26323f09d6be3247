"""A NIfTI file -> volume in Hounsfield units."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity, voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from covidtf.ct.fields import fault, quiet
from covidtf.ct.volume import AIR, Volume, check_air, matrix_note, place
from covidtf.sources.metadata import RejectedError

ENDINGS = (".nii", ".nii.gz")
_MOST_OBLIQUE = 30.0
_SIDES = (0.01, 1000.0)  # mm, of a voxel
_MOST_VALUES = 2**31  # more than any scanner makes; a damaged header can ask for all memory


def read_nifti(path: Path) -> Volume:
    """Volume of a NIfTI-1 or NIfTI-2 file, turned to the nearest axes by its affine.

    Slice thickness is not part of the format: the distance between slices stands in. What the header says in
    words is not read.

    Raises:
        RejectedError: No NIfTI, damaged, several volumes, no affine (neither qform nor sform), oblique by
            more than 30 degrees, one slice, NaN or infinity in it, or nothing as low as air.
    """
    with quiet():
        try:
            image = nib.load(path)
            if not isinstance(image, nib.Nifti1Pair):
                raise RejectedError("not a NIfTI file")
            _check(image)
            values, affine = _upright(image)
            hu = _hounsfield(values, image.dataobj.slope, image.dataobj.inter)
        except RejectedError:
            raise
        # nibabel quotes the header in some of its exceptions.
        except Exception as error:
            raise RejectedError(fault(error, "NIfTI header or values")) from None
    spacing = tuple(float(size) for size in voxel_sizes(affine)[::-1])
    return Volume(
        hu=hu,
        spacing=spacing,
        thickness=spacing[0],
        positions=np.arange(len(hu)) * spacing[0],
        kernel="unknown",
        notes=tuple(_notes(values.shape, affine)),
    )


def _check(image: nib.Nifti1Pair) -> None:
    header, affine = image.header, image.affine
    if not (int(header["qform_code"]) or int(header["sform_code"])):
        raise RejectedError("neither qform nor sform is set, so its orientation is not known")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise RejectedError("its affine is not finite or not invertible")
    if len(image.shape) < 3 or any(size != 1 for size in image.shape[3:]):
        raise RejectedError(f"one volume is wanted. Received: {' x '.join(map(str, image.shape))} values")
    if np.prod(image.shape, dtype=float) > _MOST_VALUES:
        raise RejectedError(f"too large by its header: {' x '.join(map(str, image.shape))} values")
    if image.get_data_dtype().kind not in "iuf":
        raise RejectedError("its values are not plain numbers")
    sides = voxel_sizes(affine)
    if sides.min() < _SIDES[0] or sides.max() > _SIDES[1]:
        raise RejectedError(f"voxels with sides in [{_SIDES[0]:g}, {_SIDES[1]:g}] mm are wanted")
    oblique = np.degrees(obliquity(affine).max())
    if oblique > _MOST_OBLIQUE:
        raise RejectedError(f"oblique by {oblique:.1f} degrees; at most {_MOST_OBLIQUE:.0f} are accepted")


def _upright(image: nib.Nifti1Pair) -> tuple[np.ndarray, np.ndarray]:
    """Stored values as `(slices, rows, columns)` in this package's order; the affine in nibabel's."""
    stored = image.dataobj.get_unscaled().reshape(image.shape[:3])
    turn = io_orientation(image.affine)
    # Nibabel's axes then grow to the left of a viewer, forwards and upwards: this package's are the reverse.
    values = apply_orientation(stored, turn).transpose(2, 1, 0)[::-1, ::-1, ::-1]
    return values, image.affine @ inv_ornt_aff(turn, stored.shape)


def _hounsfield(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    count, rows, columns = values.shape
    if count < 2:
        raise RejectedError("one slice; at least two are wanted")
    side = max(rows, columns)
    if count * side**2 > _MOST_VALUES:
        raise RejectedError(f"too large once it is square: {count} slices of {rows} x {columns}")
    hu, lowest = np.full((count, side, side), AIR, np.int16), np.inf
    # Slice by slice, because the whole volume in float64 takes four times the memory of the result.
    for square, stored in zip(hu, values, strict=True):
        one = stored * float(slope) + float(intercept)
        if not np.isfinite(one).all():
            raise RejectedError("NaN or infinity in it")
        one = np.clip(np.rint(one), AIR, np.iinfo(np.int16).max)
        lowest = min(lowest, one.min())
        place(one, square)
    check_air(lowest)
    return hu


def _notes(shape: tuple[int, int, int], affine: np.ndarray) -> Iterator[str]:
    note = matrix_note(shape[1:])
    if note:
        yield note
    oblique = np.degrees(obliquity(affine).max())
    if oblique > 0.5:
        yield f"oblique by {oblique:.1f} degrees"
    yield "slice thickness is not part of NIfTI; the distance between slices stands in"
