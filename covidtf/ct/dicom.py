"""A folder of DICOM files -> the study's best series as a volume, and a report of all the rest."""

from collections.abc import Iterable
from pathlib import Path

from covidtf.ct.fields import quiet
from covidtf.ct.headers import Header, read_header
from covidtf.ct.series import Series, find_series, ranked
from covidtf.ct.stack import build
from covidtf.ct.volume import Study, StudyError, Volume, rejected_table, series_table
from covidtf.sources.metadata import RejectedError

# By the rules of `rank`.
_CHOSEN = (
    "it covers more of the body",
    "its thickness is nearest to 5 mm",
    "its kernel is for lung",
    "it has most slices",
    "it is first",
)
_OTHERS = (
    "covers more of the body",
    "is nearer to 5 mm",
    "has a lung kernel",
    "has more slices",
    "is first",
)


def read_dicom_study(path: Path, root: Path, names: Iterable[str], rejected: dict[str, str]) -> Study:
    """Volume of the series that `covidtf.ct.series.rank` puts first and that holds up when it is decoded.

    Headers of all files are read first, pixels of a series only when its turn comes: a series that was not
    chosen may still have faults that only its pixels would show.

    Args:
        path: The study, for messages.
        root: Folder that `names` are relative to.
        names: Files to look at.
        rejected: Path to reason of files that are not.
    Raises:
        StudyError: Files of two patients or two studies, or no series can be used.
    """
    with quiet():
        headers, unread = _headers(root, names)
        rejected = rejected | unread | dict(filter(None, map(_refused, headers)))
        series = find_series(headers)
        mixed = _mixed(headers)
        if mixed:
            states = dict.fromkeys((one.number for one in series), f"rejected: {mixed}")
            raise _error(path, mixed, series, states, rejected)
        volume, states = _choose(root, series, rejected)
    if volume is None:
        raise _error(path, _summary(series, states), series, states, rejected)
    table = series_table([one.row(states[one.number]) for one in series])
    return Study(volume, [], table, rejected_table(rejected))


def _headers(root: Path, names: Iterable[str]) -> tuple[list[Header], dict[str, str]]:
    headers, unread = [], {}
    for name in sorted(names):
        try:
            headers.append(read_header(root, name))
        except RejectedError as error:
            unread[name] = str(error)
    return headers, unread


def _refused(header: Header) -> tuple[str, str] | None:
    refused = sum(header.refused.values())
    if not refused and header.slices:
        return None
    reasons = "; ".join(dict.fromkeys(reason for _, reason in header.refused))
    return header.path, f"{refused} of {header.frames} images in it: {reasons}" if header.slices else reasons


def _mixed(headers: list[Header]) -> str:
    """Reason if the files are not those of one study of one patient; says nothing of who it is."""
    names = ("PatientID", "PatientName", "PatientBirthDate")
    for i, name in enumerate(names):
        values = {header.patient[i] for header in headers} - {""}
        if len(values) > 1:
            return f"files of {len(values)} patients ({name} differs)"
    studies = {header.study for header in headers if header.slices} - {""}
    return f"files of {len(studies)} studies (StudyInstanceUID differs)" if len(studies) > 1 else ""


def _choose(
    root: Path, series: list[Series], rejected: dict[str, str]
) -> tuple[Volume | None, dict[int, str]]:
    """Volume of the best series and each series' state; adds to `rejected`."""
    states = {one.number: f"rejected: {one.reason}" for one in series if one.reason}
    usable = [one for one in series if not one.reason]
    while usable:
        (best, key), *others = ranked(usable)
        try:
            volume, unused = build(root, list(best.slices))
        except RejectedError as error:
            states[best.number] = f"rejected: {error}"
            usable.remove(best)
            continue
        rejected.update(unused)
        why = _CHOSEN[_differ(key, others[0][1])] if others else "the only series that can be used"
        states[best.number] = f"chosen: {why}"
        for one, its_key in others:
            states[one.number] = f"not chosen: series {best.number} {_OTHERS[_differ(key, its_key)]}"
        return volume, states
    return None, states


def _differ(best: tuple, other: tuple) -> int:
    """Index of the first rule that tells two series apart."""
    return next(i for i, (a, b) in enumerate(zip(best, other, strict=True)) if a != b)


def _summary(series: list[Series], states: dict[int, str]) -> str:
    if not series:
        return "no DICOM image can be used"
    reasons = [f"{one.number}: {states[one.number].removeprefix('rejected: ')}" for one in series]
    return f"no series can be used ({'; '.join(reasons)})"


def _error(
    path: Path, reason: str, series: list[Series], states: dict[int, str], rejected: dict[str, str]
) -> StudyError:
    table = series_table([one.row(states[one.number]) for one in series])
    return StudyError(f"{path}: {reason}", table, rejected_table(rejected))
