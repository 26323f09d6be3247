"""CT studies: from files as a scanner writes them to slices that a network reads."""

from pathlib import Path, PurePosixPath

from covidtf.ct.dicom import read_dicom_study
from covidtf.ct.headers import NO_PREAMBLE
from covidtf.ct.nifti import ENDINGS, read_nifti
from covidtf.ct.pictures import find_pictures
from covidtf.ct.volume import Study, StudyError, Volume, rejected_table, series_table
from covidtf.sources.folders import list_files
from covidtf.sources.metadata import RejectedError

__all__ = ["Study", "StudyError", "Volume", "read_study"]


def read_study(path: str | Path) -> Study:
    """One CT study: the series to use as a volume in Hounsfield units, or its slice images.

    - A folder with DICOM files in it (told by content, at any depth): the series that
      `covidtf.ct.series.rank` puts first among those that can be used.
    - Otherwise, a folder with one NIfTI file (`.nii`, `.nii.gz`): that volume.
    - Otherwise, a folder of slice images (PNG, JPEG, TIFF, BMP).
    - A file: a NIfTI file, or a DICOM file of an enhanced multi-frame object.

    Hidden files and links out of the folder are not read. Nothing that a DICOM or NIfTI header says of a
    person, place or time is kept or repeated: no name, id, date, UID or description. The name of a file,
    which may hold one, stands in its own row of a table, in no reason or note.

    Args:
        path: Folder or file.
    Returns:
        The study, with a table of its series and one of the files that were not used.
    Raises:
        StudyError: Nothing in it can be used; names `path` and the reason.
        OSError: If reading fails for a reason that is not one file's (an unreachable disk).
    """
    path = Path(path)
    if path.is_file():
        if path.name.casefold().endswith(ENDINGS):
            return _nifti(path, path.parent, path.name, {})
        return read_dicom_study(path, path.parent, [path.name], {})
    if not path.is_dir():
        raise StudyError(f"{path}: a folder or a file is wanted; there is none")
    names, rejected = _files(path)
    if "." in rejected:
        raise StudyError(f"{path}: {rejected['.']}")
    if any(_is_dicom(path / name) for name in names):
        return read_dicom_study(path, path, names, rejected)
    volumes = [name for name in names if name.casefold().endswith(ENDINGS)]
    if len(volumes) > 1:
        raise StudyError(f"{path}: one NIfTI file is wanted. Received: {len(volumes)}")
    if volumes:
        others = dict.fromkeys((name for name in names if name not in volumes), "not the NIfTI file")
        return _nifti(path, path, volumes[0], rejected | others)
    return _pictures(path, names, rejected)


def _files(root: Path) -> tuple[list[str], dict[str, str]]:
    """Files that may be read, relative to `root`, and path to reason of the others."""
    files = list_files(root, ["."])
    rejected = {str(PurePosixPath(name)): reason for name, reason in files.refused.items()}
    names = sorted(str(PurePosixPath(name)) for name in files.inside)
    hidden = [name for name in names if any(part.startswith(".") for part in PurePosixPath(name).parts)]
    rejected |= dict.fromkeys(hidden, "hidden file")
    return [name for name in names if name not in rejected], rejected


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False  # the reason is found, and listed, when the file is read


def _nifti(path: Path, root: Path, name: str, rejected: dict[str, str]) -> Study:
    try:
        volume = read_nifti(root / name)
    except RejectedError as error:
        table = rejected_table(rejected | {name: str(error)})
        raise StudyError(f"{path}: {error}", None, table) from None
    slices, rows, columns = volume.hu.shape
    row = {"number": 1, "files": 1, "kind": "axial", "rows": rows, "columns": columns}
    row |= {"thickness_mm": volume.thickness, "kernel": volume.kernel}
    row["state"] = f"chosen: the only volume, {slices} slices"
    return Study(volume, [], series_table([row]), rejected_table(rejected))


def _pictures(path: Path, names: list[str], rejected: dict[str, str]) -> Study:
    pictures, others = find_pictures(path, names)
    rejected = rejected_table(rejected | others)
    if not pictures:
        reason = f"no DICOM file ({NO_PREAMBLE}), no NIfTI file and no slice image in it"
        raise StudyError(f"{path}: {reason}", None, rejected)
    return Study(None, pictures, series_table([]), rejected)
