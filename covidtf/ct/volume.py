"""What a CT study becomes: a volume in Hounsfield units, and a report of what was used and what was not."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from covidtf.files import DataError
from covidtf.sources.metadata import RejectedError

AIR = -1024
# A CT of a chest holds air; values in another unit, or already in a window's grey values, hold none this low.
HIGHEST_AIR = -500
SERIES_COLUMNS = ("number", "files", "kind", "rows", "columns", "thickness_mm", "kernel", "state")
REJECTED_COLUMNS = ("path", "reason")


@dataclass(frozen=True)
class Volume:
    """One series as a stack of axial slices in Hounsfield units.

    Args:
        hu: int16, `(slices, rows, columns)`, -1024 and up; slice 0 is nearest to the head, row 0 anterior,
            column 0 the patient's right (as displayed).
        spacing: Distances between slices (median), rows and columns, mm.
        thickness: Slice thickness, mm.
        positions: Distance of each slice from slice 0 along the normal, mm, `(slices,)`, increasing towards
            the feet.
        kernel: `"lung"`, `"other"` or `"unknown"`.
        notes: What was found and mended or is odd (gaps, duplicates, gantry tilt); no identifying text.
    """

    hu: np.ndarray
    spacing: tuple[float, float, float]
    thickness: float
    positions: np.ndarray
    kernel: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        sides = " x ".join(map(str, self.hu.shape))
        return f"Volume({sides}, {self.thickness:g} mm slices, kernel {self.kernel}, notes {self.notes})"


@dataclass(frozen=True)
class Study:
    """A study as read, with everything that was not used and why.

    Args:
        volume: The chosen series; `None` for slice images.
        pictures: Slice images in natural order of their names; empty otherwise.
        series: One row per series found, columns `SERIES_COLUMNS`; `state` is `chosen: <why>`,
            `not chosen: <why>` or `rejected: <why>`.
        rejected: Files not used, columns `REJECTED_COLUMNS`; `path` is relative to the study.
    """

    volume: Volume | None
    pictures: list[Path]
    series: pd.DataFrame
    rejected: pd.DataFrame


class StudyError(DataError):
    """Nothing of a study can be used. The message names the path and the reason.

    Args:
        message: Path and reason.
        series: As in `Study`.
        rejected: As in `Study`.
    """

    def __init__(
        self, message: str, series: pd.DataFrame | None = None, rejected: pd.DataFrame | None = None
    ) -> None:
        super().__init__(message)
        self.series = series_table([]) if series is None else series
        self.rejected = rejected_table([]) if rejected is None else rejected


def series_table(rows: list[dict]) -> pd.DataFrame:
    """Table of series from one dictionary per series."""
    return pd.DataFrame(rows, columns=list(SERIES_COLUMNS))


def rejected_table(reasons: dict[str, str] | list) -> pd.DataFrame:
    """Table of rejected files, sorted by path, from path to reason."""
    return pd.DataFrame(sorted(dict(reasons).items()), columns=list(REJECTED_COLUMNS), dtype=str)


def place(image: np.ndarray, square: np.ndarray) -> None:
    """Write `image` into the middle of `square`."""
    top, left = ((len(square) - side) // 2 for side in image.shape)
    square[top : top + image.shape[0], left : left + image.shape[1]] = image


def check_air(lowest: float) -> None:
    """Pass if `lowest`, the lowest value of a volume's own pixels, can be air.

    Raises:
        RejectedError: It is above `HIGHEST_AIR`, or infinite because there are no pixels but padding.
    """
    if np.isinf(lowest):
        raise RejectedError("every pixel is padding")
    if lowest > HIGHEST_AIR:
        raise RejectedError(
            f"no air: its lowest value is {int(lowest)}, so values are not in Hounsfield units"
        )


def matrix_note(shape: tuple[int, int]) -> str:
    """Note on a matrix other than 512 x 512; "" for that."""
    rows, columns = shape
    padded = "" if rows == columns else ", with air added at its sides to make it square"
    return "" if shape == (512, 512) else f"matrix of {rows} x {columns}{padded}"
