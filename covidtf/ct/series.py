"""DICOM headers of one study -> its series, which of them can be used, and in which order."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from covidtf.ct.headers import Header, Slice
from covidtf.ct.stack import common_kernel, distances, distinct
from covidtf.sources.metadata import RejectedError

WANTED_THICKNESS = 5.0


@dataclass(frozen=True)
class Series:
    """One series of a study.

    Args:
        number: Running number in the study, from 1, in the order of SeriesNumber.
        headers: Its files.
        slices: Those of its slices that can be used.
        reason: Why none can; "" otherwise.
    """

    number: int
    headers: tuple[Header, ...]
    slices: tuple[Slice, ...]
    reason: str

    @property
    def thickness(self) -> float | None:
        """Median slice thickness, mm; the distance between slices where no header gives it."""
        given = [one.thickness for one in self.slices if one.thickness]
        given = given or [header.thickness for header in self.headers if header.thickness]
        if given:
            return float(np.median(given))
        return None if self.reason else float(np.median(np.diff(np.unique(distances(list(self.slices))))))

    @property
    def length(self) -> float:
        """Distance between its first and last slice along the normal, mm."""
        return 0.0 if self.reason else float(np.ptp(distances(list(self.slices))))

    @property
    def kernel(self) -> str:
        """`"lung"`, `"other"` or `"unknown"`."""
        return common_kernel(self.slices or self.headers)

    @property
    def count(self) -> int:
        """Slices at different positions."""
        return 0 if self.reason else distinct(distances(list(self.slices)))

    def row(self, state: str) -> dict:
        """Row of the table of series."""
        kinds = Counter(kind for header in self.headers for kind, _ in header.refused.elements())
        shapes = Counter(header.shape for header in self.headers)
        rows, columns = shapes.most_common(1)[0][0]
        return {
            "number": self.number,
            "files": len({header.path for header in self.headers}),
            "kind": "axial" if self.slices else kinds.most_common(1)[0][0],
            "rows": rows,
            "columns": columns,
            "thickness_mm": self.thickness,
            "kernel": self.kernel,
            "state": state,
        }


def find_series(headers: Iterable[Header]) -> list[Series]:
    """Series of a study in the order of their SeriesNumber.

    Files belong together by SeriesInstanceUID (by SeriesNumber where there is none). A series in which
    slices of several acquisitions lie at one position is taken apart by AcquisitionNumber.
    """
    groups = defaultdict(list)
    for header in headers:
        groups[header.series or header.number].append(header)
    ordered = sorted(groups.values(), key=lambda group: (_number(group), group[0].path))
    parts = [part for group in ordered for part in _acquisitions(group)]
    return [
        Series(number, tuple(group), tuple(slices), _reason(group, slices))
        for number, (group, slices) in enumerate(parts, 1)
    ]


def rank(series: Series, longest: float) -> tuple:
    """Key by which the best series comes first.

    1. A length along the normal of at least half of the longest series': not a few slices taken for detail.
    2. Thickness nearest to 5 mm, the difference rounded to 0.1 mm: what the published data set has.
    3. A lung kernel.
    4. More slices.
    5. The lower SeriesNumber.

    Args:
        series: One that can be used.
        longest: Length of the longest that can be used, mm.
    """
    off = math.floor(abs(series.thickness - WANTED_THICKNESS) * 10 + 0.5) / 10
    return 2 * series.length < longest, off, series.kernel != "lung", -series.count, series.number


def ranked(usable: Iterable[Series]) -> list[tuple[Series, tuple]]:
    """Series that can be used, each with its `rank`, the best first."""
    usable = list(usable)
    longest = max((one.length for one in usable), default=0.0)
    return sorted(((one, rank(one, longest)) for one in usable), key=lambda pair: pair[1])


def _number(group: list[Header]) -> float:
    return min((header.number for header in group if header.number is not None), default=math.inf)


def _acquisitions(group: list[Header]) -> list[tuple[list[Header], list[Slice]]]:
    slices = [one for header in group for one in header.slices]
    numbers = sorted({one.acquisition for one in slices if one.acquisition is not None})
    if len(numbers) < 2 or not _uniform(slices) or not _collide(slices, numbers):
        return [(group, slices)]
    parts = []
    for number in [*numbers, None]:
        part = [one for one in slices if one.acquisition == number]
        paths = {one.path for one in part}
        # Files without a usable slice stay with the first part, so that none of them is lost from the table.
        headers = [header for header in group if header.path in paths or not (parts or header.slices)]
        parts += [(headers, part)] if part else []
    return parts


def _collide(slices: list[Slice], numbers: list[float]) -> bool:
    """Whether slices of different acquisitions lie at one position."""
    try:
        places = distances(slices)
    except RejectedError:
        return False
    apart = [places[[one.acquisition == number for one in slices]] for number in numbers]
    return sum(map(distinct, apart)) > distinct(np.concatenate(apart))


def _reason(group: list[Header], slices: list[Slice]) -> str:
    if not slices:
        reasons = Counter(reason for header in group for _, reason in header.refused.elements())
        return "; ".join(reason for reason, _ in reasons.most_common())
    if not _uniform(slices):
        return "slices differ in matrix, orientation or pixel spacing"
    try:
        count = distinct(distances(slices))
    except RejectedError as error:
        return str(error)
    if len(slices) == 1:
        return "one slice; at least two are wanted"
    return "" if count > 1 else "all slices lie at one position"


def _uniform(slices: list[Slice]) -> bool:
    values = np.array([(*one.shape, *one.spacing, *one.orientation) for one in slices])
    return not len(values) or bool(np.allclose(values, values[0], rtol=1e-3, atol=1e-3))
